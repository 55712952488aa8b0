"""A picture of a batch: the composites of its images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rxrx_fast.viz.figure import GAP, DarkFigure, check_format, save
from rxrx_fast.viz.stains import BLACK, FULL, STAINS, composite

__all__ = ["draw_batch"]


def draw_batch(images: npt.ArrayLike, path: str | os.PathLike[str], *, titles: list[str] | None = None) -> Path:
    """Draw the composites of a batch as a montage, all with one display range.

    Parameters
    ----------
    images : (B, C, H, W) array or tensor on the CPU
        The first six channels are drawn.
    path : path
        Ends in .png, .jpg, .svg or .pdf.
    titles : list of str, length B, optional

    Returns
    -------
    Path
        The file written.
    """
    check_format(path)
    drawn = np.asarray(images, np.float32)[:, : len(STAINS)]
    low, high = np.percentile(drawn, (BLACK, FULL), axis=(0, 2, 3))
    columns = min(6, len(drawn))
    rows, side = -(-len(drawn) // columns), 2.3
    figure = DarkFigure(columns * (side + GAP) - GAP, rows * (side + GAP) - GAP)
    figure.headline("a batch, as the model gets it", f"{len(drawn)} sites, one display range")
    for i, image in enumerate(drawn):
        x, y = i % columns * (side + GAP), i // columns * (side + GAP)
        figure.image(x, y, side, composite(image, low, high), titles[i] if titles else "")
    return save(figure.figure, path)
