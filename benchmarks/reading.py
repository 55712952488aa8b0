"""How fast six files a site can be read, and what bounds it: the calls, the GIL, memory or the disk.

    python benchmarks/reading.py                      # in a new folder under /tmp, removed at the end
    python benchmarks/reading.py --folder /data       # on another disk
    python benchmarks/reading.py --drop-caches        # names and inodes cold too: empties the whole machine's caches
    python benchmarks/reading.py --smallest --out /tmp/out

Every row reads sites of six files of RxRx1's sizes in random order. *Warm*: all of it is in the page cache, and more
than a processor's caches hold. *Cold*: each file was evicted before, which ``mincore`` confirms; as long as a
hypervisor or a disk array has no cache of its own below, they come from the disk. Rows take turns, round by round.

**What bounds a row** is computed. The time of its threads has five parts: user code (Python, under the GIL), system
calls, the copy to user memory (part of the system calls; estimated from the bandwidth for blocks of this size), sleep,
and waiting for a core. The largest part except the last is the bound. Threads of a warm row sleep only for locks: the
GIL and, with mmap, the address space's lock. Threads of a cold row sleep for the disk. If the row reaches 60% of the
disk's parallel read bandwidth, bandwidth is the bound; else too few requests are in flight.

The loader's rows are whole epochs, warm and cold, with and without readahead (``rxrx_fast/stores/readahead.py``).

A folder of 100,000 files is compared with folders of 3,700, a plate's, by listing them and opening random names.
"""

from __future__ import annotations

import argparse
import mmap
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from _epochs import epochs
from _readers import DROP, LARGEST, METHODS, evict, measure, opened, resident
from _shared import INK, SERIES, THEIRS, dress, header, in_turns, new_figure, spread, thread_counts, write

from rxrx_fast.bench import machine

BLOCK = 65_536
NEAR = 0.6  # share of a disk's floor from which on it is the bound
PARTS = {"user": "user code", "copy": "copy", "kernel": "system calls", "asleep": "asleep", "no_core": "no core"}


