"""Maps from the pixels of an output to those of a stored image, composed of everything that moves pixels.

From the stored image to the output: centre crop, turns and flips, affine change about the centre, crop, resizing. Maps
are composed in float64 in continuous coordinates, where pixel i covers [i, i + 1), and then expressed between pixel
centres, as :mod:`rxrx_kernels.augment.warp` wants them.
"""

from __future__ import annotations

import numpy as np

__all__ = ["box", "frame", "matrices"]


def frame(shape: tuple[int, int], center_crop: int) -> tuple[int, int]:
    """(height, width) of the image after the centre crop; a crop of 0 pixels leaves it whole."""
    return tuple(min(side, center_crop) for side in shape) if center_crop else tuple(shape)


def _scaled(x, y):
    """(B, 3, 3) matrices that scale by (B,) factors."""
    matrix = np.zeros((len(x), 3, 3))
    matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, 2, 2] = x, y, 1
    return matrix


def _moved(x, y):
    """(B, 3, 3) matrices that add (B,) offsets."""
    matrix = np.tile(np.eye(3), (max(np.size(x), np.size(y)), 1, 1))
    matrix[:, 0, 2], matrix[:, 1, 2] = x, y
    return matrix


def _windows(crop, size):
    """First row and column and the sides of the crop windows in a frame, each (B,) whole pixels.

    ``crop`` is (B, 3): share of the side, and place between the first and the last possible row and column, 0 to 1.
    """
    height, width = size
    rows, columns = (np.maximum(np.floor(crop[:, 0] * side), 1) for side in size)
    # randint over all places, both ends included.
    top = np.minimum(np.floor(crop[:, 1] * (height - rows + 1)), height - rows)
    left = np.minimum(np.floor(crop[:, 2] * (width - columns + 1)), width - columns)
    return top, left, rows, columns


def matrices(codes, affine, crop, center_crop, shape, out_shape) -> np.ndarray:
    """Compose the maps of a batch.

    Parameters
    ----------
    codes : (B,) uint8
        Turns and flips, see :mod:`rxrx_kernels.orient.site`. Those that exchange rows and columns need a square frame.
    affine : (B, 5) float64, or None
        Angle in radians, anticlockwise as seen; zoom in x and in y; shift in x and in y as a share of the side, which
        is rounded to whole pixels.
    crop : (B, 3) float64, or None
        Side of the window as a share of the frame's, and its place from top to bottom and from left to right, 0 to 1.
    center_crop : int
        Pixels on a side that are kept first; 0 for all.
    shape, out_shape : (height, width)
        Of the stored image and of the output.

    Returns
    -------
    (B, 2, 3) float64
        Source column and row of an output pixel (x, y, 1).
    """
    count = len(codes)
    size = height, width = frame(shape, center_crop)
    out_height, out_width = out_shape
    if crop is None:
        top = left = np.zeros(count)
        rows, columns = np.full(count, float(height)), np.full(count, float(width))
    else:
        top, left, rows, columns = _windows(crop, size)
    half = np.full(count, 0.5)
    # From output centres to the frame.
    matrix = _moved(left, top) @ _scaled(columns / out_width, rows / out_height) @ _moved(half, half)
    middle = np.full(count, width / 2), np.full(count, height / 2)
    centred = _moved(-middle[0], -middle[1])
    if affine is not None:
        angle, zoom_x, zoom_y, shift_x, shift_y = affine.T
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.tile(np.eye(3), (count, 1, 1))
        # The inverse of what happens to the picture; rows count downwards.
        turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0], turn[:, 1, 1] = cos, -sin, sin, cos
        matrix = _moved(-np.rint(shift_x * width), -np.rint(shift_y * height)) @ matrix
        matrix = _scaled(1 / zoom_x, 1 / zoom_y) @ turn @ centred @ matrix
    else:
        matrix = centred @ matrix
    turned = (codes & 4) > 0
    mirror_x, mirror_y = np.where(codes & 1, -1.0, 1.0), np.where(codes & 2, -1.0, 1.0)
    flip = np.zeros((count, 3, 3))
    flip[:, 2, 2] = 1
    flip[:, 0, 0], flip[:, 0, 1] = np.where(turned, 0, mirror_x), np.where(turned, mirror_x, 0)
    flip[:, 1, 0], flip[:, 1, 1] = np.where(turned, mirror_y, 0), np.where(turned, 0, mirror_y)
    # Back from the frame to the stored image, and to its pixels' centres.
    start_x, start_y = (shape[1] - width) // 2, (shape[0] - height) // 2
    matrix = _moved(middle[0] + start_x - 0.5, middle[1] + start_y - 0.5) @ flip @ matrix
    return matrix[:, :2]


def box(erased, crop, size, out_shape) -> np.ndarray:
    """Erased rectangles in pixels of the output.

    Parameters
    ----------
    erased : (B, 4) float64
        Height and width as shares of the frame, 0 where nothing is erased, and place from top and from left, 0 to 1.
    crop : (B, 3) float64, or None
        The crop that follows, see :func:`matrices`: it enlarges what is left of a rectangle.
    size, out_shape : (height, width)
        Of the frame and of the output.

    Returns
    -------
    (B, 4) int64
        ``y0, y1, x0, x1``.
    """
    count = len(erased)
    tall, wide = np.rint(erased[:, 0] * size[0]), np.rint(erased[:, 1] * size[1])
    y0 = np.minimum(np.floor(erased[:, 2] * (size[0] - tall + 1)), size[0] - tall)
    x0 = np.minimum(np.floor(erased[:, 3] * (size[1] - wide + 1)), size[1] - wide)
    if crop is None:
        top = left = np.zeros(count)
        rows, columns = np.full(count, float(size[0])), np.full(count, float(size[1]))
    else:
        top, left, rows, columns = _windows(crop, size)
    edges = np.stack(
        [
            (y0 - top) * (out_shape[0] / rows),
            (y0 + tall - top) * (out_shape[0] / rows),
            (x0 - left) * (out_shape[1] / columns),
            (x0 + wide - left) * (out_shape[1] / columns),
        ],
        axis=1,
    )
    return np.clip(np.rint(edges), 0, np.array(out_shape)[[0, 0, 1, 1]]).astype(np.int64)
