"""zlib streams, whole, crafted bit by bit and damaged, and our inflater between canaries."""

from __future__ import annotations

import zlib

import numpy as np
from numba import njit
from rxrx_kernels.deflate import libdeflate
from rxrx_kernels.deflate import pair as inflater

ROOM = inflater.ROOM
ADLER32 = np.uint64(libdeflate.functions().adler32)


@njit
def inflate_all(sources, sizes, targets, expected, phases, states, tables, tails, adler32):
    """Inflate streams in two slots, in order. A stream that is done makes room for the next."""
    states[:] = np.uint64(0)
    held, following = [-1, -1], 0
    while True:
        for slot in range(2):
            if held[slot] < 0 and following < sources.size:
                source, size = sources[following], sizes[following]
                inflater.begin(states[slot], source, size, targets[following], expected[following])
                held[slot] = following
                following += 1
        if held[0] < 0 and held[1] < 0:
            return
        inflater.work(states, tables, tails, adler32)
        for slot in range(2):
            if held[slot] >= 0 and states[slot, inflater.PHASE] != inflater.BUSY:
                phases[held[slot]] = states[slot, inflater.PHASE]
                held[slot] = -1
                states[slot, inflater.PHASE] = inflater.FREE


def guarded(array, size):
    """Make an array of ``size`` bytes with 64 canary bytes before and behind, and a check that they are unchanged."""
    whole = np.full(size + 128, 0xC5, np.uint8)

    def alive():
        return (whole[:64] == 0xC5).all() and (whole[64 + size :] == 0xC5).all()

    whole[64 : 64 + size] = array
    return whole[64 : 64 + size], alive


class Guarded:
    """The inflater with its workspace and targets between canaries."""

    def __init__(self):
        self.work, self.checks = [], []
        for array in inflater.workspace():
            memory, alive = guarded(array.view(np.uint8).ravel(), array.nbytes)
            self.work.append(memory.view(array.dtype).reshape(array.shape))
            self.checks.append(alive)

    def inflate(self, streams, sizes):
        """Inflate streams: each one's bytes, or None if refused. Nothing but the targets may change."""
        targets = [guarded(np.full(size + ROOM, 0x5A, np.uint8), size + ROOM) for size in sizes]
        sources = [np.frombuffer(stream, np.uint8) for stream in streams]
        phases = np.zeros(len(streams), np.int64)
        inflate_all(
            np.array([source.ctypes.data for source in sources], np.uint64),
            np.array([len(source) for source in sources], np.uint64),
            np.array([target.ctypes.data for target, _ in targets], np.uint64),
            np.array(sizes, np.uint64),
            phases,
            *self.work,
            ADLER32,
        )
        assert all(alive() for _, alive in targets)
        assert all(alive() for alive in self.checks)
        assert set(phases.tolist()) <= {int(inflater.DONE), int(inflater.FAILED)}
        return [
            target[:size].tobytes() if phase == inflater.DONE else None
            for (target, _), size, phase in zip(targets, sizes, phases)
        ]


def by_zlib(stream, size):
    """Inflate with zlib: the bytes, or None unless the stream is whole and holds ``size`` bytes."""
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(stream, size + 1)
    except zlib.error:
        return None
    return found if unpacker.eof and len(found) == size else None


def packed(data, level=6, strategy=zlib.Z_DEFAULT_STRATEGY, memory=8, flushes=(), window=15):
    """Write a zlib stream. ``flushes``: (position, mode) at which blocks end early."""
    packer, parts, start = zlib.compressobj(level, zlib.DEFLATED, window, memory, strategy), [], 0
    for position, mode in flushes:
        parts += [packer.compress(data[start:position]), packer.flush(mode)]
        start = position
    return b"".join([*parts, packer.compress(data[start:]), packer.flush()])


class Bits:
    """A deflate stream written bit by bit. Numbers are written lowest bit first, codes highest bit first."""

    def __init__(self):
        self.bits = []

    def number(self, value, size):
        self.bits += [(value >> k) & 1 for k in range(size)]
        return self

    def code(self, value, size):
        self.bits += [(value >> k) & 1 for k in range(size - 1, -1, -1)]
        return self

    def stream(self, text=b""):
        """Return the stream with zlib's header and the Adler-32 of ``text``."""
        deflated = np.packbits(np.array(self.bits, np.uint8), bitorder="little").tobytes()
        return b"\x78\x01" + deflated + zlib.adler32(text).to_bytes(4, "big")


def dynamic(lengths, literals, distances, precode=None):
    """Write the header of a last block with dynamic codes: every symbol's code length, without repeats."""
    order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
    precode = precode or {symbol: 4 for symbol in range(16)}
    bits = Bits().number(1, 1).number(2, 2).number(literals - 257, 5).number(distances - 1, 5).number(15, 4)
    for symbol in order:
        bits.number(precode.get(symbol, 0), 3)
    for length in lengths:
        bits.code(length, 4)
    return bits


def damaged(rng, stream):
    """Damage a stream in one to three places."""
    data = bytearray(stream)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, len(data)))
        match rng.integers(0, 5):
            case 0:
                data[at] ^= 1 << int(rng.integers(0, 8))
            case 1:
                data[at] = rng.integers(0, 256)
            case 2:
                del data[at : at + int(rng.integers(1, 9))]
            case 3:
                data[at:at] = rng.bytes(int(rng.integers(1, 9)))
            case 4:
                data[at : at + 3] = b"\xff" * 3
        if not data:
            break
    return bytes(data)


def with_its_sum(stream):
    """Correct the Adler-32 of a damaged stream, if zlib can inflate it: (stream, size)."""
    unpacker, found = zlib.decompressobj(-15), b""
    try:
        found = unpacker.decompress(stream[2:], 1 << 20)
    except zlib.error:
        return stream, 5000
    if not unpacker.eof:
        return stream, len(found)
    end = len(stream) - len(unpacker.unused_data)
    return stream[:end] + zlib.adler32(found).to_bytes(4, "big"), len(found)
