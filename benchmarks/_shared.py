"""Shared by the benchmark scripts: interleaved rounds, JSON results, and the style of charts."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from rxrx_fast.bench import machine, write_json
from rxrx_fast.viz.figure import save

# As in the race's chart (rxrx_fast/bench/report.py).
OURS, THEIRS, INK, FAINT = "#0b7a75", "#b8bec7", "#1d2733", "#5c6b7a"
#: Distinguishable colours, the most important first.
SERIES = (OURS, "#d9822b", "#3f6fb5", "#b0447a", "#7a8b2c", INK)


def spread(runs: Sequence[float]) -> dict:
    """Summarise the rounds of one value: median, min, max and all runs."""
    return {"median": statistics.median(runs), "min": min(runs), "max": max(runs), "runs": list(runs)}


def in_turns(measures: Sequence[Callable[[], object]], rounds: int) -> list[list]:
    """Call every function once a round; returns each one's results.

    Every round starts with another function, so that periodic load and the order of runs favour none.
    """
    results: list[list] = [[] for _ in measures]
    for number in range(rounds):
        for step in range(len(measures)):
            turn = (number + step) % len(measures)
            results[turn].append(measures[turn]())
    return results


def thread_counts() -> list[int]:
    """Numbers of threads to try: 1, 2, 4 and so on up to the cores, the cores, and twice as many."""
    cores = machine.usable_cores()
    return sorted({*(2**k for k in range(cores.bit_length())), cores, 2 * cores})


def header(name: str, parameters: dict) -> dict:
    """Return the header of a result."""
    return {
        "benchmark": name,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "machine": machine.describe(),
        # Shows other load on the machine.
        "load_average": list(os.getloadavg()),
        "parameters": parameters,
    }


def write(result: dict, figures: dict[str, object], out: str | os.PathLike) -> None:
    """Write ``<benchmark>.json`` and the figures, by name, into a folder, and say so."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    paths = [write_json(result, out / f"{result['benchmark']}.json")]
    paths += [save(figure, out / f"{name}.png") for name, figure in figures.items()]
    print("written:", ", ".join(map(str, paths)))


def new_figure(width: float, height: float):
    """Make an empty figure without pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def dress(axes, title: str, below: str = "", xlabel: str = "", ylabel: str = "") -> None:
    """Style axes as the race's chart: title and remark at the left, no box, faint scales."""
    axes.set_title(title, loc="left", color=INK, fontsize=12, pad=10 + 12 * len(below.splitlines()))
    axes.text(0, 1.02, below, transform=axes.transAxes, va="bottom", color=FAINT, fontsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(THEIRS)
    axes.tick_params(colors=FAINT, labelsize=9)
    axes.set_xlabel(xlabel, color=FAINT)
    axes.set_ylabel(ylabel, color=FAINT)
