"""The loop over the symbols of two deflate streams (RFC 1951, section 3.2.5).

A stream's next symbol is known only after the symbol before it is decoded: look up, shift, look up. So two streams take
turns in one loop, and the processor works on one while the other waits.

Where literals and matches alternate at random, a processor mispredicts most matches, which costs more than decoding a
symbol. So a symbol is decoded without a branch on its kind: a literal is a match of length zero at distance zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from rxrx_kernels.deflate import huffman
from rxrx_kernels.deflate.state import (
    BIT_COUNT,
    BITS,
    BLOCK_ENDED,
    BOUND,
    BUSY,
    EVENT,
    GOING,
    INVALID,
    LAST,
    LITERALS_PREVAIL,
    NEXT,
    OUT,
    PHASE,
    SIX_BITS,
    START,
    STOP,
    refilled,
)
from rxrx_kernels.raw_memory import copy32, load8, load64, store8, store32, store64

__all__ = ["run"]

# Any: mypy would tell NumPy's 64-bit integers and plain int apart, which are one in compiled code.
_u: Any = np.uint64

_LITERAL_MASK, _DISTANCE_MASK = _u((1 << huffman.LITERALS) - 1), _u((1 << huffman.DISTANCES) - 1)
_LITERAL_REST = _u((1 << (15 - huffman.LITERALS)) - 1)
_DISTANCE_REST = _u((1 << (15 - huffman.DISTANCES)) - 1)
_LITERAL_SHIFT, _DISTANCE_SHIFT = _u(huffman.LITERALS), _u(huffman.DISTANCES)
_DISTANCE_TABLE = _u(huffman.DISTANCE_TABLE)
_SPECIAL, _MORE, _KIND = huffman.SPECIAL, huffman.MORE, huffman.KIND
_END_KIND, _SECOND_KIND = huffman.END, huffman.SECOND


@njit(nogil=True, forceinline=True)
def _extra_value(entry: int, bits: int, code_bits: int) -> int:
    """Read the extra bits behind a code."""
    return (bits & ((_u(1) << (entry & SIX_BITS)) - _u(1))) >> (code_bits & SIX_BITS)


@njit(nogil=True, forceinline=True)
def _write_literals(out: int, entry: int) -> int:
    """Write the up to three literals of an entry: the next byte to write."""
    store32(out, np.uint32(entry >> _u(8)))
    return out + ((entry >> _u(60)) & _u(3))


@njit(nogil=True, cache=True)
def _copy_match(out: int, length: int, distance: int) -> None:
    """Copy a match that is longer than 32 bytes or overlaps itself."""
    source, stop = out - distance, out + length
    if distance >= _u(32):
        while out < stop:
            copy32(out, source)
            out += _u(32)
            source += _u(32)
    elif distance >= _u(8):
        while out < stop:
            store64(out, load64(source))
            out += _u(8)
            source += _u(8)
    else:
        while out < stop:
            store8(out, load8(source))
            out += _u(1)
            source += _u(1)


@njit(nogil=True, forceinline=True)
def _step(
    at: int, out: int, bits: int, count: int, memory: int, start: int, literals_prevail: bool
) -> tuple[int, int, int, int, int]:
    """Decode the symbols of one table entry, where literals prevail after up to four entries of literals.

    All arguments are fields of the stream's state, and ``memory`` is the address of its tables. Returns the new ``at``,
    ``out``, ``bits`` and ``count``, and an event.
    """
    event = GOING
    at, bits, count = refilled(at, bits, count)
    entry = load64(memory + ((bits & _LITERAL_MASK) << _u(3)))
    if literals_prevail and entry < _MORE:
        out = _write_literals(out, entry)
        bits >>= entry & SIX_BITS
        count -= entry
        entry = load64(memory + ((bits & _LITERAL_MASK) << _u(3)))
        if entry < _MORE:
            out = _write_literals(out, entry)
            bits >>= entry & SIX_BITS
            count -= entry
            entry = load64(memory + ((bits & _LITERAL_MASK) << _u(3)))
            if entry < _MORE:
                out = _write_literals(out, entry)
                bits >>= entry & SIX_BITS
                count -= entry
                entry = load64(memory + ((bits & _LITERAL_MASK) << _u(3)))
                if entry < _MORE:
                    out = _write_literals(out, entry)
                    bits >>= entry & SIX_BITS
                    count -= entry
        if entry >= _MORE:
            at, bits, count = refilled(at, bits, count)
    if not literals_prevail or entry >= _MORE:
        if entry & _SPECIAL:
            if entry & _KIND == _SECOND_KIND:
                place = ((entry >> _u(32)) & _u(0xFFFF)) + ((bits >> _LITERAL_SHIFT) & _LITERAL_REST)
                entry = load64(memory + (place << _u(3)))
            if entry & _SPECIAL:
                event = BLOCK_ENDED if entry & _KIND == _END_KIND else INVALID
                bits >>= entry & SIX_BITS
                count -= entry
                entry = _u(0)
        out = _write_literals(out, entry)
        length = ((entry >> _u(32)) & _u(0x1FF)) + _extra_value(entry, bits, entry >> _u(48))
        bits >>= entry & SIX_BITS
        count -= entry
        # All 63 low bits of the distance's entry are used behind a length, and none behind literals. A mask made from
        # one bit would say the same, but the compiler turns that into the branch that is to be avoided.
        used = (_u(1) << ((entry >> _u(54)) & SIX_BITS)) - _u(1)
        entry = load64(memory + _DISTANCE_TABLE + ((bits & _DISTANCE_MASK) << _u(3))) & used
        if entry & _SPECIAL:
            if entry & _KIND == _SECOND_KIND:
                place = ((entry >> _u(32)) & _u(0xFFFF)) + ((bits >> _DISTANCE_SHIFT) & _DISTANCE_REST)
                entry = load64(memory + _DISTANCE_TABLE + (place << _u(3)))
            if entry & _SPECIAL:
                event = INVALID
        distance = (entry >> _u(32)) + _extra_value(entry, bits, entry >> _u(8))
        bits >>= entry & SIX_BITS
        count -= entry
        if distance > out - start:
            event = INVALID
        if event == GOING:
            # A literal's distance is zero: this copies 32 bytes, which are not written yet, onto themselves.
            if distance - _u(1) >= _u(31) and length <= _u(32):
                copy32(out, out - distance)
            else:
                _copy_match(out, length, distance)
            out += length
    return at, out, bits, count, event


@njit(nogil=True, cache=True)
def run(states: np.ndarray, memory1: int, memory2: int) -> None:
    """Decode symbols of the busy streams in turn until an event ends one of them.

    Parameters
    ----------
    states : (2, 16) uint64
        Both streams' states; ``states[:, EVENT]`` tells what ended the loop for which stream.
    memory1, memory2 : uint64
        Addresses of both streams' tables.
    """
    busy1, busy2 = states[0, PHASE] == BUSY, states[1, PHASE] == BUSY
    at1, last1, bits1, count1 = states[0, NEXT], states[0, LAST], states[0, BITS], states[0, BIT_COUNT]
    at2, last2, bits2, count2 = states[1, NEXT], states[1, LAST], states[1, BITS], states[1, BIT_COUNT]
    out1, start1, stop1 = states[0, OUT], states[0, START], states[0, STOP]
    out2, start2, stop2 = states[1, OUT], states[1, START], states[1, STOP]
    prevail1, prevail2 = states[0, LITERALS_PREVAIL] != _u(0), states[1, LITERALS_PREVAIL] != _u(0)
    event1 = event2 = GOING
    while event1 | event2 == GOING:
        if busy1:
            if at1 > last1 or out1 > stop1:
                event1 = BOUND
            else:
                at1, out1, bits1, count1, event1 = _step(at1, out1, bits1, count1, memory1, start1, prevail1)
        if busy2:
            if at2 > last2 or out2 > stop2:
                event2 = BOUND
            else:
                at2, out2, bits2, count2, event2 = _step(at2, out2, bits2, count2, memory2, start2, prevail2)
    states[0, NEXT], states[0, OUT], states[0, BITS], states[0, BIT_COUNT] = at1, out1, bits1, count1
    states[1, NEXT], states[1, OUT], states[1, BITS], states[1, BIT_COUNT] = at2, out2, bits2, count2
    states[0, EVENT], states[1, EVENT] = _u(event1), _u(event2)
