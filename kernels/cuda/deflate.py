"""Inflate raw deflate streams on a GPU (RFC 1951): one warp a stream, thousands of streams side by side.

**How.** The symbols of a deflate stream must be decoded one after the other, so threads can't share a stream. All 32
lanes of the stream's warp decode every symbol, in the same registers. That costs no more than one lane doing it, and
the lanes exchange nothing. They divide the work in three places:

- Building a block's tables: each lane computes every 32nd entry, by walking the canonical code.
- Copying a match: each lane copies a byte.
- Storing literals: lane k keeps the literal whose position is k modulo 32, and one store writes up to 32 of them. A
  store per byte would load the second-level cache more than anything else does.

**Safe with any input.** A damaged or hostile stream ends with a status. Every step takes at least one bit, bits beyond
the stream's end are zeros and are counted, and each symbol, distance and length is checked before it is used. The
kernel reads only the stream's own 32-bit words and what it has written, and writes only within the output's room. So a
bad stream neither touches its neighbours nor ends the CUDA context.

**Floor.** A literal takes a mask, a look-up in shared memory and a 64-bit shift, each dependent on the one before:
about 29 + 20 cycles on Hopper. A bright RxRx1 channel has 130,000 symbols: x 50 cycles / 1.7 GHz = 3.8 ms per stream,
as long as at most about three streams share a scheduler. 132 multiprocessors x 4 schedulers x 3 = 1,600 streams in 3.8
ms are 110 GB/s of decoded data. A stream's 90 KB in and 263 KB out take 0.2 microseconds of the card's bandwidth. These
numbers are computed; ``make gpu-bench`` measures.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import config, cuda, int32, types, uint32, uint64
from rxrx_kernels.cuda.arrays import inline, on_device
from rxrx_kernels.png import status as png_status

__all__ = ["inflate_batch", "ptx"]

WARP = 32
#: Codes of up to so many bits are looked up. Longer ones are rare by construction, and walked bit by bit.
_FAST_BITS, _FAR_BITS = 10, 9
_FAST, _FAR = 1 << _FAST_BITS, 1 << _FAR_BITS
_LITERALS, _DISTANCES = 288, 32
_SYMBOLS = _LITERALS + _DISTANCES
_LONGEST = 15
# Counts of codes by length, 0 to 15: of literals, then of distances.
_COUNTS = 2 * (_LONGEST + 1)
_FAR_COUNTS = _LONGEST + 1

_OK, _STREAM, _SHORT, _LONG = png_status.OK, png_status.STREAM, png_status.SHORT, png_status.LONG

#: The order of the code lengths' code lengths (section 3.2.7).
_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15], np.uint8)


def _refill(words, at, limit, ahead, bits, held):
    """Fill the bit buffer to at least 32 bits. ``ahead`` is the next word, loaded one call before it is needed."""
    if held < 32:
        bits = bits | (uint64(ahead) << uint64(held))
        held = int32(held + 32)
        at = int32(at + 1)
        ahead = words[at] if at < limit else uint32(0)
    return at, ahead, bits, held


def _walk(bits, longest, counts, symbols, count_at, symbol_at):
    """Decode one canonical code bit by bit: symbol * 16 + length, or 0 if it is no code of up to ``longest`` bits.

    The codes of a length are consecutive numbers, so the number of codes of each length identifies a code.
    """
    code, first, index = int32(0), int32(0), int32(0)
    for length in range(1, longest + 1):
        code = int32(code | int32(bits & uint64(1)))
        bits = bits >> uint64(1)
        count = int32(counts[count_at + length])
        if code < first + count:
            return int32((int32(symbols[symbol_at + index + code - first]) << 4) | length)
        index = int32(index + count)
        first = int32((first + count) << 1)
        code = int32(code << 1)
    return int32(0)


def _make(device, sync):
    """Make the kernel. ``device`` makes device functions, ``sync`` makes a lane's writes visible to its warp."""
    refill, walk = device(_refill), device(_walk)

    def sort(lengths, length_at, size, counts, symbols, count_at, symbol_at):
        """Count the codes of each length and sort the symbols by length.

        Returns 0 if they make a complete canonical code, 1 for a single code of one bit or none at all, which zlib
        accepts for literals and distances too, and -1 for lengths that make no code.
        """
        lane = cuda.threadIdx.x
        if lane <= _LONGEST:
            count = 0
            for i in range(size):
                if lengths[length_at + i] == lane:
                    count += 1
            counts[count_at + lane] = count
        sync()
        left, longest = int32(1), int32(0)
        for length in range(1, _LONGEST + 1):
            count = int32(counts[count_at + length])
            left = int32(2 * left - count)
            if left < 0:
                return int32(-1)
            if count:
                longest = int32(length)
        if 1 <= lane <= _LONGEST:
            place = symbol_at
            for length in range(1, lane):
                place += counts[count_at + length]
            for i in range(size):
                if lengths[length_at + i] == lane:
                    symbols[place] = i
                    place += 1
        sync()
        if left == 0:
            return int32(0)
        return int32(1) if longest <= 1 else int32(-1)

    sort = device(sort)

    def look_up(table, width, counts, symbols, count_at, symbol_at):
        for i in range(cuda.threadIdx.x, 1 << width, WARP):
            table[i] = walk(uint64(i), width, counts, symbols, count_at, symbol_at)

    look_up = device(look_up)

    def flush(out, n, start, pos, literal):
        """Write the literals at positions ``start`` to ``pos``, which lie in one aligned block of 32."""
        place = int32(((pos - 1) & -WARP) + cuda.threadIdx.x)
        if start <= place < pos:
            out[n, place] = literal

    flush = device(flush)

    def kernel(words, starts, sizes, room, out, decoded, status):
        fast = cuda.shared.array(_FAST, types.uint16)
        far = cuda.shared.array(_FAR, types.uint16)
        counts = cuda.shared.array(_COUNTS, types.uint16)
        symbols = cuda.shared.array(_SYMBOLS, types.uint16)
        lengths = cuda.shared.array(_SYMBOLS, types.uint8)
        order = cuda.const.array_like(_ORDER)
        n, lane = cuda.blockIdx.x, cuda.threadIdx.x
        state = int32(status[n])
        sync()
        if state != _OK:
            return
        size, room = int32(sizes[n]), int32(room)
        first = int32(starts[n] // 4)
        limit = int32(first + (size + 3) // 4)
        at, bits, held, pos = first, uint64(0), int32(0), int32(0)
        ahead = words[at] if at < limit else uint32(0)
        # Literals before `kept` are written. The lanes hold the later ones.
        literal, kept = int32(0), int32(0)
        last = False
        while not last and state == _OK:
            at, ahead, bits, held = refill(words, at, limit, ahead, bits, held)
            last = (bits & uint64(1)) != 0
            kind = int32((bits >> uint64(1)) & uint64(3))
            bits, held = bits >> uint64(3), int32(held - 3)
            if kind == 0:
                # A stored block: bytes from the next whole byte on, to be copied.
                bits, held = bits >> uint64(held & 7), int32(held - (held & 7))
                at, ahead, bits, held = refill(words, at, limit, ahead, bits, held)
                length, check = int32(bits & uint64(0xFFFF)), int32((bits >> uint64(16)) & uint64(0xFFFF))
                source = int32((at - first) * 4 - (held >> 3) + 4)
                if length ^ check != 0xFFFF or source + length > size:
                    state = int32(_STREAM)
                elif pos + length > room:
                    state = int32(_LONG)
                else:
                    flush(out, n, kept, pos, literal)
                    for i in range(lane, length, WARP):
                        byte = source + i
                        out[n, pos + i] = (words[first + (byte >> 2)] >> uint32(8 * (byte & 3))) & 255
                    pos = int32(pos + length)
                    kept = pos
                    source = int32(source + length)
                    at = int32(first + (source >> 2))
                    bits, held = uint64(0), int32(0)
                    ahead = words[at] if at < limit else uint32(0)
                    at, ahead, bits, held = refill(words, at, limit, ahead, bits, held)
                    bits, held = bits >> uint64(8 * (source & 3)), int32(held - 8 * (source & 3))
                continue
            literals, distances = int32(_LITERALS), int32(_DISTANCES)
            sync()
            if kind == 1:
                for i in range(lane, _SYMBOLS, WARP):
                    lengths[i] = 8 if i < 144 else 9 if i < 256 else 7 if i < 280 else 8 if i < 288 else 5
            elif kind == 2:
                at, ahead, bits, held = refill(words, at, limit, ahead, bits, held)
                literals = int32((bits & uint64(31)) + uint64(257))
                distances = int32(((bits >> uint64(5)) & uint64(31)) + uint64(1))
                wanted = int32(((bits >> uint64(10)) & uint64(15)) + uint64(4))
                bits, held = bits >> uint64(14), int32(held - 14)
                if literals > 286 or distances > 30:
                    state = int32(_STREAM)
                else:
                    if lane < 19:
                        lengths[lane] = 0
                    sync()
                    for i in range(wanted):
                        at, ahead, bits, held = refill(words, at, limit, ahead, bits, held)
                        if lane == 0:
                            lengths[order[i]] = int32(bits & uint64(7))
                        bits, held = bits >> uint64(3), int32(held - 3)
                    sync()
                    if sort(lengths, 0, 19, counts, symbols, 0, 0) != 0:
                        state = int32(_STREAM)
                    i, previous = int32(0), int32(0)
                    while i < literals + distances and state == _OK:
                        at, ahead, bits, held = refill(words, at, limit, ahead, bits, held)
                        entry = walk(bits, 7, counts, symbols, 0, 0)
                        bits, held = bits >> uint64(entry & 15), int32(held - (entry & 15))
                        symbol, times, value = entry >> 4, int32(1), int32(entry >> 4)
                        if symbol == 16:
                            times, value = int32(3 + int32(bits & uint64(3))), previous
                            bits, held = bits >> uint64(2), int32(held - 2)
                        elif symbol == 17:
                            times, value = int32(3 + int32(bits & uint64(7))), int32(0)
                            bits, held = bits >> uint64(3), int32(held - 3)
                        elif symbol == 18:
                            times, value = int32(11 + int32(bits & uint64(127))), int32(0)
                            bits, held = bits >> uint64(7), int32(held - 7)
                        if (
                            entry == 0
                            or (symbol == 16 and i == 0)
                            or i + times > literals + distances
                            or at > limit + 1
                        ):
                            state = int32(_STREAM)
                        else:
                            for j in range(lane, times, WARP):
                                lengths[i + j] = value
                            i, previous = int32(i + times), value
                    sync()
                    # A block without a code for its end never ends.
                    if state == _OK and lengths[256] == 0:
                        state = int32(_STREAM)
            else:
                state = int32(_STREAM)
            if state == _OK:
                sync()
                made = sort(lengths, 0, literals, counts, symbols, 0, 0)
                made_far = sort(lengths, literals, distances, counts, symbols, _FAR_COUNTS, _LITERALS)
                if made < 0 or made_far < 0:
                    state = int32(_STREAM)
                else:
                    look_up(fast, _FAST_BITS, counts, symbols, 0, 0)
                    look_up(far, _FAR_BITS, counts, symbols, _FAR_COUNTS, _LITERALS)
                sync()
            inside = True
            while inside and state == _OK:
                at, ahead, bits, held = refill(words, at, limit, ahead, bits, held)
                entry = int32(fast[int32(bits & uint64(_FAST - 1))])
                if entry == 0:
                    entry = walk(bits, _LONGEST, counts, symbols, 0, 0)
                bits, held = bits >> uint64(entry & 15), int32(held - (entry & 15))
                symbol = int32(entry >> 4)
                if entry == 0 or at > limit + 1:
                    state = int32(_STREAM)
                elif symbol < 256:
                    if pos < room:
                        if lane == (pos & (WARP - 1)):
                            literal = symbol
                        pos = int32(pos + 1)
                        if pos & (WARP - 1) == 0:
                            flush(out, n, kept, pos, literal)
                            kept = pos
                    else:
                        state = int32(_LONG)
                elif symbol == 256:
                    inside = False
                elif symbol > 285:
                    state = int32(_STREAM)
                else:
                    # Steps of lengths double every four symbols, those of distances every two (section 3.2.5).
                    length, extra = int32(symbol - 254), int32(0)
                    if symbol == 285:
                        length = int32(258)
                    elif symbol > 264:
                        extra = int32((symbol - 261) >> 2)
                        length = int32(((((symbol - 261) & 3) | 4) << extra) + 3)
                    length = int32(length + int32(bits & ((uint64(1) << uint64(extra)) - uint64(1))))
                    bits, held = bits >> uint64(extra), int32(held - extra)
                    at, ahead, bits, held = refill(words, at, limit, ahead, bits, held)
                    entry = int32(far[int32(bits & uint64(_FAR - 1))])
                    if entry == 0:
                        entry = walk(bits, _LONGEST, counts, symbols, _FAR_COUNTS, _LITERALS)
                    bits, held = bits >> uint64(entry & 15), int32(held - (entry & 15))
                    symbol = int32(entry >> 4)
                    distance, extra = int32(symbol + 1), int32(0)
                    if symbol > 3:
                        extra = int32((symbol >> 1) - 1)
                        distance = int32((((symbol & 1) | 2) << extra) + 1)
                    distance = int32(distance + int32(bits & ((uint64(1) << uint64(extra)) - uint64(1))))
                    bits, held = bits >> uint64(extra), int32(held - extra)
                    if entry == 0 or symbol > 29 or distance > pos:
                        state = int32(_STREAM)
                    elif pos + length > room:
                        state = int32(_LONG)
                    else:
                        flush(out, n, kept, pos, literal)
                        sync()
                        source = int32(pos - distance)
                        if distance >= length:
                            for i in range(lane, length, WARP):
                                out[n, pos + i] = out[n, source + i]
                        else:
                            for i in range(lane, length, WARP):
                                out[n, pos + i] = out[n, source + int32(uint32(i) % uint32(distance))]
                        pos = int32(pos + length)
                        kept = pos
        flush(out, n, kept, pos, literal)
        if state == _OK:
            if (at - first) * 32 - held > size * 8:
                state = int32(_STREAM)
            elif pos < room:
                state = int32(_SHORT)
        if lane == 0:
            decoded[n] = pos
            status[n] = state

    return kernel


def _barrier():
    # A block is one warp. The simulator has no barrier for a warp alone.
    if config.ENABLE_CUDASIM:
        return inline(lambda: cuda.syncthreads())
    return inline(lambda: cuda.syncwarp())


_source = _make(inline, _barrier())
_kernel = cuda.jit(_source)


def inflate_batch(
    words: Any, starts: Any, sizes: Any, room: int, out: Any, decoded: Any, status: Any, stream: Any = 0
) -> None:
    """Decode N raw deflate streams (no zlib header, no Adler-32). Queues the work and returns at once.

    Parameters
    ----------
    words : (M,) uint32, on the device
        The streams, as :func:`rxrx_kernels.png.gather.gather` lays them out.
    starts, sizes : (N,) int64, on the device
        First byte of each stream, a multiple of 4, and its bytes. Streams must lie within ``words``.
    room : int
        Bytes that each stream decodes to.
    out : (N, P >= room) uint8, on the device, C-contiguous
    decoded : (N,) int64, on the device
        Receives the number of decoded bytes.
    status : (N,) int32, on the device
        Streams with a status other than 0 are skipped. Receives a status of :mod:`rxrx_kernels.png.status`: OK, STREAM
        (damaged), SHORT or LONG (less or more than ``room`` bytes).
    stream : numba.cuda stream or 0

    Raises
    ------
    ValueError
        If shapes do not fit, or ``room`` is out of range.
    """
    words, starts, sizes, out, decoded, status = map(on_device, (words, starts, sizes, out, decoded, status))
    count = status.shape[0]
    if out.shape[0] != count or out.shape[1] < room or starts.shape[0] != count or sizes.shape[0] != count:
        raise ValueError(f"{count} statuses, {starts.shape[0]} streams and an output of {tuple(out.shape)} do not fit")
    if not 0 < room < 2**28:
        raise ValueError(f"room={room}: must be 1 to 2^28 - 1 bytes")
    if count:
        _kernel[count, WARP, stream](words, starts, sizes, room, out, decoded, status)


def ptx(compute_capability: tuple[int, int]) -> dict[str, str]:
    """Compile to PTX without a GPU, as :func:`rxrx_kernels.cuda.orient.ptx`."""
    longs, numbers = types.Array(types.int64, 1, "C"), types.Array(types.int32, 1, "C")
    words, out = types.Array(types.uint32, 1, "C"), types.Array(types.uint8, 2, "C")
    signature = types.void(words, longs, longs, types.int64, out, longs, numbers)
    return {"inflate": cuda.compile_ptx(_source, signature, cc=compute_capability)[0]}
