"""A table of statistics as text."""

from __future__ import annotations

from rxrx_fast.stats import PlateStats
from rxrx_fast.viz.stains import STAINS

__all__ = ["statistics_table"]


def statistics_table(stats: PlateStats, level: str) -> str:
    """Write means and standard deviations by channel as lines of text.

    Parameters
    ----------
    stats : PlateStats
    level : str
        One line for each group of this level; see :meth:`rxrx_fast.PlateStats.frame`.
    """
    frame = stats.frame(level)
    names = list(dict.fromkeys(frame[level]))
    known = [stain.short for stain in STAINS] if stats.channels <= len(STAINS) else [""] * stats.channels
    titles = [f"{c + 1} {known[c]}" for c in range(stats.channels)]
    width = max(map(len, [level, *names]))
    lines = [f"{level:{width}}  {'sites':>7}" + "".join(f"{title:>15}" for title in titles) + "   (mean ± std)"]
    for name, part in frame.groupby(level, sort=False):
        cells = (f"{mean:.1f} ± {std:.1f}" for mean, std in zip(part["mean"], part["std"]))
        lines.append(f"{name:{width}}  {part['sites'].iat[0]:7,}" + "".join(f"{cell:>15}" for cell in cells))
    return "\n".join(lines)
