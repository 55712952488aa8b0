"""Inflate two zlib streams at once (RFC 1950, RFC 1951).

:mod:`.symbols` says why two streams are faster than one after the other.

Bounds are kept by margins, not by a test for every byte. A step reads less than ``READ_BYTES`` bytes and writes less
than :data:`ROOM`, and begins only where its stream has that much left. When fewer bytes are left of a stream, they move
to a buffer with zeros behind them. The target must have :data:`ROOM` bytes behind its end.

A refused stream comes without a reason: callers give it to libdeflate, whose verdict counts. libdeflate also takes some
codes that are refused here and that no writer makes, such as incomplete ones.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from rxrx_kernels.deflate import huffman
from rxrx_kernels.deflate.blocks import move_to_tail, next_block
from rxrx_kernels.deflate.state import (
    BLOCK_ENDED,
    BOUND,
    BUSY,
    DONE,
    END,
    EVENT,
    FAILED,
    FIELDS,
    FREE,
    GOING,
    LAST,
    MOVED,
    NEXT,
    OUT,
    PHASE,
    READ_BYTES,
    ROOM,
    START,
    STOP,
    workspace,
)
from rxrx_kernels.deflate.symbols import run
from rxrx_kernels.raw_memory import load8

__all__ = ["BUSY", "DONE", "FAILED", "FREE", "PHASE", "ROOM", "begin", "work", "workspace"]

_u = np.uint64


@njit(nogil=True, cache=True)
def begin(state: np.ndarray, source: int, size: int, target: int, expected: int) -> None:
    """Begin to inflate a zlib stream.

    Parameters
    ----------
    state : (16,) uint64
        A row of :func:`workspace`'s states. ``state[PHASE]`` becomes ``BUSY``, or ``FAILED`` if the zlib header is not
        valid.
    source, size : uint64
        Address and bytes of the stream. Bytes behind its end are tolerated.
    target, expected : uint64
        Address to write to, and the bytes that the stream must inflate to. :data:`ROOM` bytes behind them may be
        written.
    """
    for field in range(FIELDS):
        state[field] = _u(0)
    state[PHASE] = FAILED
    if size < _u(6):
        return
    # Deflate with any window, without a dictionary (RFC 1950, section 2.2).
    method, flags = np.int64(load8(source)), np.int64(load8(source + _u(1)))
    if method & 15 != 8 or method >> 4 > 7 or (256 * method + flags) % 31 or flags & 32:
        return
    # The checksum is the last four bytes, or comes before them where bytes follow the stream.
    state[NEXT], state[END] = source + _u(2), source + size - _u(4)
    state[LAST] = state[END] - READ_BYTES
    state[OUT] = state[START] = target
    state[STOP] = target + expected
    state[PHASE], state[EVENT] = BUSY, _u(BLOCK_ENDED)


@njit(nogil=True, cache=True)
def _resume(state: np.ndarray, memory: int, tail: np.ndarray, adler32: int) -> None:
    """Handle a stream's event after a loop over symbols: go on with the next block or the last bytes, or end."""
    event = np.int64(state[EVENT])
    state[EVENT] = _u(GOING)
    if event == BOUND and state[OUT] <= state[STOP] and state[MOVED] == _u(0):
        move_to_tail(state, tail)
        return
    if event == BLOCK_ENDED:
        event = next_block(state, memory, tail, adler32)
        if event == GOING:
            return
    state[PHASE] = DONE if event == BLOCK_ENDED else FAILED


@njit(nogil=True, cache=True)
def work(states: np.ndarray, memories: np.ndarray, tails: np.ndarray, adler32: int) -> None:
    """Inflate until one of the busy streams is done or has failed. Returns at once if none is busy.

    Parameters
    ----------
    states, memories, tails : numpy.ndarray
        What :func:`workspace` returns.
    adler32 : int
        Address of libdeflate's function.
    """
    first = _u(memories.ctypes.data)
    while True:
        ended, busy = False, False
        for k in range(2):
            if states[k, PHASE] == BUSY and states[k, EVENT] != _u(GOING):
                _resume(states[k], first + _u(k * huffman.TABLE_BYTES), tails[k], adler32)
                ended |= states[k, PHASE] != BUSY
            busy |= states[k, PHASE] == BUSY
        if ended or not busy:
            return
        run(states, first, first + _u(huffman.TABLE_BYTES))
