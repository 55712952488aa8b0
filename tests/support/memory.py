"""Output memory with margins that show whether a kernel wrote beyond it."""

import numpy as np


def aligned(shape, dtype, margin=64):
    """Make a page-aligned array, and return it with the bytes before and behind it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    block = np.full(size + 4096 + 2 * margin, 0xAB, np.uint8)
    start = margin + -(block.ctypes.data + margin) % 4096
    around = block[start - margin : start], block[start + size : start + size + margin]
    return block[start : start + size].view(dtype).reshape(shape), around
