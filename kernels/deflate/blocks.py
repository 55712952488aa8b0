"""The blocks of a deflate stream: headers, stored blocks, and the stream's end (RFC 1951, section 3.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from rxrx_kernels.deflate import huffman, libdeflate
from rxrx_kernels.deflate.state import (
    BIT_COUNT,
    BITS,
    BLOCK_ENDED,
    END,
    FINAL,
    FIXED,
    GOING,
    HEADER_BYTES,
    INVALID,
    LAST,
    LITERALS_PREVAIL,
    MOVED,
    NEXT,
    OUT,
    OVERRUN,
    SIX_BITS,
    START,
    STOP,
    TAIL_BYTES,
    refilled,
)
from rxrx_kernels.raw_memory import load8, load32, load64, store8, store64

__all__ = ["move_to_tail", "next_block"]

# Any: mypy would tell NumPy's 64-bit integers and plain int apart, which are one in compiled code.
_u: Any = np.uint64

_DISTANCE_TABLE, _LENGTHS = _u(huffman.DISTANCE_TABLE), _u(huffman.LENGTHS)
_PRECODE_MASK = _u((1 << huffman.PRECODE_BITS) - 1)
_SPECIAL = huffman.SPECIAL
#: Literals prevail if they are so many of 32768 symbols: a processor then predicts that the next symbol is one.
_PREVAILING_SHARE = 28000
#: The order of the code lengths' code lengths (section 3.2.7).
_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15], np.int64)


@njit(nogil=True, cache=True)
def move_to_tail(state: np.ndarray, tail: np.ndarray) -> None:
    """Move the last bytes of a stream to a buffer in which zeros follow, and go on from there.

    Parameters
    ----------
    state : (16,) uint64
    tail : (TAIL_BYTES,) uint8
    """
    # Bytes that are in the bit buffer come along: a stored block goes back to them.
    waiting = (state[BIT_COUNT] & SIX_BITS) >> _u(3)
    taken = state[NEXT] - waiting
    buffer, left = _u(tail.ctypes.data), state[END] - taken
    for k in range(0, TAIL_BYTES, 8):
        store64(buffer + _u(k), _u(0))
    libdeflate.copy_bytes(buffer, taken, left)
    state[MOVED] = taken - buffer
    state[NEXT], state[END] = buffer + waiting, buffer + left
    state[LAST] = state[END] + OVERRUN


@njit(nogil=True, cache=True)
def next_block(state: np.ndarray, memory: int, tail: np.ndarray, adler32: int) -> int:
    """Read headers and stored blocks until symbols follow or the stream ends.

    Parameters
    ----------
    state : (16,) uint64
    memory : uint64
        Address of the stream's tables, which are built from the header.
    tail : (TAIL_BYTES,) uint8
    adler32 : int
        Address of libdeflate's function.

    Returns
    -------
    int
        ``GOING`` if symbols follow, ``BLOCK_ENDED`` if the stream is done, ``INVALID`` if it is damaged.
    """
    while True:
        taken = state[NEXT] - ((state[BIT_COUNT] & SIX_BITS) >> _u(3))
        if taken > state[END] or state[OUT] > state[STOP]:
            return INVALID
        if state[FINAL]:
            return BLOCK_ENDED if _is_whole(state, taken + state[MOVED], adler32) else INVALID
        if state[MOVED] == _u(0) and state[END] - state[NEXT] < _u(HEADER_BYTES):
            move_to_tail(state, tail)
        at, bits, count = refilled(state[NEXT], state[BITS], state[BIT_COUNT])
        state[FINAL] = bits & _u(1)
        kind = (bits >> _u(1)) & _u(3)
        bits >>= _u(3)
        count = (count - _u(3)) & SIX_BITS
        if kind == _u(0):
            if not _copy_stored(state, at - (count >> _u(3))):
                return INVALID
        else:
            state[NEXT], state[BITS], state[BIT_COUNT] = at, bits, count
            if kind == _u(3) or (kind == _u(1) and state[FIXED]):
                return INVALID if kind == _u(3) else GOING
            literals, distances = _fixed_lengths(memory) if kind == _u(1) else _dynamic_lengths(state, memory)
            complete, share = huffman.build_literals(memory, literals)
            state[FIXED], state[LITERALS_PREVAIL] = _u(kind == _u(1)), _u(share >= _PREVAILING_SHARE)
            if literals == 0 or not complete or not huffman.build_distances(memory, literals, distances):
                return INVALID
            return GOING


@njit(nogil=True, cache=True)
def _is_whole(state: np.ndarray, behind: int, adler32: int) -> bool:
    """Check that a stream filled its target, and its Adler-32 at the address ``behind``, highest byte first."""
    size = state[STOP] - state[START]
    if state[OUT] != state[STOP]:
        return False
    stored = np.uint32(0)
    for k in range(4):
        stored = (stored << np.uint32(8)) | np.uint32(load8(behind + _u(k)))
    return libdeflate.adler32(adler32, state[START], size) == stored


@njit(nogil=True, cache=True)
def _copy_stored(state: np.ndarray, at: int) -> bool:
    """Copy a stored block (section 3.2.4), whose length is at the address ``at``. False if it does not fit."""
    end = state[END]
    if at > end or end - at < _u(4):
        return False
    sizes = load32(at)
    size = _u(sizes & np.uint32(0xFFFF))
    at += _u(4)
    if size != _u(~sizes >> np.uint32(16)) or size > end - at or size > state[STOP] - state[OUT]:
        return False
    libdeflate.copy_bytes(state[OUT], at, size)
    state[NEXT], state[OUT] = at + size, state[OUT] + size
    state[BITS] = state[BIT_COUNT] = _u(0)
    return True


@njit(nogil=True, cache=True)
def _fixed_lengths(memory: int) -> tuple[int, int]:
    """Write the code lengths of section 3.2.6: how many of literals and lengths, and how many of distances."""
    for k in range(320):
        length = 8 if k < 144 or 280 <= k < 288 else 9 if k < 256 else 7 if k < 280 else 5
        store8(memory + _LENGTHS + _u(k), np.uint8(length))
    return 288, 32


@njit(nogil=True, cache=True)
def _dynamic_lengths(state: np.ndarray, memory: int) -> tuple[int, int]:
    """Read a block's code lengths (section 3.2.7): how many of both kinds, or (0, 0) if they are not valid."""
    at, bits, count = refilled(state[NEXT], state[BITS], state[BIT_COUNT])
    literals: Any
    distances: Any
    literals = np.int64(bits & _u(31)) + 257
    distances = np.int64((bits >> _u(5)) & _u(31)) + 1
    codes = np.int64((bits >> _u(10)) & _u(15)) + 4
    bits >>= _u(14)
    count -= _u(14)
    if literals > 286 or distances > 30:
        return 0, 0
    lengths = memory + _LENGTHS
    for i in range(19):
        store8(lengths + _u(i), np.uint8(0))
    for i in range(codes):
        at, bits, count = refilled(at, bits, count)
        store8(lengths + _u(_ORDER[i]), np.uint8(bits & _u(7)))
        bits >>= _u(3)
        count -= _u(3)
    if not huffman.build_precode(memory):
        return 0, 0
    precode, k = memory + _DISTANCE_TABLE, 0
    while k < literals + distances:
        at, bits, count = refilled(at, bits, count)
        entry = load64(precode + ((bits & _PRECODE_MASK) << _u(3)))
        if entry & _SPECIAL:
            return 0, 0
        bits >>= entry & SIX_BITS
        count -= entry
        symbol = np.int64(entry >> _u(8))
        if symbol < 16:
            store8(lengths + _u(k), np.uint8(symbol))
            k += 1
            continue
        extra, repeats, value = 7, np.int64(11), np.int64(0)
        if symbol == 16:
            if k == 0:
                return 0, 0
            extra, repeats, value = 2, np.int64(3), np.int64(load8(lengths + _u(k - 1)))
        elif symbol == 17:
            extra, repeats = 3, np.int64(3)
        repeats += np.int64(bits & ((_u(1) << _u(extra)) - _u(1)))
        bits >>= _u(extra)
        count -= _u(extra)
        if k + repeats > literals + distances:
            return 0, 0
        for _ in range(repeats):
            store8(lengths + _u(k), np.uint8(value))
            k += 1
    if load8(lengths + _u(256)) == 0:
        return 0, 0
    state[NEXT], state[BITS], state[BIT_COUNT] = at, bits, count
    return literals, distances
