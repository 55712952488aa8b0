"""The statuses of a PNG file after decoding: 0, or what is wrong with it.

Compiled loops can't raise exceptions without the interpreter, so each file ends with a status.
:func:`rxrx_kernels.png.files.status_text` puts it into words.
"""

from __future__ import annotations

__all__ = [
    "CONTAINER",
    "CRITICAL",
    "FILTER",
    "LONG",
    "NOT_DECODED",
    "OK",
    "ORDER",
    "OTHER_KIND",
    "OTHER_SIZE",
    "REASONS",
    "ROOM",
    "SHORT",
    "STREAM",
]

OK = 0
#: Whatever :func:`rxrx_kernels.png.container.verify` finds, which also has the words for it.
CONTAINER = 1
#: Another colour type or bit depth, or interlaced.
OTHER_KIND = 2
#: Another height or width.
OTHER_SIZE = 3
NOT_DECODED = 4
#: The zlib stream is damaged.
STREAM = 5
#: Less, or more, image data than the size needs.
SHORT = 6
LONG = 7
#: An unknown row filter.
FILTER = 8
#: Another chunk between two IDAT chunks.
ORDER = 9
#: An unknown chunk that a decoder must not skip.
CRITICAL = 10
#: More image data than the file has bytes.
ROOM = 11

#: Words for the statuses that need no numbers.
REASONS = {
    CONTAINER: "not a whole PNG file",
    NOT_DECODED: "was not decoded",
    STREAM: "damaged: the compressed image data is not a valid zlib stream, or its Adler-32 is wrong",
    SHORT: "the image data ends before the last row",
    LONG: "holds more image data than its size allows",
    FILTER: "damaged: a row has an unknown filter",
    ORDER: "the image data (IDAT) is interrupted by another chunk",
    CRITICAL: "holds a chunk that a decoder must know, but is in no specification",
    ROOM: "the image data is larger than the file",
}
