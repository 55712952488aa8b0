"""A picture of one site: its channels and their composite."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from rxrx_fast.catalog import Catalog
from rxrx_fast.errors import DataError
from rxrx_fast.viz.choice import channel_count, find_site, perturbation
from rxrx_fast.viz.figure import FAINT, GAP, DarkFigure, check_format, save
from rxrx_fast.viz.pixels import read_pixels
from rxrx_fast.viz.stains import BLACK, FULL, STAINS, composite, display_color

__all__ = ["draw_site"]


def draw_site(catalog: Catalog, path: str | os.PathLike[str], *, site_id: str | None = None) -> Path:
    """Draw the channels of a site and their composite.

    Parameters
    ----------
    catalog : Catalog
    path : path
        Ends in .png, .jpg, .svg or .pdf.
    site_id : str, optional
        By default the first complete site. Channels that a site lacks are drawn empty.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    UsageError
        There is no such site (the message gives the closest name), or more channels than stains.
    DataError
        The site has no image, or the picture can't be written.
    """
    check_format(path)
    position = find_site(catalog, site_id)
    row = catalog.table.iloc[position]
    total = channel_count(catalog)
    here = [c for c in range(1, total + 1) if row["present"] >> (c - 1) & 1]
    if not here:
        raise DataError(f"site {row['site_id']} has no image under {catalog.root}")
    (stack,) = read_pixels(catalog.take([position]), here)
    planes = np.zeros((total, *stack.shape[1:]), stack.dtype)
    planes[[c - 1 for c in here]] = stack
    low, high = np.percentile(planes, (BLACK, FULL), axis=(1, 2))

    across = -(-total // 2)
    side = 2.6
    figure = DarkFigure((across + 2) * (side + GAP) - GAP, 2 * side + GAP)
    where = f"{row['experiment']}, plate {row['plate']}, well {row['well']}, site {row['site']}"
    figure.headline(f"{row['cell_type']}   {perturbation(row)}", where)
    figure.image(0, 0, 2 * side + GAP, composite(planes, low, high), "composite")
    for c in range(total):
        x, y = (2 + c % across) * (side + GAP), c // across * (side + GAP)
        scaled = np.clip((planes[c] - low[c]) / max(high[c] - low[c], 1), 0, 1)
        picture = scaled[..., None] * display_color(c)
        axes = figure.image(x, y, side, picture, f"{c + 1}  {STAINS[c].title}")
        if c + 1 not in here:
            axes.text(0.5, 0.5, "no file", transform=axes.transAxes, color=FAINT, ha="center", va="center")
    return save(figure.figure, path)
