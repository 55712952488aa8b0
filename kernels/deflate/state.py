"""The state of a zlib stream that is being inflated, and its bit buffer.

Compiled functions keep a stream's state in a row of uint64 numbers, so that two streams, or a caller without the
interpreter, can hold them in one array. The constants below are the fields' indices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from rxrx_kernels.deflate import huffman
from rxrx_kernels.raw_memory import load64

__all__ = [
    "BITS",
    "BIT_COUNT",
    "BLOCK_ENDED",
    "BOUND",
    "BUSY",
    "DONE",
    "END",
    "EVENT",
    "FAILED",
    "FIELDS",
    "FINAL",
    "FIXED",
    "FREE",
    "GOING",
    "HEADER_BYTES",
    "INVALID",
    "LAST",
    "LITERALS_PREVAIL",
    "MOVED",
    "NEXT",
    "OUT",
    "OVERRUN",
    "PHASE",
    "READ_BYTES",
    "ROOM",
    "SIX_BITS",
    "START",
    "STOP",
    "TAIL_BYTES",
    "refilled",
    "workspace",
]

# Any: mypy would tell NumPy's 64-bit integers and plain int apart, which are one in compiled code.
_u: Any = np.uint64

#: Bytes behind a target that may be written: 15 literals, a match of 258, the rest of its last 32 bytes; rounded up.
ROOM = 320
#: Bytes that must be readable from where a step begins. A step reads 8 bytes at two places, at most 7 apart.
READ_BYTES = _u(16)
#: Bytes that must be readable from a block's header. It takes at most 563: 3 + 14 + 19 x 3 bits, and 316 code lengths
#: of 14 bits.
HEADER_BYTES = 1024
#: Bytes of the tail buffer: a header's, and as many zeros that a damaged header may read before it is found out.
TAIL_BYTES = 2 * HEADER_BYTES
#: A step may begin so many bytes behind the stream's end: up to 7 bytes are in the bit buffer and not taken yet.
OVERRUN = _u(8)

#: The next byte to load, and the last one at which a step may begin (addresses).
NEXT, LAST = 0, 1
#: The next byte to write, the target's first byte, and the byte behind its last (addresses).
OUT, START, STOP = 2, 3, 4
#: Bits that are loaded and not taken. The lowest six bits of BIT_COUNT are their number.
BITS, BIT_COUNT = 5, 6
#: Whether this block is the last one, and whether most of its symbols are literals.
FINAL, LITERALS_PREVAIL = 7, 8
#: The address behind the deflate data.
END = 9
#: What to add to an address in the tail buffer to get the source's address; 0 before the stream is moved there.
MOVED = 10
#: Whether the tables are those of the fixed codes.
FIXED = 11
#: What ended the stream's last loop over symbols: one of the events below.
EVENT = 12
#: One of the phases below.
PHASE = 13
FIELDS = 16

#: Phases: no stream; in work; inflated with the right Adler-32; refused.
FREE, BUSY, DONE, FAILED = map(_u, range(4))

#: Events: symbols follow; the block, or the stream, is through; the stream is not valid; source or target runs out.
GOING, BLOCK_ENDED, INVALID, BOUND = 0, 1, 2, 3

SIX_BITS = _u(63)


def workspace() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Allocate what one thread needs to inflate two streams, about 110 KB.

    Returns
    -------
    states : (2, 16) uint64
    memories : (2, N) uint64
        Each stream's Huffman tables, :data:`rxrx_kernels.deflate.huffman.TABLE_BYTES`.
    tails : (2, 2048) uint8
        Buffers for the last bytes of each stream.
    """
    return (
        np.zeros((2, FIELDS), np.uint64),
        np.zeros((2, huffman.TABLE_BYTES // 8), np.uint64),
        np.zeros((2, TAIL_BYTES), np.uint8),
    )


@njit(nogil=True, forceinline=True)
def refilled(at: int, bits: int, count: int) -> tuple[int, int, int]:
    """Fill the bit buffer with as many whole bytes as fit: (next byte to load, bits, count), at least 56 bits.

    All are uint64. Only the lowest six bits of ``count`` matter.
    """
    bits |= load64(at) << (count & SIX_BITS)
    at += (~count & SIX_BITS) >> _u(3)
    return at, bits, count | _u(56)
