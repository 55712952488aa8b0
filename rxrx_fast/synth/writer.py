"""Write a synthetic RxRx1: the real structure, files and metadata, and images that a model can learn from.

`rxrx_fast.synth.design` plans the wells, `rxrx_fast.synth.render` draws a site, and `generate` writes the files.

A file's bytes depend on the seed, its experiment, plate, well, site, channel and size, and its well's siRNA. They do
not depend on the number of workers, the order of work, the layout, or the other experiments.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import multiprocessing.connection
import multiprocessing.synchronize
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import cast

import pandas as pd
from PIL import Image

from rxrx_fast.errors import DataError, UsageError
from rxrx_fast.runtime import progress
from rxrx_fast.synth.batch_effects import site_effects
from rxrx_fast.synth.design import WELLS, Parameters, Well, check_integer, experiment_names, plan
from rxrx_fast.synth.phenotypes import NEGATIVE_CONTROL
from rxrx_fast.synth.render import SiteSpec, render_site

__all__ = ["generate"]

VERSION = 1  # of the bytes that a seed gives: raise it with every change of an image or of the plan
MANIFEST = "synthetic.json"
CHANNELS = 6
_FACTORS = ("strength", "experiment_effect", "plate_effect")
PARTIAL = ".part"  # ending of a file being written
SMALL = 3_000_000  # pixels per channel, about two seconds of work: below it a pool costs more than it saves


def generate(
    out: str | os.PathLike,
    *,
    layout: str = "rxrx",
    experiments: int | Sequence[str] = 4,
    plates: int = 4,
    wells: int = WELLS,
    sites: int = 2,
    size: int = 512,
    seed: int = 0,
    strength: float = 1.0,
    experiment_effect: float = 1.0,
    plate_effect: float = 1.0,
    workers: int | None = None,
    quiet: bool = False,
) -> str:
    """Write a synthetic RxRx1 into the folder ``out``. Called again after an interruption, it writes what is missing.

    Parameters
    ----------
    out : path
        A folder that is new, empty, or holds an earlier run with the same parameters.
    layout : str
        ``"rxrx"`` as published by rxrx.ai (``images/`` and metadata.csv), or ``"kaggle"`` as in the 2019 competition
        (``train/``, ``test/`` and four CSVs).
    experiments : int or sequence of str
        A count from 1 to 51, spread over cell types and splits (see `experiment_names`), or names such as
        ``["RPE-01", "RPE-08"]``.
    plates : int
        1 to 4 per experiment.
    wells : int
        3 to 308 per plate. With fewer than 308 a plate keeps its untreated well and a share of its controls and
        treatments, the same ones in every experiment.
    sites : int
        Sites per well; RxRx1 has 2.
    size : int
        Pixels a side; RxRx1 has 512. Smaller images show a smaller field at a lower resolution (see
        `rxrx_fast.synth.render`).
    seed : int
    strength : float
        Multiplies the siRNAs' effects on cells; 1 is subtle to moderate, as in RxRx1.
    experiment_effect, plate_effect : float
        Multiply the differences between experiments, and between plates of one experiment; 1 is the size in RxRx1's
        published statistics.
    workers : int, optional
        Processes. 1 works in this process. By default one per core, or this process alone where there is little to do.
    quiet : bool
        Show no progress bar.

    Returns
    -------
    str
        The absolute path of ``out``.

    Raises
    ------
    UsageError
        If an argument does not fit, or ``out`` holds something else, or a data set with other parameters.
    DataError
        If a file can't be written.
    """
    if workers is not None:
        check_integer("workers", workers, 1, 1024)
    # experiment_names refuses everything that is not a count.
    names = experiments if isinstance(experiments, (list, tuple)) else experiment_names(cast(int, experiments))
    parameters = Parameters(
        layout, tuple(names), plates, wells, sites, size, seed, strength, experiment_effect, plate_effect
    )
    root = os.path.abspath(os.fspath(out))
    _claim(root, parameters)

    # The metadata comes last: a folder that has it is complete.
    tasks = [task for task in plan(parameters) if _missing(root, parameters, task)]
    if workers is None:
        small = len(tasks) * sites * size * size < SMALL
        workers = 1 if small else os.cpu_count() or 1
    with progress.bar(len(tasks) * sites, f"drawing {os.path.basename(root)}", quiet=quiet) as bar:
        for _ in _run(root, parameters, tasks, min(workers, len(tasks))):
            bar.update(sites)
    _write_metadata(root, parameters)
    return root


def _claim(root: str, parameters: Parameters) -> None:
    """Claim the folder: write the manifest, or check that the same one is there."""
    wanted = {
        # The name on disk since version 1. It is compared when a folder is completed, so it stays.
        "generator": "rxrx_fast.synthetic",
        "version": VERSION,
        **asdict(parameters),
        "experiments": list(parameters.experiments),
    }
    path = os.path.join(root, MANIFEST)
    try:
        os.makedirs(root, exist_ok=True)
        present = sorted(name for name in os.listdir(root) if not name.endswith(PARTIAL))
        if not present:
            _write_atomically(path, lambda temporary: _write_text(temporary, json.dumps(wanted, indent=1) + "\n"))
            return
        text = None
        if MANIFEST in present:
            with open(path, encoding="utf-8") as file:
                text = file.read()
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{root} is not a folder; choose another place") from None
    except OSError as error:
        raise _cannot_write(root, error) from None
    if text is None:
        raise UsageError(f"{root} holds other things ({present[0]}, for one); choose a new or empty folder")
    try:
        found = json.loads(text)
        # Older data sets do not name these factors, which were 1.
        before = {key: found.get(key, 1.0) if key in _FACTORS else found[key] for key in wanted}
    except (ValueError, KeyError, TypeError):
        raise DataError(
            f"{path} does not describe a synthetic data set; delete the folder and generate it again"
        ) from None
    for key, value in wanted.items():
        if before[key] != value:
            raise UsageError(
                f"{root} holds a data set with {key} {before[key]!r}, not {value!r}; "
                f"choose another folder or the same {key}"
            )


def _folder(root: str, parameters: Parameters, task: Well) -> str:
    top = "images" if parameters.layout == "rxrx" else task.dataset
    return os.path.join(root, top, task.experiment, f"Plate{task.plate}")


def _files(parameters: Parameters, task: Well, site: int) -> list[str]:
    return [f"{task.well}_s{site}_w{channel}.png" for channel in range(1, CHANNELS + 1)]


def _missing(root: str, parameters: Parameters, task: Well) -> list[int]:
    """List the well's sites that lack a file.

    Files are renamed into place when they are whole, so a file that exists is complete.
    """
    folder = _folder(root, parameters, task)
    if not os.path.isdir(folder):
        return list(range(1, parameters.sites + 1))
    return [
        site
        for site in range(1, parameters.sites + 1)
        if not all(os.path.exists(os.path.join(folder, name)) for name in _files(parameters, task, site))
    ]


def _run(root: str, parameters: Parameters, tasks: list[Well], workers: int) -> Iterator[None]:
    """Draw every well, here or in processes. Yields once for each well on disk."""
    if workers <= 1:
        for task in tasks:
            _draw(root, parameters, task)
            yield
        return
    # Spawn, not fork: the caller may have threads (torch, numba), and a fork would copy their locks.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(stop,)
    )
    waiting = iter(tasks)
    running: set[concurrent.futures.Future] = set()
    try:
        while True:
            # Three wells per worker in flight keep the workers busy and hold little memory.
            while len(running) < 3 * workers and (well := next(waiting, None)) is not None:
                running.add(pool.submit(_draw, root, parameters, well))
            if not running:
                break
            done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except concurrent.futures.process.BrokenProcessPool:
        raise DataError(
            "a worker process died, perhaps for want of memory; run again with fewer workers to go on"
        ) from None
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


# In a worker: the parent's event that asks it to stop after the current file.
_stop: multiprocessing.synchronize.Event | None = None


def _start_worker(stop: multiprocessing.synchronize.Event) -> None:
    """Leave Ctrl-C to the parent, which stops the pool in order, and end with the parent if it is killed."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _draw(root: str, parameters: Parameters, task: Well) -> None:
    """Render and write the missing sites of a well."""
    folder = _folder(root, parameters, task)
    try:
        os.makedirs(folder, exist_ok=True)
        for site in _missing(root, parameters, task):
            if _stop is not None and _stop.is_set():
                return
            key = (parameters.seed, task.experiment, task.plate, task.well, site)
            effects = site_effects(*key, parameters.experiment_effect, parameters.plate_effect)
            image = render_site(
                SiteSpec(task.cell_type, task.sirna, effects, key, parameters.size, parameters.strength)
            )
            for name, channel in zip(_files(parameters, task, site), image):
                if _stop is not None and _stop.is_set():
                    return
                # The settings with which the real files were written.
                save = partial(Image.fromarray(channel).save, format="PNG", compress_level=9)
                _write_atomically(os.path.join(folder, name), save)
    except OSError as error:
        raise _cannot_write(folder, error) from None


