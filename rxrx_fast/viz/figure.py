"""A dark figure that pictures are laid out on, and its file.

Uses matplotlib's Figure object, not pyplot with its global state, so it works without a display and inside any program.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rxrx_fast.errors import DataError, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BACKGROUND", "FAINT", "GAP", "INK", "DarkFigure", "check_format", "draw_title", "save"]

BACKGROUND, INK, FAINT = "#0d1117", "#e6edf3", "#8b98a5"
#: Inches between pictures.
GAP = 0.08
_FORMATS = (".png", ".jpg", ".jpeg", ".svg", ".pdf")


class DarkFigure:
    """A dark figure laid out in inches, from the upper left corner below the headline.

    Parameters
    ----------
    width, height : float
        Inches, without margins and headline.
    """

    _MARGIN, _HEAD = 0.12, 0.5

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure

        self._size = width + 2 * self._MARGIN, height + self._HEAD + self._MARGIN
        self.figure = Figure(figsize=self._size, facecolor=BACKGROUND)

    def headline(self, left: str, right: str) -> None:
        """Write the headline: large on the left, small on the right."""
        width, height = self._size
        y = 1 - 0.5 * self._HEAD / height
        self.figure.text(self._MARGIN / width, y, left, color=INK, fontsize=15, va="center")
        self.figure.text(1 - self._MARGIN / width, y, right, color=FAINT, fontsize=11, va="center", ha="right")

    def axes(self, x: float, y: float, across: float, down: float) -> Axes:
        """Add axes whose upper left corner is at ``x``, ``y``, ``across`` wide and ``down`` high."""
        width, height = self._size
        bottom = height - self._HEAD - y - down
        return self.figure.add_axes(((self._MARGIN + x) / width, bottom / height, across / width, down / height))

    def image(self, x: float, y: float, side: float, picture: np.ndarray, title: str) -> Axes:
        """Draw a square picture, (H, W, 3), with its title on it."""
        axes = self.axes(x, y, side, side)
        axes.imshow(picture, interpolation="lanczos")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        draw_title(axes, title)
        return axes


def draw_title(axes: Axes, title: str) -> None:
    """Write a title into the upper left corner of axes."""
    from matplotlib.patheffects import withStroke

    outline = [withStroke(linewidth=3, foreground=BACKGROUND, alpha=0.8)]
    # In points from the corner, the same on small and large pictures.
    style: dict[str, Any] = {"color": INK, "fontsize": 9.5, "va": "top", "path_effects": outline}
    axes.annotate(title, (0, 1), (6, -6), axes.transAxes, "offset points", **style)


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure in the format that the name ends in, and return the path.

    Raises
    ------
    UsageError
        The format is unknown.
    DataError
        The file can't be written.
    """
    path = Path(path)
    check_format(path)
    try:
        figure.savefig(path, dpi=160, facecolor=figure.get_facecolor())
    except OSError as error:
        raise DataError(f"{path}: the picture can't be written ({error.strerror or error})") from None
    return path


def check_format(path: str | os.PathLike[str]) -> None:
    """Raise UsageError unless a picture's name ends in a format that can be written."""
    if Path(path).suffix.lower() not in _FORMATS:
        raise UsageError(f"{path}: name a picture that ends in {', '.join(_FORMATS)}")
