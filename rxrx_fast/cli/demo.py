"""The main job from end to end, without any data: generate, measure, stream, race, draw."""

from __future__ import annotations

import time
from pathlib import Path

from rxrx_fast import bench
from rxrx_fast.augment.policy import Policy
from rxrx_fast.catalog import Catalog
from rxrx_fast.dataset import Dataset
from rxrx_fast.loader import DataLoader
from rxrx_fast.stats import FILE_NAME, PlateStats
from rxrx_fast.synth import writer as synthetic
from rxrx_fast.viz.batch import draw_batch
from rxrx_fast.viz.plates import draw_plates
from rxrx_fast.viz.site import draw_site
from rxrx_fast.viz.statistics_table import statistics_table

__all__ = ["run"]

# Drawing a site takes most of a second on one core, so few sites; the race goes round them as often as it needs.
_DATA = {"experiments": 4, "plates": 2, "wells": 3, "sites": 2, "size": 512}
_EPOCHS = 2
_SHOWN = 12
_POLICY = Policy(hflip=0.5, vflip=0.5, rot90=1.0, stats_jitter=0.1)


def run(out, *, threads: int | None = None, quiet: bool = False) -> list[Path]:
    """Run the demonstration.

    Parameters
    ----------
    out : str or path
        Folder for the data and the pictures. What an interrupted run has made there is used.
    threads : int, optional
        By default one a core.
    quiet : bool
        Show no progress bars.

    Returns
    -------
    list of Path
        The pictures and the results of the race.
    """
    start = time.monotonic()
    out = Path(out)

    def step(number: int, title: str) -> None:
        print(f"\n[{number}/6] {title}  ({time.monotonic() - start:.0f} s)", flush=True)

    step(1, "generate a small RxRx1")
    root = synthetic.generate(out / "data", **_DATA, quiet=quiet)

    step(2, "read its catalog")
    catalog = Catalog.read(root)
    print(catalog.summary())

    step(3, "fit the statistics of each plate")
    stats = PlateStats.fit(catalog, path=Path(root) / FILE_NAME, num_threads=threads, quiet=quiet)
    print(statistics_table(stats, "plate"))

    step(4, f"stream {_EPOCHS} epochs, plate-normalised, jittered, flipped and turned")
    dataset = Dataset(catalog, normalize="plate", stats=stats, augment=_POLICY)
    loader = DataLoader(dataset, batch_size=16, shuffle=True, num_threads=threads)
    for _ in range(_EPOCHS):
        for images, labels, meta in loader:
            batch = images, labels, meta
    images, labels, meta = batch
    print(f"each batch: images {tuple(images.shape)} {images.dtype} on {images.device}, labels {tuple(labels.shape)}, "
          f"meta {', '.join(meta)}")  # fmt: skip
    print(f"the loader's report: {loader.report()['sentence']}")
    print("(no model trains here, so the loop only waits; with yours, this sentence says who waits for whom)")

    step(5, "race the usual ways of loading it")
    result = bench.run(catalog, peers=True, threads=threads, batch_size=16, rounds=3, seconds=1.5, quiet=quiet)
    result["command"] = "rxrx-fast demo"
    print(bench.table(result))

    step(6, "draw pictures")
    titles = catalog.table["site_id"][meta["site_index"][:_SHOWN].numpy()].tolist()
    written = [
        draw_site(catalog, out / "site.png"),
        draw_plates(catalog, out / "plates.png", stats=stats),
        draw_batch(images[:_SHOWN].cpu(), out / "batch.png", titles=titles),
        bench.draw(result, out / "race.png"),
        bench.write_json(result, out / "race.json"),
    ]
    sizes = "".join(f"  {path}  ({path.stat().st_size / 1000:,.0f} kB)\n" for path in written)
    print(f"\ndone in {time.monotonic() - start:.0f} s; the data is in {root}, and these were written:\n{sizes}")
    print(
        "next, with your own RxRx1 (from rxrx.ai or Kaggle, as it unpacks):\n"
        "  rxrx-fast stats ROOT            once: statistics, kept beside the data\n"
        "  rxrx-fast bench ROOT --peers    how fast this machine loads it\n"
        "and in Python:\n"
        "  import rxrx_fast as rx\n"
        '  dataset = rx.Dataset("ROOT", split="train", normalize="plate", augment=rx.Policy(hflip=0.5, rot90=1.0))\n'
        "  for images, labels, meta in rx.DataLoader(dataset, batch_size=64, shuffle=True): ..."
    )
    return written
