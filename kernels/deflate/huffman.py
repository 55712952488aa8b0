"""Tables that decode deflate's Huffman codes (RFC 1951, sections 3.2.2 to 3.2.7), several symbols per lookup.

The next bits of the stream, lowest first, are the index of a table. An entry stands for up to three literals, or for up
to two literals and a length behind them: as many as fit into the index. Codes longer than the index lead to a second
table.

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

All fields but the literals add up, so an addition joins two entries. A special entry has its kind in bits 56-57: the
end of the block, a second table (its position is in bits 32-47), or no code. "Section" refers to RFC 1951.
"""

from __future__ import annotations

from typing import Any

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

# Any: mypy would tell NumPy's 64-bit integers and plain int apart, which are one in compiled code.
_u: Any = np.uint64

#: Index bits of the first tables. Larger tables hold more symbols per entry, but fill the first-level cache.
LITERALS, DISTANCES, PRECODE_BITS = 10, 8, 7
_LONGEST = 15
#: A second table has room for the longest codes. In a complete code at least two symbols share each one, and there are
#: 288 symbols of literals and lengths and 32 of distances.
_LITERAL_ROOM = (1 << LITERALS) + 144 * (1 << (_LONGEST - LITERALS))
_DISTANCE_ROOM = (1 << DISTANCES) + 16 * (1 << (_LONGEST - DISTANCES))
#: A stream's tables in memory: literals and lengths, distances from byte DISTANCE_TABLE on, and the code lengths from
#: byte LENGTHS on.
DISTANCE_TABLE = 8 * _LITERAL_ROOM
LENGTHS = DISTANCE_TABLE + 8 * _DISTANCE_ROOM
#: Code lengths have a byte each. Behind them is room for two counts of each length, which the build needs.
_COUNTS = 320
TABLE_BYTES = LENGTHS + _COUNTS + 2 * 8 * (_LONGEST + 1)

SPECIAL, MORE = _u(1 << 6), _u(1 << 63)
KIND, END, SECOND, BAD = _u(3 << 56), _u(1 << 56), _u(2 << 56), _u(3 << 56)
_END_ENTRY, _SECOND_ENTRY, _BAD_ENTRY = (MORE | SPECIAL | kind for kind in (END, SECOND, BAD))


def _literal_symbols() -> np.ndarray:
    """Make the entries of the 288 symbols (section 3.2.5), still without the bits of their codes."""
    extra = [0] * 8 + [bits for bits in range(1, 6) for _ in range(4)] + [0]
    base = [*(3 + np.cumsum([0] + [1 << bits for bits in extra[:-2]])).tolist(), 258]
    lengths = [MORE | _u(63 << 54) | _u(shortest << 32) | _u(bits) for shortest, bits in zip(base, extra)]
    literals = [_u(1 << 60) | _u(byte << 8) for byte in range(256)]
    return np.array([*literals, _END_ENTRY, *lengths, _BAD_ENTRY, _BAD_ENTRY], np.uint64)


def _distance_symbols() -> np.ndarray:
    """Make the entries of the 32 symbols. The last two have no meaning."""
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
def _build(lengths: int, counts: int, count: int, index_bits: int, table: int, symbols: np.ndarray, bit: int) -> bool:
    """Build the table of a canonical code (section 3.2.2). False if its lengths make no complete code.

    ``lengths`` is the address of ``count`` code lengths up to 15, a byte each; ``counts`` that of room for two counts
    of each length; ``table`` that of the table. Two incomplete codes are allowed (section 3.2.7): a single code of one
    bit, and none at all where no distance is used.
    """
    of_length, following = counts, counts + _u(8 * (_LONGEST + 1))
    for length in range(_LONGEST + 1):
        store64(of_length + _u(8 * length), _u(0))
    for symbol in range(count):
        at = of_length + (_u(load8(lengths + _u(symbol))) << _u(3))
        store64(at, load64(at) + _u(1))
    used = count - np.int64(load64(of_length))
    store64(of_length, _u(0))
    left: Any = 1
    for length in range(1, _LONGEST + 1):
        left = 2 * left - np.int64(load64(of_length + _u(8 * length)))
        if left < 0:
            return False
    if left > 0 and not (used == 0 or (used == 1 and load64(of_length + _u(8)) == _u(1))):
        return False
    for i in range(1 << index_bits):
        store64(table + _u(8 * i), _BAD_ENTRY)
    # The first code of each length, its first bit lowest, as in the stream.
    code: Any = 0
    for length in range(1, _LONGEST + 1):
        code = (code + np.int64(load64(of_length + _u(8 * length - 8)))) << 1
        reverse = 0
        for k in range(length):
            reverse |= ((code >> k) & 1) << (length - 1 - k)
        store64(following + _u(8 * length), _u(reverse))
    free = 1 << index_bits
    for symbol in range(count):
        bits = np.int64(load8(lengths + _u(symbol)))
        if bits == 0:
            continue
        code = np.int64(load64(following + _u(8 * bits)))
        # Add one to a number that is stored with its highest bit lowest.
        carry = 1 << (bits - 1)
        while code & carry:
            carry >>= 1
        store64(following + _u(8 * bits), _u((code & (carry - 1)) | carry))
        entry = symbols[symbol] + _u(bits) * bit
        start, size, stride = np.int64(0), 1 << index_bits, 1 << bits
        if bits > index_bits:
            head = table + _u(8 * (code & (size - 1)))
            found = load64(head)
            if found == _BAD_ENTRY:
                found = _SECOND_ENTRY | _u(free << 32)
                store64(head, found)
                free += 1 << (_LONGEST - index_bits)
            start, size = np.int64((found >> _u(32)) & _u(0xFFFF)), 1 << (_LONGEST - index_bits)
            code, stride = code >> index_bits, 1 << (bits - index_bits)
        for i in range(code, size, stride):
            store64(table + _u(8 * (start + i)), entry)
    return True


