"""Every augmentation of a site in one pass on the CPU: sample, correct, add noise, normalise, erase, cast, store.

An output row is finished while it is in the L1 cache, and each output pixel is written to memory once. Operations
follow the order in which a microscope and a user act: the optics blur (:mod:`rxrx_kernels.augment.blur`, the one step
with a pass of its own), the stage places the sample (:mod:`rxrx_kernels.augment.warp`), the light shades it, the camera
adds noise (:mod:`rxrx_kernels.augment.photometric`), a lookup table or ``(value - center) * scale`` normalises the
value, and pixels are erased.
"""

from __future__ import annotations

import numpy as np
from rxrx_kernels.augment import warp
from rxrx_kernels.augment.loop import augment_rows
from rxrx_kernels.augment.parameters import Augmentation, check, plain
from rxrx_kernels.augment.resample import GROUP, VECTORS
from rxrx_kernels.augment.store import KINDS

__all__ = ["Augmentation", "augment_site", "plain"]

_NO_BASIS = np.zeros(0, np.int32), np.zeros((0, 4), np.int32)
_NORMALISED = {
    np.dtype(np.float32): KINDS["float32"],
    np.dtype(np.float16): KINDS["float16"],
    np.dtype(np.uint16): KINDS["bfloat16"],
}


def augment_site(
    stack: np.ndarray, out: np.ndarray, augmentation: Augmentation, raw: bool = False, *, vectors: bool = VECTORS
) -> None:
    """Augment one site. Releases the GIL.

    Parameters
    ----------
    stack : (C', H, W) uint8 or uint16
        The decoded channels; contiguous, or a copy is made.
    out : (C, H', W') float32, float16, uint16, or the dtype of ``stack``
        Written in full, with any strides; fastest where rows are contiguous, aligned to 16 pixels and a multiple of 16
        pixels long. uint16 stands for the bits of bfloat16, unless ``raw`` is given. uint8 is always raw.
    augmentation : Augmentation
    raw : bool
        ``out`` has the dtype of ``stack`` and gets grey values, rounded and not normalised.
    vectors : bool
        Use the instructions that this processor may have; the result is the same without.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit: compiled code does not check bounds, so this is checked first.
    """
    a = augmentation
    if stack.ndim != 3 or out.ndim != 3 or stack.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"stack must be (C, H, W) uint8 or uint16, got {stack.dtype}{stack.shape}, "
            f"and out (C, H, W), got {out.shape}"
        )
    if raw or out.dtype == np.uint8:
        kind = KINDS["raw"] if out.dtype == stack.dtype else None
    else:
        kind = _NORMALISED.get(out.dtype)
    if kind is None:
        raise ValueError(
            f"out must be float32, float16, uint16 (bits of bfloat16) or, for raw pixels, {stack.dtype}, "
            f"got {out.dtype}"
        )
    if not out.flags.writeable:
        raise ValueError("out must be writeable")
    check(a, stack.shape, out.shape, 8 * stack.itemsize)
    height, width = out.shape[1:]
    stack = np.ascontiguousarray(stack)
    nodes = a.displacement.shape[2]
    x_basis, y_basis = (warp.basis(n, nodes) if nodes else _NO_BASIS for n in (width, height))
    augment_rows(
        stack.dtype.type(0),
        np.uint64(stack.ctypes.data),
        stack.shape[1:],
        np.uint64(out.ctypes.data),
        out.shape,
        out.strides,
        out.itemsize,
        kind,
        _is_direct(out),
        bool(vectors and VECTORS),
        _writeable(a),
        *x_basis,
        *y_basis,
    )


def _writeable(a: Augmentation) -> Augmentation:
    """Copy read-only arrays, as other libraries' may be: Numba would compile once more for them."""
    constant = {n: x.copy() for n, x in a._asdict().items() if isinstance(x, np.ndarray) and not x.flags.writeable}
    return a._replace(flat_log2=int(a.flat_log2), **constant)


def _is_direct(out: np.ndarray) -> bool:
    """Whether rows can be stored past the cache: whole groups of 16 pixels, contiguous, aligned."""
    group = GROUP * out.itemsize
    return bool(
        out.shape[2] % GROUP == 0
        and out.strides[2] == out.itemsize
        and min(out.strides) > 0
        and out.strides[0] % group == out.strides[1] % group == out.ctypes.data % group == 0
    )
