"""Every augmentation of a site in one pass on the CPU: sample, shade, add noise, normalise, erase, cast, store.

What happens to an output row happens while it is in the L1 cache; each output pixel is written to memory once. The
order is the one in which a microscope and a user act: the optics blur (:mod:`rxrx_kernels.augment.blur`, the one step with a
pass of its own), the stage places the sample (:mod:`rxrx_kernels.augment.warp`), the light shades it, the camera adds noise
(:mod:`rxrx_kernels.augment.photometric`), the value is normalised by a table or by ``(value - center) * scale``, pixels are erased.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from rxrx_kernels.augment import photometric as tone
from rxrx_kernels.augment import resample as warp_lines
from rxrx_kernels.augment import warp
from rxrx_kernels.augment.loop import KINDS, augment_lines

__all__ = ["Augmentation", "augment_site", "check", "plain"]


class Augmentation(NamedTuple):
    """What is done to one site for one view. C channels of output; arrays of length 0 leave an operation out.

    matrix : (6,) int64
        Geometry, from output to source, see :func:`rxrx_kernels.augment.warp.fixed`.
    sampling : (2,) int64
        Filter and border, constants of :mod:`rxrx_kernels.augment.warp`.
    order : (C,) int64
        Source channel of each output channel; -1 for a channel that is left out, which is 0 everywhere. The tables
        below are by output channel.
    fill : (C,) float32
        Grey value outside of the source, with the border CONSTANT.
    center, scale : (C,) float32
    table : (C, 257) float32, or (0, 257)
        Takes the place of center and scale, see :func:`rxrx_kernels.augment.photometric.make_toned`.
    box : (4,) int64
        Erased pixels, ``y0, y1, x0, x1`` of the output.
    erase : (2,) float32
        Their value after normalisation, and the standard deviation of normal noise about it.
    noise : (C, 2) float32, or (0, 2)
        Standard deviation of read noise in grey values, and variance of shot noise by grey value.
    key : (2,) uint32
        Of all noise.
    flat : (C, GH, GW) float32, or (0, 0, 0)
        Factors that undo uneven illumination, at nodes from the first pixel to the last or beyond.
    shift : int
        Nodes lie ``1 << shift`` pixels apart.
    bend : (2, G, G) int32, or (2, 0, 0)
        Displacement in x and y of an elastic deformation at control points, in 1/256 of a source pixel.
    blur : (T,) int32
        Weights of :func:`rxrx_kernels.augment.blur.gaussian`.
    steps : (C,) int64, or (0,)
        For the tables of 16-bit images, see :mod:`rxrx_kernels.augment.site16`.
    """

    matrix: np.ndarray
    sampling: np.ndarray
    order: np.ndarray
    fill: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    table: np.ndarray
    box: np.ndarray
    erase: np.ndarray
    noise: np.ndarray
    key: np.ndarray
    flat: np.ndarray
    shift: int
    bend: np.ndarray
    blur: np.ndarray
    steps: np.ndarray


def plain(channels: int, center=None, scale=None) -> Augmentation:
    """No augmentation: the identity, to be changed with ``_replace``."""
    f32 = np.float32
    return Augmentation(
        matrix=warp.fixed(np.eye(2, 3)),
        sampling=np.array([warp.ANTIALIAS, warp.CONSTANT]),
        order=np.arange(channels),
        fill=np.zeros(channels, f32),
        center=np.zeros(channels, f32) if center is None else np.asarray(center, f32),
        scale=np.ones(channels, f32) if scale is None else np.asarray(scale, f32),
        table=np.zeros((0, tone.TABLE), f32),
        box=np.zeros(4, np.int64),
        erase=np.zeros(2, f32),
        noise=np.zeros((0, 2), f32),
        key=np.zeros(2, np.uint32),
        flat=np.zeros((0, 0, 0), f32),
        shift=0,
        bend=np.zeros((2, 0, 0), np.int32),
        blur=np.zeros(0, np.int32),
        steps=np.zeros(0, np.int64),
    )


def augment_site(stack, out, augmentation: Augmentation, raw: bool = False, *, vectors: bool = warp_lines.VECTORS):
    """Augment one site. Releases the GIL.

    Parameters
    ----------
    stack : (C', H, W) uint8
        The decoded channels; contiguous, or a copy is made.
    out : (C, H', W') float32, float16, uint16 or uint8
        Written in full, with any strides; fastest where rows are contiguous, aligned to 16 pixels and a multiple of 16
        pixels long. uint16 stands for the bits of bfloat16. With uint8, values are rounded and not normalised.
    augmentation : Augmentation
    vectors : bool
        Use the instructions that this processor may have; the result is the same without.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit: compiled code does not check bounds, so this is checked first.
    """
    if stack.dtype == np.uint16:
        from rxrx_kernels.augment.site16 import augment_site16

        augment_site16(stack, out, augmentation, raw)
        return
    a = augmentation
    if stack.ndim != 3 or out.ndim != 3 or stack.dtype != np.uint8:
        raise ValueError(
            f"stack must be (C, H, W) uint8, got {stack.dtype}{stack.shape}, and out (C, H, W), got {out.shape}"
        )
    kind = _KINDS.get(out.dtype)
    if kind is None:
        raise ValueError(f"out must be float32, float16, uint16 (bits of bfloat16) or uint8, got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable")
    check(a, stack.shape, out.shape)
    height, width = out.shape[1:]
    stack = np.ascontiguousarray(stack)
    nodes = a.bend.shape[2]
    x_basis, y_basis = (warp.basis(n, nodes) if nodes else _NO_BASIS for n in (width, height))
    augment_lines(
        np.uint64(stack.ctypes.data),
        stack.shape[1:],
        np.uint64(out.ctypes.data),
        out.shape,
        out.strides,
        KINDS.index(kind),
        is_direct(out, warp_lines.SIZES[kind]),
        bool(vectors and warp_lines.VECTORS),
        writeable(a),
        *x_basis,
        *y_basis,
    )


# Pixels: positions in 1/256 of one, and sums of two, then fit 32 bits.
_FAR = 1 << 20
_LARGE = 65536.0
_NO_BASIS = np.zeros(0, np.int32), np.zeros((0, 4), np.int32)
_KINDS = {
    np.dtype(np.uint8): "uint8",
    np.dtype(np.float32): "float32",
    np.dtype(np.float16): "float16",
    np.dtype(np.uint16): "bfloat16",
}


def writeable(a: Augmentation) -> Augmentation:
    """The same without read-only arrays, as other libraries' may be: Numba would compile once more for them."""
    constant = {n: x.copy() for n, x in a._asdict().items() if isinstance(x, np.ndarray) and not x.flags.writeable}
    return a._replace(shift=int(a.shift), **constant)


def is_direct(out: np.ndarray, pixel: int) -> bool:
    """Whether rows can be written past the cache: whole groups of 16 pixels of so many bytes, contiguous, aligned."""
    group = warp_lines.GROUP * pixel
    return bool(
        out.shape[2] % warp_lines.GROUP == 0
        and out.strides[2] == pixel
        and min(out.strides) > 0
        and out.strides[0] % group == out.strides[1] % group == out.ctypes.data % group == 0
    )


def check(a: Augmentation, source: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Refuse what compiled code would read or write out of bounds for."""
    channels, height, width = shape
    sources, rows, columns = source
    expected = {
        "matrix": ((6,), np.int64),
        "sampling": ((2,), np.int64),
        "order": ((channels,), np.int64),
        "fill": ((channels,), np.float32),
        "center": ((channels,), np.float32),
        "scale": ((channels,), np.float32),
        "table": ((channels if len(a.table) else 0, tone.TABLE), np.float32),
        "box": ((4,), np.int64),
        "erase": ((2,), np.float32),
        "noise": ((channels if len(a.noise) else 0, 2), np.float32),
        "key": ((2,), np.uint32),
        "flat": ((channels if len(a.flat) else 0, *a.flat.shape[1:]), np.float32),
        "bend": ((2, *a.bend.shape[2:] * 2), np.int32),
        "blur": (a.blur.shape[:1], np.int32),
        "steps": ((channels if len(a.steps) else 0,), np.int64),
    }
    for name, (size, dtype) in expected.items():
        array = getattr(a, name)
        if array.shape != size or array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(f"{name} must be contiguous {np.dtype(dtype)}{size}, got {array.dtype}{array.shape}")
    if not (0 < rows < 1 << 16 and 0 < columns < 1 << 16 and max(height, width) < 1 << 16):
        raise ValueError(f"images have 1 to 65535 pixels on a side, got {source} and {shape}")
    if not (0 <= a.sampling[0] <= 2 and 0 <= a.sampling[1] <= 2):
        raise ValueError(f"sampling must be a filter and a border of rxrx_kernels.augment.warp, got {a.sampling}")
    if len(a.order) and not -1 <= a.order.min() <= a.order.max() < sources:
        raise ValueError(f"order must be -1 to {sources - 1}, got {a.order}")
    y0, y1, x0, x1 = a.box
    if not (0 <= y0 <= y1 <= height and 0 <= x0 <= x1 <= width):
        raise ValueError(f"box {a.box} does not lie within {height} x {width} pixels")
    if len(a.flat) and (min(a.flat.shape[1:]) < 2 or not 0 <= a.shift <= 16):
        raise ValueError("an illumination field needs at least 2 x 2 nodes, 1 to 65536 pixels apart")
    # Infinities would become NaNs on their way, and a NaN is no row of a table. Comparisons with NaNs are false.
    for name, least, largest in (("fill", -_LARGE, _LARGE), ("flat", 0, _LARGE), ("noise", 0, _LARGE)):
        array = getattr(a, name)
        if array.size and not least <= array.min() <= array.max() <= largest:
            raise ValueError(f"{name} must be {least} to {largest}, got {array.min()} to {array.max()}")
    if 0 < a.bend.shape[2] < 4:
        raise ValueError(f"an elastic deformation needs at least 4 x 4 control points, got {a.bend.shape[2]}")
    if a.bend.size and not -_FAR << 8 < a.bend.min() <= a.bend.max() < _FAR << 8:
        raise ValueError(f"an elastic deformation's displacements must be below {_FAR} pixels")
    m = [abs(int(value)) for value in a.matrix]
    if (
        max(m[0], m[1], m[3], m[4]) >= 1 << 48
        or max(m[0] * width + m[1] * height + m[2], m[3] * width + m[4] * height + m[5]) >= _FAR << warp.FRACTION
    ):
        raise ValueError(f"a geometry must lead to pixels nearer than {_FAR}, in steps of less than 65536")
    if a.blur.size and (a.blur.size % 2 == 0 or a.blur.min() < 0 or a.blur.sum() != 256):
        raise ValueError("blur must be an odd number of weights of 0 or more that sum to 256")
