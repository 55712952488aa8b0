"""Epochs of rxrx_fast's loader with warm and cold files, with and without readahead."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from _readers import evict, opened, resident
from _shared import in_turns, spread

from rxrx_fast import Catalog, DataLoader, Dataset, PlateStats, Policy
from rxrx_fast.bench.work import JITTER
from rxrx_fast.stores.files import FileStore
from rxrx_fast.synth import writer as synthetic

BATCH = 32
_DRAWN = 12  # generated sites; the others are copies of their files, with pages of their own


class WithoutReadahead(FileStore):
    """A store that reports every file as cached, so that nothing is read ahead."""

    def in_memory(self, positions: Sequence[int]) -> list[bool]:
        return [True] * len(positions)


def copies(folder: Path, sites: int, size: int) -> Catalog:
    """Make a catalog of ``sites`` sites of 6 x size x size pixels."""
    drawn = synthetic.generate(folder / "drawn", experiments=1, plates=1, wells=_DRAWN // 2, size=size, quiet=True)
    files = Catalog.read(drawn).files(range(_DRAWN))
    (folder / "HUVEC-01").mkdir()
    for k in range(sites):
        for channel, path in enumerate(files[k % _DRAWN], start=1):
            shutil.copyfile(path, folder / "HUVEC-01" / f"site{k:05d}_w{channel}.png")
    frame = pd.DataFrame({"experiment": "HUVEC-01", "well": [f"site{k:05d}" for k in range(sites)]})
    return Catalog.from_frame(frame, "{experiment}/{well}_w{channel}.png", 6, root=folder)


def epochs(folder: Path, sites: int, size: int, threads: int, rounds: int) -> list[dict]:
    """Measure sites a second of whole epochs of the work W1; the cases take turns."""
    catalog = copies(folder, sites, size)
    # Dirty pages can't be evicted.
    os.sync()
    paths = [path for paths in catalog.files(range(len(catalog))) for path in paths]
    # Reads every file once.
    stats = PlateStats.fit(catalog, quiet=True)
    policy = Policy(hflip=0.5, vflip=0.5, rot90=1.0, stats_jitter=JITTER)

    def loader(store: type[FileStore]) -> DataLoader:
        dataset = Dataset(catalog, normalize="plate", stats=stats, augment=policy)
        dataset.store = store(dataset.catalog, dataset.store.channels)
        made = DataLoader(dataset, min(BATCH, sites), shuffle=True, device="cpu", num_threads=threads)
        # Compile the kernels and touch the memory of the batches.
        list(made)
        return made

    loaders = {"readahead": loader(FileStore), "no readahead": loader(WithoutReadahead)}
    cases = [(cache, name) for cache in ("warm", "cold") for name in loaders]

    def measured(cache: str, name: str) -> Callable[[], tuple[float, float]]:
        def one() -> tuple[float, float]:
            if cache == "cold":
                evict(paths, False)
            elif resident(paths[::17]) < 1:
                for path in paths:
                    opened(path, None)
            before = resident(paths[::17])
            start = time.perf_counter()
            count = sum(len(images) for images, _, _ in loaders[name])
            return count / (time.perf_counter() - start), before

        return one

    found = []
    for (cache, name), runs in zip(cases, in_turns([measured(*case) for case in cases], rounds)):
        rates, before = zip(*runs)
        found.append({"loader": name, "cache": cache, "threads": threads, "image_size": size, "batch_size": BATCH,
                      "sites_per_s": spread(rates), "resident_before": max(before)})  # fmt: skip
    return found
