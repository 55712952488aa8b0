"""Recycled memory: used again when free, and never while anything refers to it."""

import gc
import threading

import numpy as np
import torch

from rxrx_fast.runtime.buffers import Buffers


def test_memory_comes_back_when_the_last_view_goes():
    """Any view keeps the memory: a slice, a transposition, a tensor, a slice of a tensor."""
    buffers = Buffers(keep=2)
    first = buffers.take((4, 8), np.float32)
    address = first.ctypes.data
    views = [
        lambda a: a[1:, ::2],
        lambda a: a.transpose(1, 0)[2],
        lambda a: torch.from_numpy(a),
        lambda a: torch.from_numpy(a).permute(1, 0)[3],
        lambda a: torch.from_numpy(a)[1].numpy()[2:],
    ]
    for view in views:
        kept = view(first)
        first = None
        gc.collect()
        other = buffers.take((4, 8), np.float32)
        assert other.ctypes.data != address
        del kept, other
        gc.collect()
        taken = [buffers.take((4, 8), np.float32) for _ in range(2)]
        assert address in [a.ctypes.data for a in taken]
        first = next(a for a in taken if a.ctypes.data == address)
        del taken


def test_shapes_and_types_share_memory():
    """A smaller array of another dtype fits into a block that is free; a larger one gets a new block."""
    buffers = Buffers(keep=1)
    address = buffers.take((100,), np.float32).ctypes.data
    gc.collect()
    small = buffers.take((10, 10), np.uint8)
    assert small.ctypes.data == address
    assert small.shape == (10, 10)
    assert small.dtype == np.uint8
    del small
    gc.collect()
    large = buffers.take((1000,), np.float32)
    large[:] = 1
    assert large.shape == (1000,)


def test_threads_never_share_an_array():
    """Eight threads that take, write and check at once find their own numbers."""
    buffers = Buffers(keep=4)
    wrong = []

    def work(number):
        for _ in range(300):
            array = buffers.take((64,), np.int64)
            array[:] = number
            total = int(array.sum())
            if total != 64 * number:
                wrong.append((number, total))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
