"""A picture of plates: one perturbation before and after plate normalisation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rxrx_fast.catalog import Catalog
from rxrx_fast.stats import PlateStats, default_path
from rxrx_fast.stats.normalize import Normalize
from rxrx_fast.viz.choice import channel_count, one_per_plate, perturbation
from rxrx_fast.viz.figure import BACKGROUND, FAINT, GAP, INK, DarkFigure, check_format, draw_title, save
from rxrx_fast.viz.pixels import read_pixels
from rxrx_fast.viz.stains import BLACK, FULL, STAINS, composite

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_plates"]

# Sites of a plate that are counted for a picture, if no statistics are saved.
_MOST_SITES = 96


def draw_plates(
    catalog: Catalog, path: str | os.PathLike[str], *, stats: PlateStats | None = None, quiet: bool = False
) -> Path:
    """Draw one perturbation on several plates, before and after plate normalisation.

    Each row has one display range.

    Parameters
    ----------
    catalog : Catalog
    path : path
        Ends in .png, .jpg, .svg or .pdf.
    stats : PlateStats, optional
        By default those saved beside the data; where there are none, up to 96 sites of each plate drawn are counted.
    quiet : bool
        Show no progress bar.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    DataError
        No perturbation is on two plates, or the picture can't be written.
    UsageError
        There are more channels than stains.
    """
    check_format(path)
    total = channel_count(catalog)
    chosen = one_per_plate(catalog)
    if stats is None:
        stats = _statistics(catalog, chosen, quiet)
    groups, mean, std, _ = stats.normalizer(Normalize("plate"), chosen)
    raw = read_pixels(chosen, range(1, total + 1)).astype(np.float32)
    done = (raw - mean[groups][:, :total, None, None]) / std[groups][:, :total, None, None]

    count, side, curves = len(chosen), 2.3, 3.2
    label = 0.35
    figure = DarkFigure(label + count * (side + GAP) + curves, 2 * side + GAP)
    figure.headline(f"{perturbation(chosen.table.iloc[0])} on {count} plates", "one display range a row")
    codes, names = chosen.group_keys("plate")
    plates = [names[code] for code in codes]
    counts = stats.counts[[stats.plates.index(name) for name in plates]].sum(1)
    # The channel whose plates differ most, in its own standard deviations.
    mean, std = mean[groups], std[groups]
    widest = int(np.argmax(np.ptp(mean, axis=0) / std.mean(0)))
    for r, (images, title) in enumerate(((raw, "as stored"), (done, "plate-normalised"))):
        low, high = np.percentile(images, (BLACK, FULL), axis=(0, 2, 3))
        y = r * (side + GAP)
        for i in range(count):
            x = label + i * (side + GAP)
            axes = figure.image(x, y, side, composite(images[i], low, high), plates[i].replace("/", "  plate "))
            if i == 0:
                axes.set_ylabel(title, color=INK, fontsize=12)
        center = mean[:, widest] if r else np.zeros(count)
        scale = std[:, widest] if r else np.ones(count)
        axes = figure.axes(label + count * (side + GAP), y, curves, side)
        title = f"{STAINS[widest].short}: pixel values by plate"
        _distributions(axes, counts[:, widest], 1 << stats.bin_shift, center, scale, title)
    return save(figure.figure, path)


def _statistics(catalog: Catalog, chosen: Catalog, quiet: bool) -> PlateStats:
    """Load the statistics beside the data; if they lack a chosen site, count some sites of its plates."""
    path = default_path(catalog.root)
    if path.exists():
        saved = PlateStats.load(path)
        if set(chosen.table["site_id"]) <= set(saved.sites["site_id"]):
            return saved
    complete = catalog.available()
    plate, _ = complete.group_keys("plate")
    wanted = set(chosen.group_keys("plate")[0].tolist())
    parts = [np.flatnonzero(plate == code) for code in sorted(wanted)]
    some = [part[np.linspace(0, len(part) - 1, min(len(part), _MOST_SITES)).astype(int)] for part in parts]
    return PlateStats.fit(complete.take(np.concatenate(some)), quiet=quiet)


def _distributions(
    axes: Axes, counts: np.ndarray, width: int, center: np.ndarray, scale: np.ndarray, title: str
) -> None:
    """Draw each plate's density of (P, N) counts, in bins ``width`` wide, over (value - center) / scale."""
    # At most 256 points, as with 8 bits: finer curves are noise.
    used = np.flatnonzero(counts.any(0))[-1] + 1
    joined = max(1, -(-int(used) // 256))
    if counts.shape[1] > 256:
        counts = counts[:, : 256 * joined].reshape(len(counts), 256, joined).sum(-1)
        width = width * joined
    # Without the last value, where saturated pixels pile up.
    shares = counts[:, :-1] / counts.sum(1, keepdims=True)
    values = (np.arange(shares.shape[1]) * width - center[:, None]) / scale[:, None]
    density = shares * scale[:, None] / width
    for x, y in zip(values, density):
        axes.plot(x, y, linewidth=1.3, alpha=0.9)
    last = [x[np.searchsorted(share.cumsum(), 0.99 * share.sum())] for x, share in zip(values, shares)]
    axes.set_xlim(values.min(), max(last))
    # One plate with many pixels of one value, such as empty ground, must not flatten the others. Labels of ticks lie in
    # the strip below zero.
    top = min(1.15 * density.max(), 2.5 * np.median(density.max(1)))
    axes.set_ylim(-0.12 * top, top)
    axes.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
    axes.set_facecolor(BACKGROUND)
    axes.set_yticks([])
    axes.tick_params(colors=FAINT, labelsize=8, length=0, pad=-12)
    axes.spines[:].set_visible(False)
    draw_title(axes, title)
