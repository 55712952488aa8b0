"""A fair race between ways of loading RxRx1: the same sites, statistics and work, in turns, checked before timing.

==================  =============================================================================
module              what it holds
==================  =============================================================================
``work``            the work W1: sites, statistics, settings, and a NumPy reference
``peers``           other ways of loading: torch, DALI, SPDL, WebDataset, LitData, MONAI; one file each
``ours``            rxrx_fast's loader, and its data set in torch's DataLoader
``race``            the check, the turns and their clock
``shares``          where the time of our loader's threads goes
``machine``         what it was measured on
``report``          the table, the JSON file and the chart
==================  =============================================================================

A contestant's life: made once, ``check``, two warm-up turns, ``rounds`` timed turns, ``close``. Ours has one turn more
at the end, for the shares.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone

import numpy as np

from rxrx_fast.bench import machine, race
from rxrx_fast.bench.peers import PEERS, load
from rxrx_fast.bench.report import draw, table, write_json
from rxrx_fast.bench.work import DESCRIPTION, DTYPES, Work
from rxrx_fast.errors import DataError, UsageError

__all__ = ["draw", "run", "table", "write_json"]

_CHECKED_SITES = 5


def run(
    root,
    *,
    peers: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    sites: int = 1024,
    batch_size: int = 32,
    threads: int | None = None,
    rounds: int = 3,
    seconds: float = 5.0,
    quiet: bool = False,
) -> dict:
    """Race over the complete sites of a data set.

    Parameters
    ----------
    root : str, path or Catalog
    peers : bool
        Race torch's DataLoader and DALI too.
    device : {"cpu", "cuda"}
        Where batches are delivered.
    dtype : {"float32", "float16"}
        Of the batches, for everyone.
    sites : int
        At most so many, spread evenly over the data. Their statistics are fitted first, which also brings the files
        into the page cache.
    batch_size, threads, rounds, seconds
        ``threads``: by default one a core. ``seconds``: about how long a turn takes.

    Returns
    -------
    dict
        Of plain values, as :func:`write_json` writes it: work, machine, data, results, not_run, report, date, commit.
    """
    from rxrx_fast.catalog import Catalog
    from rxrx_fast.devices.device import resolve
    from rxrx_fast.runtime.progress import bar
    from rxrx_fast.stats import PlateStats

    resolve(device)
    if dtype not in DTYPES:
        raise UsageError(f"dtype={dtype!r}: must be {' or '.join(map(repr, DTYPES))}")
    catalog = root if isinstance(root, Catalog) else Catalog.read(root, progress=not quiet)
    if peers and catalog.layout.files_per_site == 1:
        raise UsageError(
            f"{catalog.root}: the peers read one file a channel, and this is one RGB file a site; leave --peers out"
        )
    complete = catalog.available()
    if not len(complete):
        raise DataError(f"{catalog.root}: none of its {len(catalog):,} sites is complete; `rxrx-fast synth` makes some")
    chosen = complete.take(np.linspace(0, len(complete) - 1, min(sites, len(complete))).astype(np.int64))
    stats = PlateStats.fit(chosen, num_threads=threads, quiet=quiet)
    # Neighbours on disk are not neighbours in a batch, as in training.
    chosen = chosen.take(np.random.default_rng(0).permutation(len(chosen)))
    settings = {"batch_size": batch_size, "threads": threads or machine.usable_cores(), "device": device,
                "dtype": dtype}  # fmt: skip
    work = Work.of(chosen, stats, **settings)
    classes, not_run = _contestants(peers)
    few = Work.of(chosen.take(range(min(_CHECKED_SITES, len(chosen)))), stats, device=device, dtype=dtype,
                  augment=False, batch_size=2, threads=1)  # fmt: skip
    made = []
    with race.unwound():
        try:
            with bar(len(classes) * (2 + rounds), "racing", unit="turn", quiet=quiet) as progress:

                def tick(name: str) -> None:
                    progress.set_postfix_str(name)
                    progress.update()

                for contestant in classes:
                    race.check(contestant, few)
                    tick(contestant.name)
                for contestant in classes:
                    made.append(contestant(work))
                rows = race.run(made, work, rounds=rounds, seconds=seconds, tick=tick)
            report = made[0].loader.report()
            # Not below half a second: the system's clocks advance in ticks.
            threads_time = made[0].shares(round(rows[0].sites_per_s * max(seconds, 0.5) / batch_size))
        finally:
            for contestant in made:
                contestant.close()
    return {
        "work": {"name": "W1", "steps": DESCRIPTION, **settings, "rounds": rounds, "seconds_a_turn": seconds,
                 "checked": f"equal to a NumPy reference on {len(few)} sites, without augmentation"},
        "machine": machine.describe(),
        "data": _data(catalog, work),
        "results": [
            {"name": row.name, "sites_per_s": row.sites_per_s, "runs": row.runs,
             "min": min(row.runs), "max": max(row.runs)}
            for row in rows
        ],
        "not_run": not_run,
        "report": {"sentence": report["sentence"], "stages_s": report["stages_s"], "threads_time": threads_time},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": machine.commit(),
    }  # fmt: skip


def _contestants(peers: bool) -> tuple[list[type], list[dict[str, str]]]:
    """The classes that can run, ours first, and the names of the others with the reason."""
    from rxrx_fast.bench.ours import DatasetInTorch, Loader

    classes, not_run = [Loader, DatasetInTorch], []
    for module, (name, _) in PEERS.items() if peers else ():
        try:
            classes.append(load(module))
        except ImportError as error:
            not_run.append({"name": name, "reason": str(error)})
    return classes, not_run


def _data(catalog, work: Work) -> dict:
    from rxrx_fast.stores import open_store

    height, width = open_store(work.catalog).image_size
    sample = work.paths[:256]
    return {
        "layout": catalog.layout.name,
        "root": catalog.root,
        "synthetic": os.path.exists(os.path.join(catalog.root, "synthetic.json")),
        "sites": len(work),
        "channels": catalog.layout.channels,
        "image_size": [height, width],
        "bytes_a_site": round(sum(os.path.getsize(path) for paths in sample for path in paths) / len(sample)),
    }
