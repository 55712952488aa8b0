"""Sites a second of rxrx_fast.DataLoader by threads, batch size, image size and dtype, and where its time goes.

    python benchmarks/throughput.py --data /tmp/rxrx_throughput              # generates its data there, once
    python benchmarks/throughput.py --data /tmp/rxrx_throughput --root data/rxrx1
    python benchmarks/throughput.py --smallest --out /tmp/out                # seconds; says that it runs, not how fast

The work is W1 of ``rxrx-fast bench``: six PNG files a site, standardised by plate with jitter, flipped and turned. One
setting is varied at a time. The values of a sweep take turns, round by round, after two warm-up passes over the data,
so that the files are in the page cache. A turn is a whole pass: nothing is in flight when it begins or ends.

**Shares.** One more turn of each value reads two sets of clocks between two batches: the loader's clocks of its
stages and the system's clocks of its threads. ``rxrx_fast/bench/shares.py`` says what the shares mean. ``other`` is
the rest of ``wall x threads``: Python between the stages; it is negative where threads sleep inside a stage. Two
shares are not part of the sum: ``no core`` (other load, or more threads than cores) and
``delivering`` (the delivering thread waited for a free place in the queue).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from _shared import (
    FAINT,
    INK,
    OURS,
    SERIES,
    THEIRS,
    dress,
    header,
    in_turns,
    new_figure,
    spread,
    thread_counts,
    write,
)

from rxrx_fast import Catalog, DataLoader, Dataset, PlateStats, Policy
from rxrx_fast.bench import machine
from rxrx_fast.bench.shares import measure, observed, thread_clock
from rxrx_fast.bench.work import DESCRIPTION, JITTER
from rxrx_fast.synth import writer as synthetic

#: Shares that are not part of wall x threads.
BESIDE = ("no core", "delivering")
POLICY = Policy(hflip=0.5, vflip=0.5, rot90=1.0, stats_jitter=JITTER)


class Shuffled:
    """A sampler of ``count`` numbers below ``size``: whole permutations, one after the other."""

    def __init__(self, size: int):
        self._size, self._rng, self.count = size, np.random.default_rng(0), 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        passes = -(-self.count // self._size)
        return iter(np.concatenate([self._rng.permutation(self._size) for _ in range(passes)])[: self.count].tolist())


class Data:
    """Sites and their statistics. Fitting also brings the files into the page cache."""

    def __init__(self, root, limit: int):
        complete = Catalog.read(root).available()
        self.catalog = complete.take(np.linspace(0, len(complete) - 1, min(limit, len(complete))).astype(np.int64))
        self.stats = PlateStats.fit(self.catalog, quiet=True)
        self.root = str(root)

    @classmethod
    def generated(cls, folder: Path, size: int, sites: int) -> Data:
        """Generate a data set of this image size once and reuse it."""
        wells = max(3, -(-sites // 8))
        root = folder / f"{size}px-{4 * wells * 2}sites"
        return cls(synthetic.generate(root, experiments=1, plates=4, wells=wells, sites=2, size=size), sites)

    def describe(self) -> dict:
        paths = [path for paths in self.catalog.files(range(min(256, len(self.catalog)))) for path in paths]
        files_a_site = len(self.catalog.files([0])[0])
        mean = sum(os.path.getsize(path) for path in paths) / len(paths)
        return {"root": self.root, "sites": len(self.catalog), "bytes_a_site": round(mean * files_a_site)}


class Lane:
    """One value of a sweep: a loader that lives through all of its turns."""

    def __init__(self, data: Data, *, threads: int, batch_size: int, dtype: str, device: str):
        dataset = Dataset(data.catalog, normalize="plate", stats=data.stats, augment=POLICY, dtype=dtype)
        self._sampler = Shuffled(len(dataset))
        self._loader = DataLoader(dataset, batch_size, sampler=self._sampler, num_threads=threads, device=device)
        self._threads, self._batch_size, self._device = threads, batch_size, device
        self._whole = max(2, -(-len(dataset) // batch_size))
        self.batches = self._whole

    def warm_up(self, seconds: float) -> None:
        """Compile, touch memory, and find out how many batches take so many seconds."""
        self.turn()
        self.batches = max(self._whole if seconds >= 1 else 2, round(self.turn() * seconds / self._batch_size))

    def turn(self) -> float:
        """Sites a second of one pass."""
        self._sampler.count = self.batches * self._batch_size
        sites, start = 0, time.perf_counter()
        for images, _, _ in self._loader:
            sites += len(images)
        if self._device == "cuda":
            import torch

            torch.cuda.synchronize()
        return sites / (time.perf_counter() - start)

    def shares(self) -> dict[str, float]:
        """Where the time of one pass goes."""
        self._sampler.count = observed(self.batches) * self._batch_size
        found = measure(self._loader)
        beside = {"no core": found["no_core"], "delivering": found["delivering"]}
        return {**found["shares"], "other": 1 - found["explained"], **beside}


def sweep(name: str, unit: str, values: list, options, usual: dict, lane: Callable[..., Lane]) -> dict:
    """Measure the values of one setting; the others stay as usual."""
    lanes = [lane(**{**usual, name: value}) for value in values]
    for each in lanes:
        each.warm_up(options.seconds)
    runs = in_turns([each.turn for each in lanes], options.rounds)
    fixed = {key: value for key, value in usual.items() if key != name}
    points = [
        {"value": value, "sites_per_s": spread(rates), "shares": each.shares()}
        for value, rates, each in zip(values, runs, lanes)
    ]
    return {"name": name, "unit": unit, "fixed": fixed, "values": points}


def table(found: dict) -> str:
    """Format a sweep for a terminal."""
    fixed = ", ".join(f"{name} {value}" for name, value in found["fixed"].items())
    columns = list(found["values"][0]["shares"])
    lines = [f"{found['unit']} ({fixed})", f"{'':>8}  {'sites/s':>8}  {'min to max':>17}  " + "  ".join(columns)]
    for point in found["values"]:
        rate = point["sites_per_s"]
        cells = "  ".join(f"{point['shares'][name]:{len(name)}.1%}" for name in columns)
        lines.append(f"{point['value']:>8}  {rate['median']:8.1f}  {rate['min']:8.1f} {rate['max']:8.1f}  {cells}")
    return "\n".join(lines) + "\n"


def draw(found: dict, where: str):
    """Draw a sweep: rates above, shares of the threads' time below."""
    from matplotlib.ticker import LogLocator, NullLocator

    points = found["values"]
    x = range(len(points))
    rates = np.array([point["sites_per_s"]["median"] for point in points])
    ends = np.array([[point["sites_per_s"][end] for point in points] for end in ("min", "max")])
    figure = new_figure(7.5, 6.4)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.5, 1))
    above.errorbar(x, rates, yerr=np.abs(ends - rates), fmt="o-" if len(points) > 1 else "o", color=OURS, ecolor=INK,
                   elinewidth=1, capsize=3, ms=6)  # fmt: skip
    top = ends.max()
    if found["name"] == "threads":
        ideal = rates[0] * np.minimum([point["value"] for point in points], machine.usable_cores())
        above.plot(x, ideal, "--", color=THEIRS, zorder=0)
        above.annotate("one thread x cores", (x[-1], ideal[-1]), (0, 6), textcoords="offset points", ha="right",
                       color=FAINT, fontsize=8.5)  # fmt: skip
        top = max(top, ideal.max())
    wide = rates.max() > 8 * rates.min()
    if wide:
        above.set_yscale("log")
        above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        above.yaxis.set_major_formatter("{x:,.0f}")
        above.yaxis.set_minor_locator(NullLocator())
    above.set_ylim(rates.min() / 2 if wide else 0, top * (2 if wide else 1.2))
    for i, rate in enumerate(rates):
        above.annotate(f"{rate:,.0f}", (i, rate), (9, 5), textcoords="offset points", color=INK)
    fixed = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found["fixed"].items())
    dress(above, f"rxrx_fast.DataLoader by {found['unit']}", f"{fixed}; {where}\nmedian of the rounds, whiskers from "
          "slowest to fastest", ylabel="sites a second")  # fmt: skip
    bottom = np.zeros(len(points))
    stages = [name for name in points[0]["shares"] if name not in ("waiting", "other", *BESIDE)]
    for name, color in zip((*stages, "waiting", "other"), (*SERIES[: len(stages)], THEIRS, FAINT)):
        part = np.array([max(point["shares"][name], 0) for point in points])
        below.bar(x, part, bottom=bottom, width=0.55, color=color, label=name)
        bottom += part
    below.set_xticks(x, [str(point["value"]) for point in points])
    below.set_xlim(-0.6, len(points) - 0.4)
    dress(below, "", xlabel=found["unit"], ylabel="share of wall x threads")
    below.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1, 0.5), labelcolor=INK)
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("/tmp/rxrx_throughput"), help="folder of the generated data")
    parser.add_argument("--root", type=Path, help="a data set for the sweeps of threads, batch size and dtype")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "throughput")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sites", type=int, default=128, help="sites of a data set, at most")
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long a turn takes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smallest", action="store_true", help="one tiny value a sweep, to see that it runs")
    options = parser.parse_args(arguments)
    if thread_clock() == (0.0, 0.0):
        parser.error("this system keeps no clocks of threads; Linux does")
    threads, batch_sizes, sizes = thread_counts(), [8, 16, 32, 64], [64, 128, 256, 512]
    dtypes = ["uint8", "float16", "float32"]
    usual = {"threads": machine.usable_cores(), "batch_size": 32, "image_size": 512, "dtype": "float32"}
    if options.smallest:
        options.sites, options.seconds, options.rounds = 8, 0.05, 1
        threads, batch_sizes, sizes, dtypes = [2], [4], [64], ["float16"]
        usual |= {"threads": 1, "batch_size": 2, "image_size": 64}

    data = {size: Data.generated(options.data, size, options.sites) for size in sizes}
    given = Data(options.root, options.sites) if options.root else data[usual["image_size"]]
    usual["image_size"] = Dataset(given.catalog, dtype="uint8").image_size[0]

    def lane(image_size: int, **setting) -> Lane:
        # The sizes are compared on data that differ in nothing else.
        source = data[image_size] if options.root is None or sweeping == "image_size" else given
        return Lane(source, **setting, device=options.device)

    parameters = {"work": DESCRIPTION, "device": options.device, "seconds": options.seconds, "rounds": options.rounds,
                  "usual": usual, "shares": "of wall x threads; delivering: of wall"}  # fmt: skip
    result = header("throughput", parameters)
    result["data"] = [each.describe() for each in {id(d): d for d in (given, *data.values())}.values()]
    result["sweeps"] = []
    where = result["machine"]["gpus"][0]["name"] if options.device == "cuda" else result["machine"]["cpu"]
    figures = {}
    for sweeping, unit, values in (
        ("threads", "threads", threads),
        ("batch_size", "sites a batch", batch_sizes),
        ("image_size", "pixels a side", sizes),
        ("dtype", "dtype", dtypes),
    ):
        found = sweep(sweeping, unit, values, options, usual, lane)
        result["sweeps"].append(found)
        figures[sweeping] = draw(found, where)
        print(table(found), flush=True)
    off = max((point["shares"]["other"] for found in result["sweeps"] for point in found["values"]), key=abs)
    print(f"the stages and the waiting leave at most {off:.1%} of wall x threads unexplained")
    write(result, figures, options.out)


if __name__ == "__main__":
    main()