def _write_metadata(root: str, parameters: Parameters) -> None:
    wells = plan(parameters)
    table = pd.DataFrame(
        {
            "id_code": [well.well_id for well in wells],
            "experiment": [well.experiment for well in wells],
            "plate": [well.plate for well in wells],
            "well": [well.well for well in wells],
            "sirna": [well.sirna for well in wells],
            "well_type": [well.well_type for well in wells],
            "cell_type": [well.cell_type for well in wells],
            "dataset": [well.dataset for well in wells],
        }
    )
    for name, frame in (_rxrx_tables if parameters.layout == "rxrx" else _kaggle_tables)(table, parameters.sites):
        path = os.path.join(root, name)
        try:
            _write_atomically(path, partial(frame.to_csv, index=False, lineterminator="\n"))
        except OSError as error:
            raise _cannot_write(path, error) from None


def _rxrx_tables(table: pd.DataFrame, sites: int) -> list[tuple[str, pd.DataFrame]]:
    """Make the metadata.csv of rxrx.ai: one row per site.

    Its column ``sirna`` is a reagent's name (EMPTY for none), and ``sirna_id`` is the label.
    """
    table = table.loc[table.index.repeat(sites)].reset_index(drop=True)
    table["site"] = table.groupby("id_code").cumcount() + 1
    table["site_id"] = table["id_code"] + "_" + table["site"].astype(str)
    table["sirna_id"] = table["sirna"]
    table["sirna"] = [("EMPTY" if sirna == NEGATIVE_CONTROL else f"s{10000 + sirna}") for sirna in table["sirna_id"]]
    table = table.rename(columns={"id_code": "well_id"})
    columns = [
        "site_id",
        "well_id",
        "cell_type",
        "dataset",
        "experiment",
        "plate",
        "well",
        "site",
        "well_type",
        "sirna",
        "sirna_id",
    ]
    return [("metadata.csv", table[columns])]


def _kaggle_tables(table: pd.DataFrame, sites: int) -> list[tuple[str, pd.DataFrame]]:
    """Make the four CSVs of the 2019 competition: one row per well, and no labels in test.csv."""
    columns = ["id_code", "experiment", "plate", "well", "sirna"]
    treated = table["well_type"] == "treatment"
    files = []
    for split in ("train", "test"):
        part = table["dataset"] == split
        files.append((f"{split}.csv", table.loc[part & treated, columns if split == "train" else columns[:-1]]))
        files.append((f"{split}_controls.csv", table.loc[part & ~treated, [*columns, "well_type"]]))
    return files


def _write_text(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _write_atomically(path: str, write: Callable[[str], object]) -> None:
    """Call ``write`` with a temporary name beside ``path``, then rename: a file that exists is whole."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}{PARTIAL}")
    try:
        write(temporary)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def _cannot_write(path: str, error: OSError) -> DataError:
    return DataError(
        f"can't write {path}: {error.strerror or error}; "
        "what is written is kept, so mend it and run the same command again"
    )
