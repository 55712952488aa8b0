"""Tables that decode deflate's Huffman codes (RFC 1951, sections 3.2.2 to 3.2.7), several symbols a lookup.

A table is indexed by the next bits of the stream, lowest first, and an entry holds all that follows from them. One
entry may stand for up to three literals, or for up to two and a length behind them: as many as fit into the index.
Codes longer than the index lead to a second table.

Entries are 64 bits::

    literals and lengths                                distances
     0-5    bits that the entry takes, with extra bits   0-5    the same
     6      special: see below                           6      special
     8-31   the literals                                 8-13   bits of the code alone
    32-40   shortest length                             32-47   shortest distance
    48-53   bits of the codes alone
    54-59   all set for a length
    60-61   number of literals
    63      not literals only: a length or special

All fields but the literals add up, so that two entries are joined by an addition. A special entry names its kind in
bits 56-57; of a second table it holds the position in bits 32-47.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from rxrx_kernels.raw_memory import load8, load64, store64

__all__ = [
    "BAD",
    "DISTANCES",
    "DISTANCE_TABLE",
    "END",
    "KIND",
    "LENGTHS",
    "LITERALS",
    "MORE",
    "PRECODE_BITS",
    "SECOND",
    "SPECIAL",
    "TABLE_BYTES",
    "build_distances",
    "build_literals",
    "build_precode",
]

_u = np.uint64

#: Index bits of the first tables. Larger ones hold more symbols an entry, but leave no room in a first-level cache.
LITERALS, DISTANCES, PRECODE_BITS = 10, 8, 7
_LONGEST = 15
#: A second table has room for the longest codes. In a complete code two symbols at least share one, and there are 288
#: symbols of literals and lengths and 32 of distances.
_LITERAL_ROOM = (1 << LITERALS) + 144 * (1 << (_LONGEST - LITERALS))
_DISTANCE_ROOM = (1 << DISTANCES) + 16 * (1 << (_LONGEST - DISTANCES))
#: Bytes of a stream's tables: literals and lengths, then distances from DISTANCE_TABLE on.
DISTANCE_TABLE = 8 * _LITERAL_ROOM
LENGTHS = DISTANCE_TABLE + 8 * _DISTANCE_ROOM
#: Behind them lie the code lengths that they are built from, a byte each, and two counts of each length to build with.
_COUNTS = 320
TABLE_BYTES = LENGTHS + _COUNTS + 2 * 8 * (_LONGEST + 1)

SPECIAL, MORE = _u(1 << 6), _u(1 << 63)
KIND, END, SECOND, BAD = _u(3 << 56), _u(1 << 56), _u(2 << 56), _u(3 << 56)
_END_ENTRY, _SECOND_ENTRY, _BAD_ENTRY = (MORE | SPECIAL | kind for kind in (END, SECOND, BAD))


def _literal_symbols() -> np.ndarray:
    """Entries of the 288 symbols (section 3.2.5), still without the bits of their codes."""
    extra = [0] * 8 + [bits for bits in range(1, 6) for _ in range(4)] + [0]
    base = [*(3 + np.cumsum([0] + [1 << bits for bits in extra[:-2]])).tolist(), 258]
    lengths = [MORE | _u(63 << 54) | _u(shortest << 32) | _u(bits) for shortest, bits in zip(base, extra)]
    literals = [_u(1 << 60) | _u(byte << 8) for byte in range(256)]
    return np.array([*literals, _END_ENTRY, *lengths, _BAD_ENTRY, _BAD_ENTRY], np.uint64)


def _distance_symbols() -> np.ndarray:
    """Entries of the 32 symbols, the last two of which stand for nothing."""
    extra = [0, 0] + [bits for bits in range(14) for _ in range(2)]
    base = 1 + np.cumsum([0] + [1 << bits for bits in extra[:-1]])
    return np.array(
        [_u(int(shortest) << 32) | _u(bits) for shortest, bits in zip(base, extra)] + [_BAD_ENTRY] * 2, np.uint64
    )


_LITERAL_SYMBOLS, _DISTANCE_SYMBOLS = _literal_symbols(), _distance_symbols()
_PRECODE_SYMBOLS = np.arange(19, dtype=np.uint64) << _u(8)
#: What one bit of a code adds to an entry.
_LITERAL_BIT, _DISTANCE_BIT, _PRECODE_BIT = _u(1 | 1 << 48), _u(1 | 1 << 8), _u(1)


@njit(nogil=True, cache=True)
def _build(lengths, counts, count, index_bits, table, symbols, bit):
    """The table of a canonical code (section 3.2.2). False if its lengths make no complete code.

    Given are addresses: of ``count`` lengths up to 15, a byte each; of room for two counts of each length; of the
    table. A lone code of one bit is the exception that section 3.2.7 allows, or none at all where no distance is used.
    """
    of_length, following = counts, counts + _u(8 * (_LONGEST + 1))
    for length in range(_LONGEST + 1):
        store64(of_length + _u(8 * length), _u(0))
    for symbol in range(count):
        at = of_length + (_u(load8(lengths + _u(symbol))) << _u(3))
        store64(at, load64(at) + _u(1))
    used = count - np.int64(load64(of_length))
    store64(of_length, _u(0))
    left = 1
    for length in range(1, _LONGEST + 1):
        left = 2 * left - np.int64(load64(of_length + _u(8 * length)))
        if left < 0:
            return False
    if left > 0 and not (used == 0 or (used == 1 and load64(of_length + _u(8)) == _u(1))):
        return False
    for i in range(1 << index_bits):
        store64(table + _u(8 * i), _BAD_ENTRY)
    # The first code of each length, its first bit lowest, as the stream has it.
    code = 0
    for length in range(1, _LONGEST + 1):
        code = (code + np.int64(load64(of_length + _u(8 * length - 8)))) << 1
        reverse = 0
        for k in range(length):
            reverse |= ((code >> k) & 1) << (length - 1 - k)
        store64(following + _u(8 * length), _u(reverse))
    free = 1 << index_bits
    for symbol in range(count):
        length = np.int64(load8(lengths + _u(symbol)))
        if length == 0:
            continue
        code = np.int64(load64(following + _u(8 * length)))
        # Add one to a number whose lowest bit stands at its top.
        carry = 1 << (length - 1)
        while code & carry:
            carry >>= 1
        store64(following + _u(8 * length), _u((code & (carry - 1)) | carry))
        entry = symbols[symbol] + _u(length) * bit
        start, size, step = 0, 1 << index_bits, 1 << length
        if length > index_bits:
            head = table + _u(8 * (code & (size - 1)))
            found = load64(head)
            if found == _BAD_ENTRY:
                found = _SECOND_ENTRY | _u(free << 32)
                store64(head, found)
                free += 1 << (_LONGEST - index_bits)
            start, size = np.int64((found >> _u(32)) & _u(0xFFFF)), 1 << (_LONGEST - index_bits)
            code, step = code >> index_bits, 1 << (length - index_bits)
        for i in range(code, size, step):
            store64(table + _u(8 * (start + i)), entry)
    return True


@njit(nogil=True, cache=True)
def _joined(entry, follower):
    """An entry of literals with the one of the bits behind it, where that is of use and both fit into the index."""
    together = (entry & _u(63)) + ((follower >> _u(48)) & _u(63))
    place = ((entry >> _u(60)) & _u(3)) << _u(3)
    sum_ = entry + (follower & ~_u(0xFF00)) + ((follower & _u(0xFF00)) << place)
    fits = (entry < MORE) & (follower & SPECIAL == _u(0)) & (together <= _u(LITERALS))
    return sum_ if fits else entry


@njit(nogil=True, cache=True)
def _join(table):
    """Let each entry of literals take in its followers. From the end: a follower stands in front, still single."""
    for k in range(1 << LITERALS):
        i = _u((1 << LITERALS) - 1 - k)
        at = table + (i << _u(3))
        entry = load64(at)
        pair = _joined(entry, load64(table + ((i >> (entry & _u(63))) << _u(3))))
        third = _joined(pair, load64(table + ((i >> (pair & _u(63))) << _u(3))))
        store64(at, third)


@njit(nogil=True, cache=True)
def build_literals(memory, count):
    """The table of literals and lengths, from the first ``count`` code lengths.

    Returns whether the code is complete, and the share of literals, of 32768: how often one comes in a stream that the
    code fits. ``memory`` is the address of a stream's :data:`TABLE_BYTES`.
    """
    lengths = memory + _u(LENGTHS)
    counts = lengths + _u(_COUNTS)
    if not _build(lengths, counts, count, LITERALS, memory, _LITERAL_SYMBOLS, _LITERAL_BIT):
        return False, 0
    _join(memory)
    share = 0
    for symbol in range(256):
        length = np.int64(load8(lengths + _u(symbol)))
        share += (1 << (_LONGEST - length)) if length else 0
    return True, share


@njit(nogil=True, cache=True)
def build_distances(memory, first, count):
    """The table of distances, from the ``count`` code lengths behind the ``first``."""
    lengths = memory + _u(LENGTHS)
    table, counts = memory + _u(DISTANCE_TABLE), lengths + _u(_COUNTS)
    return _build(lengths + _u(first), counts, count, DISTANCES, table, _DISTANCE_SYMBOLS, _DISTANCE_BIT)


@njit(nogil=True, cache=True)
def build_precode(memory):
    """The table of the code that the other codes' lengths are in (section 3.2.7): symbol << 8 | bits.

    It stands where the distances' table comes later.
    """
    lengths = memory + _u(LENGTHS)
    table, counts = memory + _u(DISTANCE_TABLE), lengths + _u(_COUNTS)
    return _build(lengths, counts, 19, PRECODE_BITS, table, _PRECODE_SYMBOLS, _PRECODE_BIT)
