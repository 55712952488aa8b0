"""A race's result as a table, as JSON and as a chart."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rxrx_fast.bench import shares
from rxrx_fast.bench.peers import OTHER_WORK
from rxrx_fast.errors import DataError

__all__ = ["draw", "table", "write_json"]

_OURS, _THEIRS, _INK, _FAINT = "#0b7a75", "#b8bec7", "#1d2733", "#5c6b7a"


def table(result: dict) -> str:
    """The race for a terminal: a line a contestant, with how many times as fast the first one, rxrx_fast, is."""
    work, data = result["work"], result["data"]
    rows, ours = result["results"], result["results"][0]["sites_per_s"]
    width = max(len(row["name"]) for row in [*rows, *result["not_run"]])
    height, across = data["image_size"]
    lines = [
        f"{data['sites']:,} sites of {data['channels']} x {height} x {across} pixels, "
        f"{data['bytes_a_site'] / 1000:,.0f} kB each; batches of {work['batch_size']}, "
        f"{work['threads']} threads or workers, {work['dtype']} on the {work['device'].upper()}",
        f"work checked: every contestant is {work['checked']}",
        "",
        f"{'':{width}}  {'sites/s':>8}  {'min to max':>15}  {'rxrx_fast is':>12}",
    ]
    for row in rows:
        spread = f"{row['min']:.1f} to {row['max']:.1f}"
        ratio = "" if row is rows[0] else f"{ours / row['sites_per_s']:.2f}x"
        mark = "  other work" if row["name"] in OTHER_WORK else ""
        lines.append(f"{row['name']:{width}}  {row['sites_per_s']:8.1f}  {spread:>15}  {ratio:>12}{mark}".rstrip())
    lines += [f"{row['name']:{width}}  not run: {row['reason']}" for row in result["not_run"]]
    others = [row["name"] for row in rows if row["name"] in OTHER_WORK]
    lines += ["", *(f"other work, {name}: {OTHER_WORK[name]}" for name in others)] if others else []
    lines += ["", f"rxrx_fast's own report: {result['report']['sentence']}"]
    if result["report"]["threads_time"]:
        lines.append(shares.sentence(result["report"]["threads_time"]))
    return "\n".join(lines)


def write_json(result: dict, path: str | os.PathLike) -> Path:
    """Write the result; returns the path."""
    path = Path(path)
    try:
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: the results can't be written ({error.strerror or error})") from None
    return path


def draw(result: dict, path: str | os.PathLike) -> Path:
    """Draw the medians as horizontal bars, with the range of the rounds; returns the path."""
    from matplotlib.figure import Figure

    from rxrx_fast.viz.figure import save

    rows = result["results"]
    ours = rows[0]["sites_per_s"]
    names = [row["name"].replace(" in torch", "\nin torch").replace(" (", "\n(") for row in rows]
    rates = [row["sites_per_s"] for row in rows]
    below = [row["sites_per_s"] - row["min"] for row in rows]
    above = [row["max"] - row["sites_per_s"] for row in rows]
    colors = [_OURS if row["name"].startswith("rxrx_fast") else _THEIRS for row in rows]
    figure = Figure(figsize=(9, 1.5 + 0.62 * len(rows)), layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.barh(names, rates, color=colors, height=0.66, xerr=(below, above),
              error_kw={"ecolor": _INK, "elinewidth": 1, "capsize": 3})  # fmt: skip
    for i, row in enumerate(rows):
        label = f"{row['sites_per_s']:.0f}"
        if i:
            label += f"   (rxrx_fast is {ours / row['sites_per_s']:.1f}x as fast)"
        axes.text(row["max"] + 0.015 * max(rates), i, label, va="center", color=_INK, fontsize=10)
    axes.invert_yaxis()
    # Room for the label of the longest bar that has a long one.
    axes.set_xlim(0, max(row["max"] * (1.1 if row is rows[0] else 1.45) for row in rows))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0, labelsize=10, labelcolor=_INK)
    axes.tick_params(axis="x", colors=_FAINT)
    axes.set_xlabel("sites a second: median of the rounds, whiskers from slowest to fastest", color=_FAINT)
    work, data, machine = result["work"], result["data"], result["machine"]
    height, across = data["image_size"]
    axes.set_title("From six PNG files to a normalised, augmented batch", loc="left", color=_INK, fontsize=13, pad=24)
    where = machine["gpus"][0]["name"] if work["device"] == "cuda" and machine["gpus"] else machine["cpu"]
    below = (
        f"{data['channels']} x {height} x {across} pixels a site, {work['dtype']} batches of {work['batch_size']}, "
        f"{work['threads']} threads or workers, {where}"
    )
    axes.text(0, 1.02, below, transform=axes.transAxes, va="bottom", color=_FAINT, fontsize=9)
    return save(figure, path)