@njit(nogil=True, cache=True)
def _joined(entry: int, follower: int) -> int:
    """Join an entry of literals with the entry of the bits behind it, if both fit into the index."""
    together = (entry & _u(63)) + ((follower >> _u(48)) & _u(63))
    place = ((entry >> _u(60)) & _u(3)) << _u(3)
    both = entry + (follower & ~_u(0xFF00)) + ((follower & _u(0xFF00)) << place)
    fits = (entry < MORE) & (follower & SPECIAL == _u(0)) & (together <= _u(LITERALS))
    return both if fits else entry


@njit(nogil=True, cache=True)
def _join(table: int) -> None:
    """Join each entry of literals with up to two followers.

    It goes from the end to the start: followers have a lower index, so they are still single.
    """
    for k in range(1 << LITERALS):
        i = _u((1 << LITERALS) - 1 - k)
        at = table + (i << _u(3))
        entry = load64(at)
        pair = _joined(entry, load64(table + ((i >> (entry & _u(63))) << _u(3))))
        third = _joined(pair, load64(table + ((i >> (pair & _u(63))) << _u(3))))
        store64(at, third)


@njit(nogil=True, cache=True)
def build_literals(memory: int, count: int) -> tuple[bool, int]:
    """Build the table of literals and lengths from the first ``count`` code lengths.

    Parameters
    ----------
    memory : uint64
        Address of a stream's tables, :data:`TABLE_BYTES`.
    count : int

    Returns
    -------
    complete : bool
        Whether the code is complete; else the table is undefined.
    share : int
        The share of literals among the symbols of a stream that this code suits, in 1/32768.
    """
    lengths = memory + _u(LENGTHS)
    counts = lengths + _u(_COUNTS)
    if not _build(lengths, counts, count, LITERALS, memory, _LITERAL_SYMBOLS, _LITERAL_BIT):
        return False, 0
    _join(memory)
    share: Any = 0
    for symbol in range(256):
        length = np.int64(load8(lengths + _u(symbol)))
        share += (1 << (_LONGEST - length)) if length else 0
    return True, share


@njit(nogil=True, cache=True)
def build_distances(memory: int, first: int, count: int) -> bool:
    """Build the table of distances from the ``count`` code lengths behind the ``first``. False if incomplete.

    ``memory`` is as in :func:`build_literals`.
    """
    lengths = memory + _u(LENGTHS)
    table, counts = memory + _u(DISTANCE_TABLE), lengths + _u(_COUNTS)
    return _build(lengths + _u(first), counts, count, DISTANCES, table, _DISTANCE_SYMBOLS, _DISTANCE_BIT)


@njit(nogil=True, cache=True)
def build_precode(memory: int) -> bool:
    """Build the table of the code that the code lengths are written in (section 3.2.7). False if incomplete.

    Its entries are ``symbol << 8 | bits``. It is where the distances' table will be. ``memory`` is as in
    :func:`build_literals`.
    """
    lengths = memory + _u(LENGTHS)
    table, counts = memory + _u(DISTANCE_TABLE), lengths + _u(_COUNTS)
    return _build(lengths, counts, 19, PRECODE_BITS, table, _PRECODE_SYMBOLS, _PRECODE_BIT)
