"""Host memory for batches that is recycled once nothing refers to it."""

from __future__ import annotations

import threading
import weakref
from collections import deque

import numpy as np
import torch
from numpy.typing import DTypeLike

__all__ = ["Buffers"]

# A page: vector stores then never straddle a cache line, and tensors start where torch's own would.
_ALIGNMENT = 4096


class Buffers:
    """Arrays over recycled memory. Filling fresh pages takes about three times as long as filling pages in use.

    An array's memory is in use as long as anything made of it without a copy: a tensor, a view, a slice of a view. When
    the last of them goes, the memory comes back here.

    Parameters
    ----------
    keep : int
        Free blocks of memory to keep; more are given back to the system.
    pinned : bool
        Take page-locked memory, which a GPU copies from without the CPU's help. Needs a GPU.
    """

    def __init__(self, keep: int, pinned: bool = False):
        self._free: deque[np.ndarray] = deque(maxlen=keep)
        self._pinned = pinned
        # Finalisers run in any thread and between any two lines: they only append, which is atomic.
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Return an array of this shape and dtype; its contents are undefined."""
        wanted = int(np.prod(shape)) * np.dtype(dtype).itemsize
        block = None
        with self._lock:
            for _ in range(len(self._free)):
                candidate = self._free.popleft()
                if candidate.nbytes >= wanted:
                    block = candidate
                    break
        if block is None:
            block = _allocate(wanted, self._pinned)
        lease = _Lease(block[:wanted])
        weakref.finalize(lease, self._free.append, block).atexit = False
        return np.asarray(lease).view(dtype).reshape(shape)


def _allocate(size: int, pinned: bool) -> np.ndarray:
    if pinned:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
    # NumPy asks for huge pages and torch does not: they make the first touch of a batch several times faster.
    block = np.empty(size + _ALIGNMENT, np.uint8)
    start = -block.ctypes.data % _ALIGNMENT
    return block[start : start + size]


class _Lease:
    """The owner of an array's memory, which all views of the array keep alive; its end is the end of all views.

    An ndarray can't be the owner: NumPy lets a view of a view refer to the memory's first owner only.
    """

    def __init__(self, array: np.ndarray):
        self.__array_interface__ = array.__array_interface__
