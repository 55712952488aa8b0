"""What both depths share: the check of a stack of channels, and its form for compiled code."""

from __future__ import annotations

import numpy as np

__all__ = ["checked"]


def checked(stack: np.ndarray, *dtypes: type) -> np.ndarray:
    """Check a stack's shape and dtype, and return it as a read-only view.

    DALI's arrays are read-only, and Numba compiles a function of its own for either kind. So all are read-only here.

    Parameters
    ----------
    stack : (C, H, W)
        Any strides.
    *dtypes : type
        One of these is expected.

    Returns
    -------
    (C, H, W) numpy.ndarray
        A read-only view.

    Raises
    ------
    ValueError
        If the stack is of another dtype or number of dimensions.
    """
    if stack.ndim != 3 or stack.dtype not in dtypes:
        expected = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        raise ValueError(f"stack must be (C, H, W) {expected}, got {stack.dtype}{stack.shape}")
    stack = stack.view()
    stack.flags.writeable = False
    return stack
