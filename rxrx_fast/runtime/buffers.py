"""Host memory for batches that is used again once nothing refers to it."""

from __future__ import annotations

import threading
import weakref
from collections import deque

import numpy as np
import torch

__all__ = ["Buffers"]

# A page: vector stores then never straddle a cache line, and tensors start where torch's own would.
_ALIGNMENT = 4096


class Buffers:
    """Arrays over recycled memory. Filling fresh pages takes about three times as long as filling pages in use.

    An array lives as long as anything that was made of it without a copy: a tensor, a view, a slice of a view, whoever
    holds it. When the last one goes, its memory comes back here.

    Parameters
    ----------
    keep : int
        Free blocks of memory that are kept; more are given back to the system.
    pinned : bool
        Page-locked memory, which a GPU copies from without the CPU's help. Needs a GPU.
    """

    def __init__(self, keep: int, pinned: bool = False):
        self._free: deque = deque(maxlen=keep)
        self._pinned = pinned
        # Finalisers run in any thread, and between any two lines of this one: they only append, which is atomic.
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        """An array of this shape and dtype; its contents are undefined."""
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
    # NumPy asks the system for huge pages and torch does not: the first touch of a batch is then several times faster.
    block = np.empty(size + _ALIGNMENT, np.uint8)
    start = -block.ctypes.data % _ALIGNMENT
    return block[start : start + size]


class _Lease:
    """What every view of a lent array keeps alive, and the array alone does not: the end of it is the end of all views.

    An ndarray can't serve: a view of a view refers to the memory's owner and not to the view that it was made of.
    """

    def __init__(self, array: np.ndarray):
        self.__array_interface__ = array.__array_interface__