def floors(folder: Path, size: int) -> dict[str, float]:
    """Measure the limits: memory bandwidth, disk bandwidth, and the cost of opening files."""
    source, target = np.ones(size, np.uint8), np.ones(BLOCK, np.uint8)
    blocks = source[: size // BLOCK * BLOCK].reshape(-1, BLOCK)
    path = folder / "floor"
    path.write_bytes(np.random.default_rng(0).integers(0, 256, size, np.uint8).tobytes())
    descriptor = os.open(path, os.O_RDWR)
    os.fsync(descriptor)
    os.close(descriptor)

    def copy() -> float:
        start = time.perf_counter()
        for block in blocks:
            np.copyto(target, block)
        return blocks.size / (time.perf_counter() - start)

    def names() -> float:
        start = time.perf_counter()
        for _ in range(1000):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            os.fstat(descriptor)
            os.close(descriptor)
        return (time.perf_counter() - start) / 1000

    def read(block: int, offsets, depth: int) -> float:
        evict([str(path)], False)
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECT", 0))
        except OSError:  # a file system without direct access
            descriptor = os.open(path, os.O_RDONLY)
        # Direct access needs memory on page boundaries.
        with ThreadPoolExecutor(depth) as pool:
            memory = [mmap.mmap(-1, block) for _ in range(depth)]
            start = time.perf_counter()
            parts = [offsets[k::depth] for k in range(depth)]
            total = sum(
                pool.map(lambda k: sum(os.preadv(descriptor, [memory[k]], int(n)) for n in parts[k]), range(depth))
            )
            seconds = time.perf_counter() - start
        os.close(descriptor)
        return total / seconds

    large = min(size, 1 << 20)
    places = np.random.default_rng(1).permutation(size // BLOCK)[:400] * BLOCK
    found = {
        "copy_bytes_per_s": max(copy() for _ in range(3)),
        "open_fstat_close_s": min(names() for _ in range(3)),
        "disk_bytes_per_s": max(read(large, range(0, size, large), depth) for depth in (1, 4, 16)),
        "disk_request_s": BLOCK / max(read(BLOCK, places, 1) for _ in range(2)),
    }
    path.unlink()
    return found


def judge(row: dict, floor: dict[str, float]) -> str:
    """Say what bounds a row; see the module's docstring."""
    rate, parts = row["sites_per_s"]["median"], row["parts"]
    if row["cache"] == "cold":
        if row["resident_before"] > 0.05:
            return f"unknown: {row['resident_before']:.0%} of the files stayed in memory"
        share = rate * row["bytes_a_site"] / floor["disk_bytes_per_s"]
        if share >= NEAR:
            return f"disk bandwidth ({share:.0%} of it)"
        if parts["asleep"] >= max(parts[name] for name in ("user", "copy", "kernel")):
            one = rate * 6 * floor["disk_request_s"] / row["threads"]
            return f"disk latency ({one:.0%} of one request at a time a thread, {share:.0%} of the bandwidth)"
    names = {"user": "Python under the GIL", "copy": "memory copy", "kernel": "system calls",
             "asleep": "threads waiting for each other"}  # fmt: skip
    largest = max(names, key=parts.get)
    return f"{names[largest]} ({parts[largest] / sum(parts[name] for name in names):.0%} of its time)"


def rows(folder: Path, options) -> tuple[list[dict], dict[str, float]]:
    """Every method, number of threads and state of the cache."""
    rng = np.random.default_rng(0)
    sizes = np.clip(rng.lognormal(np.log(60_000), 0.4, 6 * options.sites), 37_000, LARGEST).astype(int)
    noise = rng.integers(0, 256, LARGEST, np.uint8).tobytes()
    paths = [str(folder / f"site{k // 6:05d}_w{k % 6 + 1}.png") for k in range(len(sizes))]
    for path, size in zip(paths, sizes):
        Path(path).write_bytes(noise[:size])
    # Pages that are not on the disk yet can't be evicted.
    os.sync()
    floor = floors(folder, options.floor_bytes)
    sites = [paths[k : k + 6] for k in range(0, len(paths), 6)]
    cases = [(cache, name, n) for cache in ("warm", "cold") for name in METHODS for n in options.threads]

    def measured(cache: str, name: str, threads: int) -> Callable[[], dict]:
        def one() -> dict:
            order = [sites[k] for k in rng.permutation(len(sites))]
            if cache == "warm":
                for path in paths if resident(paths[::17]) < 1 else ():
                    opened(path, None)
                return {**measure(METHODS[name], order, threads, options.seconds, True), "resident": 1.0}
            evict(paths, options.drop_caches)
            before = resident(paths[::17])
            return {**measure(METHODS[name], order, threads, 4 * options.seconds, False), "resident": before}

        return one

    measured_rows = in_turns([measured(*case) for case in cases], options.rounds)
    found = []
    for (cache, name, threads), runs in zip(cases, measured_rows):
        parts = {part: float(np.median([run["parts"][part] for run in runs])) for part in runs[0]["parts"]}
        size = float(np.median([run["bytes_a_site"] for run in runs]))
        parts["copy"] = 0.0 if name == "mmap" else min(size / floor["copy_bytes_per_s"], parts["kernel"])
        parts["kernel"] -= parts["copy"]
        row = {"method": name, "threads": threads, "cache": cache, "bytes_a_site": size, "parts": parts,
               "sites_per_s": spread([run["sites_per_s"] for run in runs]),
               "resident_before": max(run["resident"] for run in runs)}  # fmt: skip
        found.append({**row, "bound": judge(row, floor)})
    for path in paths:
        os.unlink(path)
    return found, floor


def folders(folder: Path, options) -> list[dict]:
    """One large folder against many of a plate's size, with the same number of empty files: only names count here."""
    found, rng = [], np.random.default_rng(0)
    layouts, made = {"one folder": options.names, "folders of a plate": min(options.names, 3700)}, {}
    for label, size in layouts.items():
        paths = [folder / label.replace(" ", "_") / f"{k // size:03d}" / f"HUVEC_{k:06d}_w1.png"
                 for k in range(options.names)]  # fmt: skip
        for path in paths[::size]:
            path.parent.mkdir(parents=True)
        for path in paths:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        made[label] = [str(path) for path in paths]
    os.sync()

    def names(label: str) -> Callable[[], tuple[float, float]]:
        def one() -> tuple[float, float]:
            paths = made[label]
            chosen = [paths[k] for k in rng.permutation(len(paths))[:20_000]]
            if options.drop_caches:
                evict([], True)
            start = time.perf_counter()
            for path in chosen:
                os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            opened = time.perf_counter()
            parents = dict.fromkeys(map(os.path.dirname, paths))
            if options.drop_caches:
                evict([], True)
            listing = time.perf_counter()
            count = sum(1 for parent in parents for _ in os.scandir(parent))
            assert count == len(paths)
            return (opened - start) / len(chosen), (time.perf_counter() - listing) / count

        return one

    for (label, size), runs in zip(layouts.items(), in_turns([names(label) for label in made], options.rounds)):
        opens, lists = zip(*runs)
        found.append({"layout": label, "files_a_folder": size, "files": options.names,
                      "cache": "cold" if options.drop_caches else "warm",
                      "open_s": spread(opens), "list_s_a_name": spread(lists)})  # fmt: skip
    return found


def table(result: dict) -> str:
    """Everything for a terminal."""
    floor = result["floors"]
    summary = (
        f"floors: copy {floor['copy_bytes_per_s'] / 1e9:.1f} GB/s a core; open, fstat and close of six files "
        f"{6e6 * floor['open_fstat_close_s']:.0f} us; disk {floor['disk_bytes_per_s'] / 1e9:.2f} GB/s, "
        f"{floor['disk_request_s'] * 1e6:.0f} us a request of 64 KiB"
    )
    lines = [
        summary,
        "",
        f"{'':25}{'threads':>7} {'cache':>5} {'sites/s':>9} {'min to max':>17} {'MB/s':>7}   "
        + " ".join(f"{name:>12}" for name in PARTS.values()) + "  bound by   (parts in us a site)",
    ]  # fmt: skip
    for row in result["rows"]:
        rate = row["sites_per_s"]
        parts = " ".join(f"{row['parts'][name] * 1e6:12.0f}" for name in PARTS)
        lines.append(
            f"{row['method']:25}{row['threads']:7} {row['cache']:>5} {rate['median']:9.0f} {rate['min']:8.0f} "
            f"{rate['max']:8.0f} {rate['median'] * row['bytes_a_site'] / 1e6:7.0f}   {parts}  {row['bound']}"
        )
    for row in result["epochs"]:
        rate = row["sites_per_s"]
        lines.append(
            f"the loader, {row['loader']:14}{row['threads']:5} {row['cache']:>5} {rate['median']:9.0f} "
            f"{rate['min']:8.0f} {rate['max']:8.0f}"
        )
    for row in result["folders"]:
        lines.append(
            f"{row['layout']}, {row['files_a_folder']:,} names each, {row['cache']}: open and close "
            f"{row['open_s']['median'] * 1e6:.1f} us, listing {row['list_s_a_name']['median'] * 1e6:.2f} us a name"
        )
    return "\n".join(lines)


def draw(result: dict):
    """Warm and cold rates by threads, and what opening costs in a large folder."""
    figure = new_figure(13, 4.6)
    warm, cold, names = figure.subplots(1, 3, width_ratios=(3, 3, 1.6))
    counts = sorted({row["threads"] for row in result["rows"]})
    floor = result["floors"]
    for axes, cache in ((warm, "warm"), (cold, "cold")):
        for method, color in zip(METHODS, SERIES):
            rates = [row["sites_per_s"] for row in result["rows"] if (row["method"], row["cache"]) == (method, cache)]
            middle = np.array([rate["median"] for rate in rates])
            ends = np.abs(np.array([[rate[end] for rate in rates] for end in ("min", "max")]) - middle)
            axes.errorbar(range(len(counts)), middle, yerr=ends, fmt="o-", ms=4, lw=1.5, color=color, elinewidth=0.8,
                          capsize=2, label=method)  # fmt: skip
        axes.set_xticks(range(len(counts)), counts)
    size = np.mean([row["bytes_a_site"] for row in result["rows"]])
    cold.axhline(floor["disk_bytes_per_s"] / size, ls="--", color=THEIRS, zorder=0, label="the disk's bandwidth")
    dress(warm, "Reading six files a site: page cache warm", f"{size / 1000:.0f} kB a site; {result['machine']['cpu']}",
          "threads", "sites a second")  # fmt: skip
    dress(cold, "cold", f"median of the rounds, whiskers from slowest to fastest; {result['parameters']['disk']}",
          "threads")  # fmt: skip
    for axes in (warm, cold):
        axes.set_ylim(0)
    figure.legend(*cold.get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False, fontsize=8.5,
                  labelcolor=INK)  # fmt: skip
    opens = [row["open_s"]["median"] * 1e6 for row in result["folders"]]
    names.bar([f"{row['files_a_folder']:,}\na folder" for row in result["folders"]], opens, color=SERIES[0], width=0.5)
    for i, value in enumerate(opens):
        names.annotate(f"{value:.1f}", (i, value), (0, 3), textcoords="offset points", ha="center", color=INK)
    dress(names, "Opening a name", f"of {result['parameters']['names']:,}, {result['folders'][0]['cache']}",
          ylabel="microseconds")  # fmt: skip
    return figure


def disk_of(folder: Path) -> str:
    """Return device and type of the file system that a folder is on."""
    best = ("", "unknown", "unknown")
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        device, place, kind, *_ = line.split()
        if folder.resolve().is_relative_to(place) and len(place) >= len(best[0]):
            best = (place, device, kind)
    return f"{best[1]} ({best[2]})"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="a folder on the disk to be measured (default: that of /tmp)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "reading")
    parser.add_argument("--sites", type=int, default=400, help="0.4 MB each")
    parser.add_argument("--names", type=int, default=100_000, help="files of the large folder")
    parser.add_argument("--seconds", type=float, default=0.3, help="of a turn; a cold turn takes up to four times that")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--drop-caches", action="store_true", help="as root: empty every cache of the whole machine")
    parser.add_argument("--smallest", action="store_true", help="a few files and names, to see that it runs")
    options = parser.parse_args(arguments)
    options.threads, options.floor_bytes, options.pixels = thread_counts(), 256 << 20, 512
    if options.smallest:
        options.sites, options.names, options.seconds, options.rounds = 6, 500, 0.02, 1
        options.threads, options.floor_bytes, options.pixels = [2], 1 << 20, 64
    if options.drop_caches and not os.access(DROP, os.W_OK):
        parser.error(f"--drop-caches needs to write {DROP}: run as root, outside of a container")
    with tempfile.TemporaryDirectory(prefix="rxrx_reading_", dir=options.folder) as folder:
        parameters = {name: getattr(options, name) for name in ("sites", "names", "seconds", "rounds", "drop_caches")}
        parameters["disk"] = disk_of(Path(folder))
        result = header("reading", parameters)
        result["rows"], result["floors"] = rows(Path(folder), options)
        cores = min(machine.usable_cores(), max(options.threads))
        result["epochs"] = epochs(Path(folder), options.sites, options.pixels, cores, 3 * options.rounds)
        result["folders"] = folders(Path(folder), options)
    print(table(result))
    write(result, {"reading": draw(result)}, options.out)


if __name__ == "__main__":
    main()
