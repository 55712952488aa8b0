"""Inflate two zlib streams at once (RFC 1950, RFC 1951).

In a deflate stream a symbol begins where the one before it ends, so one stream keeps a processor waiting: look up,
shift, look up. Here two streams take turns in one loop, each in the other's waits. And where literals and matches
alternate at random, a processor guesses wrongly at most matches, which costs more than a symbol does: so a symbol is
decoded without asking what it is. A literal is a match of length zero at distance zero.

Bounds are kept by room, not by a test a byte. A step reads less than :data:`_READ` bytes and writes less than
:data:`ROOM`, and starts only within its stream's bounds. When fewer bytes are left of a stream, they move to a buffer
with zeros behind it. The target must have :data:`ROOM` bytes behind its end.

What is wrong with a stream is not told: whoever asks gives a refused one to libdeflate, whose verdict counts. It also
takes codes that are refused here and that no writer makes, such as incomplete ones.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from rxrx_kernels.deflate import huffman
from rxrx_kernels.deflate import libdeflate as inflate
from rxrx_kernels.raw_memory import copy32, load8, load32, load64, store8, store32, store64

__all__ = ["BUSY", "DONE", "FAILED", "FREE", "PHASE", "ROOM", "begin", "work", "workspace"]

_u = np.uint64

#: Bytes behind a target that may be written: 15 literals, a match of 258 and the rest of its last 32 bytes, rounded up.
ROOM = 320
#: Bytes in front of a step, which reads 8 at two places, at most 7 apart.
_READ = _u(16)
#: Bytes in front of a block's header, which takes at most 563: 3 + 14 + 19 x 3 bits, and 316 code lengths of 14 bits.
_HEADER = 1024
#: The buffer for a stream's end: that, and zeros that a header may run into before it is found out.
_TAIL = 2 * _HEADER
#: A step may begin so far behind the end: up to 7 bytes are in the bit buffer, and still to be taken.
_AHEAD = _u(8)

# A stream's state, uint64 each: the next byte to load and the last at which a step may begin; the next byte to write,
# the first and the one behind the last; bits loaded and not taken, and their number; whether this block is the last,
# and whether literals prevail; the end of the deflate data; what leads from the tail's addresses back to the source's,
# once it is there; whether the tables are of the fixed codes; what ended its last
# loop over symbols; and what `work` is to do with it.
_NEXT, _LAST, _OUT, _START, _STOP, _BITS, _COUNT, _FINAL, _RICH, _END, _MOVED, _FIXED, _EVENT, PHASE = range(14)
_FIELDS = 16
FREE, BUSY, DONE, FAILED = map(_u, range(4))

# What ended a loop over symbols.
_GOING, _BLOCK_ENDED, _INVALID, _BOUND = 0, 1, 2, 3

_SIX = _u(63)
_LITERAL_MASK, _DISTANCE_MASK = _u((1 << huffman.LITERALS) - 1), _u((1 << huffman.DISTANCES) - 1)
_LITERAL_REST = _u((1 << (15 - huffman.LITERALS)) - 1)
_DISTANCE_REST = _u((1 << (15 - huffman.DISTANCES)) - 1)
_LITERAL_SHIFT, _DISTANCE_SHIFT = _u(huffman.LITERALS), _u(huffman.DISTANCES)
_DISTANCE_TABLE, _LENGTHS = _u(huffman.DISTANCE_TABLE), _u(huffman.LENGTHS)
_SPECIAL, _MORE, _KIND = huffman.SPECIAL, huffman.MORE, huffman.KIND
_END_KIND, _SECOND_KIND = huffman.END, huffman.SECOND
#: Of 32768 symbols, so many literals make a block rich in them: a processor guesses right that the next is one.
_RICH_SHARE = 28000
#: The order of the code lengths' code lengths (section 3.2.7).
_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15], np.int64)


def workspace() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What one thread needs to inflate two streams, about 110 KB: states, memories for tables, tails."""
    return (
        np.zeros((2, _FIELDS), np.uint64),
        np.zeros((2, huffman.TABLE_BYTES // 8), np.uint64),
        np.zeros((2, _TAIL), np.uint8),
    )


@njit(nogil=True, forceinline=True)
def _refilled(at, bits, count):
    """At least 56 bits, as many whole bytes as fit. Only the lowest six bits of ``count`` count."""
    bits |= load64(at) << (count & _SIX)
    at += (~count & _SIX) >> _u(3)
    return at, bits, count | _u(56)


@njit(nogil=True, forceinline=True)
def _value(entry, bits, code_bits):
    """The extra bits behind a code."""
    return (bits & ((_u(1) << (entry & _SIX)) - _u(1))) >> (code_bits & _SIX)


@njit(nogil=True, forceinline=True)
def _literals(out, entry):
    store32(out, np.uint32(entry >> _u(8)))
    return out + ((entry >> _u(60)) & _u(3))


@njit(nogil=True, cache=True)
def _copy_far(out, length, distance):
    """A match that is long, or overlaps itself."""
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
def _step(at, out, bits, count, memory, start, rich):
    """Up to four lookups of literals in a block that is rich in them, then whatever an entry stands for."""
    event = _GOING
    at, bits, count = _refilled(at, bits, count)
    entry = load64(memory + ((bits & _LITERAL_MASK) << _u(3)))
    if rich and entry < _MORE:
        out = _literals(out, entry)
        bits >>= entry & _SIX
        count -= entry
        entry = load64(memory + ((bits & _LITERAL_MASK) << _u(3)))
        if entry < _MORE:
            out = _literals(out, entry)
            bits >>= entry & _SIX
            count -= entry
            entry = load64(memory + ((bits & _LITERAL_MASK) << _u(3)))
            if entry < _MORE:
                out = _literals(out, entry)
                bits >>= entry & _SIX
                count -= entry
                entry = load64(memory + ((bits & _LITERAL_MASK) << _u(3)))
                if entry < _MORE:
                    out = _literals(out, entry)
                    bits >>= entry & _SIX
                    count -= entry
        if entry >= _MORE:
            at, bits, count = _refilled(at, bits, count)
    if not rich or entry >= _MORE:
        if entry & _SPECIAL:
            if entry & _KIND == _SECOND_KIND:
                place = ((entry >> _u(32)) & _u(0xFFFF)) + ((bits >> _LITERAL_SHIFT) & _LITERAL_REST)
                entry = load64(memory + (place << _u(3)))
            if entry & _SPECIAL:
                event = _BLOCK_ENDED if entry & _KIND == _END_KIND else _INVALID
                bits >>= entry & _SIX
                count -= entry
                entry = _u(0)
        out = _literals(out, entry)
        length = ((entry >> _u(32)) & _u(0x1FF)) + _value(entry, bits, entry >> _u(48))
        bits >>= entry & _SIX
        count -= entry
        # 63 bits of the distance's entry count behind a length, and none behind literals. A mask made of one bit would
        # say the same, but the compiler turns it into the jump that is to be avoided.
        counting = (_u(1) << ((entry >> _u(54)) & _SIX)) - _u(1)
        entry = load64(memory + _DISTANCE_TABLE + ((bits & _DISTANCE_MASK) << _u(3))) & counting
        if entry & _SPECIAL:
            if entry & _KIND == _SECOND_KIND:
                place = ((entry >> _u(32)) & _u(0xFFFF)) + ((bits >> _DISTANCE_SHIFT) & _DISTANCE_REST)
                entry = load64(memory + _DISTANCE_TABLE + (place << _u(3)))
            if entry & _SPECIAL:
                event = _INVALID
        distance = (entry >> _u(32)) + _value(entry, bits, entry >> _u(8))
        bits >>= entry & _SIX
        count -= entry
        if distance > out - start:
            event = _INVALID
        if event == _GOING:
            # Distance zero is a literal's, and copies 32 bytes that don't matter yet onto themselves.
            if distance - _u(1) >= _u(31) and length <= _u(32):
                copy32(out, out - distance)
            else:
                _copy_far(out, length, distance)
            out += length
    return at, out, bits, count, event


@njit(nogil=True, cache=True)
def _run(states, memory1, memory2):
    """Symbols of the busy streams in turn until something ends one of them."""
    busy1, busy2 = states[0, PHASE] == BUSY, states[1, PHASE] == BUSY
    at1, last1, bits1, count1 = states[0, _NEXT], states[0, _LAST], states[0, _BITS], states[0, _COUNT]
    at2, last2, bits2, count2 = states[1, _NEXT], states[1, _LAST], states[1, _BITS], states[1, _COUNT]
    out1, start1, stop1, rich1 = states[0, _OUT], states[0, _START], states[0, _STOP], states[0, _RICH] != _u(0)
    out2, start2, stop2, rich2 = states[1, _OUT], states[1, _START], states[1, _STOP], states[1, _RICH] != _u(0)
    event1 = event2 = _GOING
    while event1 | event2 == _GOING:
        if busy1:
            if at1 > last1 or out1 > stop1:
                event1 = _BOUND
            else:
                at1, out1, bits1, count1, event1 = _step(at1, out1, bits1, count1, memory1, start1, rich1)
        if busy2:
            if at2 > last2 or out2 > stop2:
                event2 = _BOUND
            else:
                at2, out2, bits2, count2, event2 = _step(at2, out2, bits2, count2, memory2, start2, rich2)
    states[0, _NEXT], states[0, _OUT], states[0, _BITS], states[0, _COUNT] = at1, out1, bits1, count1
    states[1, _NEXT], states[1, _OUT], states[1, _BITS], states[1, _COUNT] = at2, out2, bits2, count2
    states[0, _EVENT], states[1, _EVENT] = _u(event1), _u(event2)


@njit(nogil=True, cache=True)
def _to_tail(state, tail):
    """Move the last bytes of a stream to where zeros follow."""
    # Bytes that wait in the bit buffer come along: a stored block goes back to them.
    waiting = (state[_COUNT] & _SIX) >> _u(3)
    taken = state[_NEXT] - waiting
    buffer, left = _u(tail.ctypes.data), state[_END] - taken
    for k in range(0, _TAIL, 8):
        store64(buffer + _u(k), _u(0))
    inflate.copy_bytes(buffer, taken, left)
    state[_MOVED] = taken - buffer
    state[_NEXT], state[_END] = buffer + waiting, buffer + left
    state[_LAST] = state[_END] + _AHEAD


@njit(nogil=True, cache=True)
def _next_block(state, memory, tail, adler32):
    """Headers and stored blocks up to the next symbols: going if there are any, ended if the stream is done."""
    while True:
        taken = state[_NEXT] - ((state[_COUNT] & _SIX) >> _u(3))
        if taken > state[_END] or state[_OUT] > state[_STOP]:
            return _INVALID
        if state[_FINAL]:
            return _BLOCK_ENDED if _whole(state, taken + state[_MOVED], adler32) else _INVALID
        if state[_MOVED] == _u(0) and state[_END] - state[_NEXT] < _u(_HEADER):
            _to_tail(state, tail)
        at, bits, count = _refilled(state[_NEXT], state[_BITS], state[_COUNT])
        state[_FINAL] = bits & _u(1)
        kind = (bits >> _u(1)) & _u(3)
        bits >>= _u(3)
        count = (count - _u(3)) & _SIX
        if kind == _u(0):
            if not _stored(state, at - (count >> _u(3))):
                return _INVALID
        else:
            state[_NEXT], state[_BITS], state[_COUNT] = at, bits, count
            if kind == _u(3) or (kind == _u(1) and state[_FIXED]):
                return _INVALID if kind == _u(3) else _GOING
            literals, distances = _fixed(memory) if kind == _u(1) else _dynamic(state, memory)
            complete, share = huffman.build_literals(memory, literals)
            state[_FIXED], state[_RICH] = _u(kind == _u(1)), _u(share >= _RICH_SHARE)
            if literals == 0 or not complete or not huffman.build_distances(memory, literals, distances):
                return _INVALID
            return _GOING


@njit(nogil=True, cache=True)
def _whole(state, behind, adler32):
    """Whether a stream filled its target and left the right Adler-32, highest byte first."""
    size = state[_STOP] - state[_START]
    if state[_OUT] != state[_STOP]:
        return False
    stored = np.uint32(0)
    for k in range(4):
        stored = (stored << np.uint32(8)) | np.uint32(load8(behind + _u(k)))
    return inflate.adler32(adler32, state[_START], size) == stored


@njit(nogil=True, cache=True)
def _stored(state, at):
    """A stored block (section 3.2.4), whose length begins with the next whole byte."""
    end = state[_END]
    if at > end or end - at < _u(4):
        return False
    sizes = load32(at)
    size = _u(sizes & np.uint32(0xFFFF))
    at += _u(4)
    if size != _u(~sizes >> np.uint32(16)) or size > end - at or size > state[_STOP] - state[_OUT]:
        return False
    inflate.copy_bytes(state[_OUT], at, size)
    state[_NEXT], state[_OUT] = at + size, state[_OUT] + size
    state[_BITS] = state[_COUNT] = _u(0)
    return True


@njit(nogil=True, cache=True)
def _fixed(memory):
    """Code lengths of section 3.2.6: how many of literals and lengths, and of distances."""
    for k in range(320):
        length = 8 if k < 144 or 280 <= k < 288 else 9 if k < 256 else 7 if k < 280 else 5
        store8(memory + _LENGTHS + _u(k), np.uint8(length))
    return 288, 32


@njit(nogil=True, cache=True)
def _dynamic(state, memory):
    """Code lengths that a block brings along (section 3.2.7): how many of both; none if they are not valid."""
    at, bits, count = _refilled(state[_NEXT], state[_BITS], state[_COUNT])
    literals = np.int64(bits & _u(31)) + 257
    distances = np.int64((bits >> _u(5)) & _u(31)) + 1
    codes = np.int64((bits >> _u(10)) & _u(15)) + 4
    bits >>= _u(14)
    count -= _u(14)
    if literals > 286 or distances > 30:
        return 0, 0
    lengths = memory + _LENGTHS
    for k in range(19):
        store8(lengths + _u(k), np.uint8(0))
    for k in range(codes):
        at, bits, count = _refilled(at, bits, count)
        store8(lengths + _u(_ORDER[k]), np.uint8(bits & _u(7)))
        bits >>= _u(3)
        count -= _u(3)
    if not huffman.build_precode(memory):
        return 0, 0
    precode, k = memory + _DISTANCE_TABLE, 0
    while k < literals + distances:
        at, bits, count = _refilled(at, bits, count)
        entry = load64(precode + ((bits & _u((1 << huffman.PRECODE_BITS) - 1)) << _u(3)))
        if entry & _SPECIAL:
            return 0, 0
        bits >>= entry & _SIX
        count -= entry
        symbol = np.int64(entry >> _u(8))
        if symbol < 16:
            store8(lengths + _u(k), np.uint8(symbol))
            k += 1
            continue
        extra, repeats, value = 7, 11, 0
        if symbol == 16:
            if k == 0:
                return 0, 0
            extra, repeats, value = 2, 3, np.int64(load8(lengths + _u(k - 1)))
        elif symbol == 17:
            extra, repeats = 3, 3
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
    state[_NEXT], state[_BITS], state[_COUNT] = at, bits, count
    return literals, distances


@njit(nogil=True, cache=True)
def _resume(state, memory, tail, adler32):
    """After a loop over symbols: the next block, the stream's last bytes, or its end."""
    event = np.int64(state[_EVENT])
    state[_EVENT] = _u(_GOING)
    if event == _BOUND and state[_OUT] <= state[_STOP] and state[_MOVED] == _u(0):
        _to_tail(state, tail)
        return
    if event == _BLOCK_ENDED:
        event = _next_block(state, memory, tail, adler32)
        if event == _GOING:
            return
    state[PHASE] = DONE if event == _BLOCK_ENDED else FAILED


@njit(nogil=True, cache=True)
def begin(state, source, size, target, expected):
    """Take up a zlib stream.

    Parameters
    ----------
    state : (16,) uint64
        A row of :func:`workspace`'s. ``state[PHASE]`` is then ``BUSY``, or ``FAILED`` already.
    source, size : uint64
        Address and bytes of the stream; bytes behind its end are tolerated.
    target, expected : uint64
        Where it goes, and the size that it must have. :data:`ROOM` bytes behind that may be written.
    """
    for field in range(_FIELDS):
        state[field] = _u(0)
    state[PHASE] = FAILED
    if size < _u(6):
        return
    # Deflate with any window, without a dictionary (RFC 1950, section 2.2).
    method, flags = np.int64(load8(source)), np.int64(load8(source + _u(1)))
    if method & 15 != 8 or method >> 4 > 7 or (256 * method + flags) % 31 or flags & 32:
        return
    # The last four bytes are the checksum, or lie behind it.
    state[_NEXT], state[_END] = source + _u(2), source + size - _u(4)
    state[_LAST] = state[_END] - _READ
    state[_OUT] = state[_START] = target
    state[_STOP] = target + expected
    state[PHASE], state[_EVENT] = BUSY, _u(_BLOCK_ENDED)


@njit(nogil=True, cache=True)
def work(states, memories, tails, adler32):
    """Inflate until one of the busy streams is done or has failed; returns at once if none is busy.

    ``states``, ``memories`` and ``tails`` are :func:`workspace`'s, ``adler32`` the address of libdeflate's function.
    """
    first = _u(memories.ctypes.data)
    while True:
        ended, busy = False, False
        for k in range(2):
            if states[k, PHASE] == BUSY and states[k, _EVENT] != _u(_GOING):
                _resume(states[k], first + _u(k * huffman.TABLE_BYTES), tails[k], adler32)
                ended |= states[k, PHASE] != BUSY
            busy |= states[k, PHASE] == BUSY
        if ended or not busy:
            return
        _run(states, first, first + _u(huffman.TABLE_BYTES))
