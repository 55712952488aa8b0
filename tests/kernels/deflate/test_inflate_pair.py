"""The inflater for two streams: it inflates to the same bytes as zlib, and stays within its memory.

It may refuse a stream that zlib takes, because libdeflate then inflates it. The tests show that this does not happen to
streams of real writers, and that it never takes a stream that zlib refuses.
"""

import ctypes
import io
import mmap
import os
import zlib

import numpy as np
import pytest
from deflate_streams import ADLER32, ROOM, Bits, Guarded, by_zlib, damaged, dynamic, inflate_all, packed, with_its_sum
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from png_writer import container, encoded, filtered, image_header
from rxrx_kernels.deflate import huffman
from rxrx_kernels.deflate import pair as inflater
from rxrx_kernels.png import files as png

#: Damaged streams; RXRX_FUZZ says how many, as in test_decode.py.
CASES = int(os.environ.get("RXRX_FUZZ", "200000")) // 4
STRATEGIES = [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED]


@pytest.fixture(scope="module")
def pair():
    return Guarded()


def texts(size, seed=0):
    """Bytes of every nature: noise, few symbols, runs, repeats at all distances, one symbol that is everywhere."""
    rng = np.random.default_rng(seed)
    skewed = rng.geometric(0.3, size).astype(np.uint8)
    far = np.concatenate([rng.integers(0, 256, 30000, dtype=np.uint8)] * (size // 30000 + 1))[:size]
    return {
        "noise": rng.bytes(size),
        "few symbols": skewed.tobytes(),
        "zeros": bytes(size),
        "runs": np.repeat(rng.integers(0, 256, size // 7 + 1, dtype=np.uint8), 7)[:size].tobytes(),
        "short distances": (b"abcde" * size)[:size],
        "long distances": far.tobytes(),
        "mostly literals": np.where(rng.random(size) < 0.01, 200, skewed).astype(np.uint8).tobytes(),
        "rows": filtered(np.add.outer(np.arange(99), rng.integers(0, 9, size // 99)).astype(np.uint8), 4).tobytes(),
    }


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("level", range(10))
def test_all_levels_and_strategies(pair, level, strategy):
    """Streams of every level and strategy of zlib are taken, and inflate to their bytes."""
    everything = list(texts(40000, level).values())
    streams = [packed(data, level, strategy) for data in everything]
    assert pair.inflate(streams, [len(data) for data in everything]) == everything


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 31, 32, 33, 257, 258, 259, 319, 320, 321, 4096])
def test_short_streams(pair, size):
    """Streams so short that source and target end within the margins of the fast loop."""
    everything = [data[:size] for data in texts(5000).values()]
    for level in (0, 1, 9):
        streams = [packed(data, level) for data in everything]
        assert pair.inflate(streams, [len(data) for data in everything]) == everything


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.binary(max_size=300), max_size=12),
    st.integers(1, 12),
    st.integers(0, 9),
    st.sampled_from(STRATEGIES),
    st.integers(1, 9),
    st.integers(9, 15),
    st.lists(
        st.tuples(st.integers(0, 6000), st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_PARTIAL_FLUSH]))
    ),
    st.binary(max_size=40),
)
def test_any_bytes_any_blocks(pair, parts, repeats, level, strategy, memory, window, flushes, behind):
    """Any bytes, window and memory level, blocks cut anywhere, stored blocks between, and bytes behind the stream."""
    data = b"".join(parts) * repeats
    stream = packed(data, level, strategy, memory, sorted(flushes), window)
    found = pair.inflate([stream + behind, packed(b"other" * 500), stream], [len(data), 2500, len(data)])
    assert found == [data, b"other" * 500, data]


def test_thousands_of_blocks(pair):
    """Blocks of a few bytes: tables are built for each block, and kept between blocks of fixed codes."""
    data = texts(30000)["few symbols"]
    for mode in (zlib.Z_SYNC_FLUSH, zlib.Z_PARTIAL_FLUSH):
        streams = [
            packed(data, 9, strategy, 9, [(k, mode) for k in range(0, 30000, 11)])
            for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED)
        ]
        assert pair.inflate(streams, [30000, 30000]) == [data, data]


def lengths_of(literals=257, distances=1, **given):
    lengths = [0] * (literals + distances)
    for symbol, length in given.items():
        lengths[int(symbol[1:])] = length
    return lengths


def test_a_lone_distance_code_is_allowed(pair):
    """Section 3.2.7: a single distance code of one bit, whose other value has no meaning; or no code at all."""
    lengths = lengths_of(258, 1, s97=2, s256=2, s257=1, s258=1)
    one = dynamic(lengths, 258, 1).code(2, 2).code(0, 1).code(0, 1).code(3, 2).stream(b"aaaa")
    none = dynamic(lengths_of(257, 1, s97=1, s256=1), 257, 1).code(0, 1).code(1, 1).stream(b"a")
    assert by_zlib(one, 4) == b"aaaa"
    assert pair.inflate([one, none], [4, 1]) == [b"aaaa", b"a"]
    other_half = dynamic(lengths, 258, 1).code(2, 2).code(0, 1).code(1, 1).code(3, 2).stream(b"aaaa")
    assert by_zlib(other_half, 4) is None
    assert pair.inflate([other_half], [4]) == [None]


@pytest.mark.parametrize(
    ("stream", "size"),
    [
        (b"", 0),
        (packed(b"a" * 40)[:-1], 40),
        (packed(b"a" * 40)[:5], 40),
        (packed(b"a" * 40), 39),
        (packed(b"a" * 40), 41),
        (b"\x79" + packed(b"a")[1:], 1),
        (b"\x88\x1c" + packed(b"a")[2:], 1),
        (b"\x78\xbb" + bytes(4) + packed(b"a")[2:], 1),
        (packed(b"a" * 40)[:-1] + b"!", 40),
        (Bits().number(1, 1).number(3, 2).stream(), 0),
        (Bits().number(1, 1).number(0, 2).number(0, 5).number(3, 16).number(3, 16).number(0, 24).stream(bytes(3)), 3),
        (Bits().number(1, 1).number(0, 2).number(0, 5).number(9, 16).number(65526, 16).stream(), 9),
        (dynamic(lengths_of(257, 1, s97=1, s98=1, s256=1), 257, 1).code(0, 16).stream(), 0),
        (dynamic(lengths_of(257, 1, s97=2, s256=2), 257, 1).code(1, 2).stream(), 0),
        (dynamic(lengths_of(257, 1, s97=1, s98=1), 257, 1).code(0, 16).stream(), 0),
        (dynamic(lengths_of(258, 3, s97=2, s256=2, s257=1, s258=2, s259=2), 258, 3).code(3, 2).stream(), 0),
        (dynamic(lengths_of(), 257, 1, {0: 1, 1: 1, 2: 1}).stream(), 0),
        (dynamic(lengths_of(), 257, 1, {16: 1, 0: 1}).number(255, 8).stream(), 0),
    ],
)
def test_what_is_refused(pair, stream, size):
    """Truncated, of another size, not zlib's, a wrong Adler-32, impossible codes: zlib refuses them too."""
    assert by_zlib(stream, size) is None
    assert pair.inflate([stream, packed(b"whole")], [size, 5]) == [None, b"whole"]


@pytest.mark.parametrize(("length_code", "distance_code"), [(1, 0), (29, 29), (30, 0), (31, 0), (1, 30), (1, 31)])
def test_matches_before_the_start_and_symbols_for_nothing(pair, length_code, distance_code):
    """Refuse a distance to before the first byte, and the symbols 286, 287, 30 and 31, which have no meaning."""
    bits = Bits().number(1, 1).number(1, 2)
    if distance_code >= 30 or length_code >= 30:
        for _ in range(3):
            bits.code(0x30 + 97, 8)
    bits.code(length_code, 7) if length_code < 24 else bits.code(0xC0 + length_code - 24, 8)
    stream = bits.code(distance_code, 5).number(0, 13).code(0, 7).stream()
    for size in (0, 3, 6, 258, 261):
        assert by_zlib(stream, size) is None
        assert pair.inflate([stream], [size]) == [None]


@pytest.mark.parametrize("seed", range(2))
def test_damage_that_no_checksum_tells(pair, seed):
    """Damaged streams with a right Adler-32 are taken as zlib takes them, bit for bit, or refused."""
    rng = np.random.default_rng(seed)
    whole = [
        packed(data, level, strategy, 9)
        for data in texts(3000, seed).values()
        for level, strategy in ((0, 0), (1, 0), (9, 0), (9, zlib.Z_FIXED), (9, zlib.Z_HUFFMAN_ONLY))
    ]
    taken = refused = 0
    for _ in range(CASES // 64):
        cases = [with_its_sum(damaged(rng, whole[rng.integers(len(whole))])) for _ in range(32)]
        found = pair.inflate([stream for stream, _ in cases], [size for _, size in cases])
        for (stream, size), mine in zip(cases, found):
            theirs = by_zlib(stream, size)
            # The inflater may refuse codes that no writer makes. Damage to these streams makes none of them.
            assert mine == theirs
            taken, refused = taken + (mine is not None), refused + (mine is None)
    assert taken > CASES // 20
    assert refused > CASES // 20


@pytest.fixture
def cliffs():
    """Make two 64 KB buffers, (source, target), with an inaccessible page behind each."""
    libc, size = ctypes.CDLL(None, use_errno=True), 16 * mmap.PAGESIZE
    memories, ends = [], []
    for _ in range(2):
        memory = np.frombuffer(mmap.mmap(-1, size + mmap.PAGESIZE), np.uint8)
        ends.append(memory.ctypes.data + size)
        assert libc.mprotect(ctypes.c_void_p(ends[-1]), mmap.PAGESIZE, 0) == 0
        memories.append(memory)
    yield [memory[:size] for memory in memories]
    for end in ends:
        libc.mprotect(ctypes.c_void_p(end), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE)


def test_nothing_is_touched_beyond_the_memory(cliffs):
    """Sources and targets that end at an inaccessible page, whole and damaged streams: no fault."""
    source, target = cliffs
    rng, work = np.random.default_rng(7), inflater.workspace()
    whole = [
        (packed(data, level, strategy, 9, [(700, zlib.Z_SYNC_FLUSH)]), len(data))
        for size in (9, 300, 1500, 20000)
        for data in texts(size).values()
        for level, strategy in ((0, 0), (6, 0), (9, zlib.Z_FIXED))
    ]
    taken = 0
    for k in range(1500):
        stream, size = whole[k % len(whole)]
        if k >= len(whole):
            stream = damaged(rng, stream)
            stream, size = with_its_sum(stream) if k % 2 else (stream, size)
        if not 0 < len(stream) <= source.size or size + ROOM > target.size:
            continue
        source[-len(stream) :] = np.frombuffer(stream, np.uint8)
        phases, end = np.zeros(1, np.int64), np.uint64(target.ctypes.data + target.size - size - ROOM)
        inflate_all(
            np.array([source.ctypes.data + source.size - len(stream)], np.uint64),
            np.array([len(stream)], np.uint64),
            np.array([end], np.uint64),
            np.array([size], np.uint64),
            phases,
            *work,
            ADLER32,
        )
        taken += phases[0] == inflater.DONE
        mine = target[target.size - size - ROOM : target.size - ROOM].tobytes()
        assert phases[0] != inflater.DONE or mine == by_zlib(stream, size)
    assert taken >= len(whole)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_sites_of_any_number_of_files(count, dtype):
    """Any number of files, one of them damaged: each has its own status and its own plane."""
    rng, shape = np.random.default_rng(count), (100, 120)
    pixels = rng.integers(0, 9, (count, *shape)).astype(dtype).cumsum(axis=2).astype(dtype)
    files = [encoded(plane, k % 5, level=1 + k, pieces=(1000, 10)[: k % 3]) for k, plane in enumerate(pixels)]
    stream = bytearray(zlib.compress(filtered(pixels[-1], 4).tobytes()))
    stream[len(stream) // 2] ^= 255
    files[-1] = container(image_header(*shape, 8 * pixels.itemsize), bytes(stream))
    out, scratch = np.empty_like(pixels), png.Scratch(*shape, 8 * pixels.itemsize)
    for scratch.paired in (0, 1 << 40):
        out[:] = 0
        status = png.decode_files(files, out, scratch)
        assert (status[:-1] == 0).all()
        assert status[-1] != 0
        np.testing.assert_array_equal(out[:-1], pixels[:-1])


@pytest.mark.real
def test_no_real_file_is_left_to_libdeflate(pair, real_root):
    """Every real stream is taken, and inflates to the same bytes as by zlib."""
    streams = []
    for path in sorted(real_root.rglob("*.png"))[:36]:
        data, position, stream = path.read_bytes(), 8, b""
        while position < len(data):
            size = int.from_bytes(data[position : position + 4], "big")
            stream += data[position + 8 : position + 8 + size] * (data[position + 4 : position + 8] == b"IDAT")
            position += 12 + size
        streams.append(stream)
    assert len(streams) == 36
    assert pair.inflate(streams, [512 * 513] * 36) == [zlib.decompress(stream) for stream in streams]


def test_files_as_pillow_writes_them_are_taken(pair):
    """Streams that Pillow writes of noise on a slope are taken at every level."""
    rng = np.random.default_rng(0)
    pixels = (np.add.outer(np.arange(200), np.arange(300)) // 3 + rng.integers(0, 5, (200, 300))).astype(np.uint8)
    for level in range(10):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=level)
        data = buffer.getvalue()
        size = int.from_bytes(data[33:37], "big")
        stream = data[41 : 41 + size]
        if len(stream) < 65536:
            assert pair.inflate([stream], [200 * 301]) == [zlib.decompress(stream)]


@pytest.mark.parametrize("index_bits", [huffman.LITERALS, huffman.DISTANCES])
def test_the_longest_codes_have_room(pair, index_bits):
    """A code of all lengths up to 15 bits, in which every long code shares a second table with one other."""
    lengths = [0] * 286
    for k in range(14):
        lengths[97 + k] = k + 1
    lengths[111] = 15
    lengths[256] = 15
    bits = dynamic([*lengths, 1], 286, 1)
    text = bytes(range(97, 112)) * 30
    codes = {97 + k: ((1 << (k + 1)) - 2, k + 1) for k in range(14)} | {111: ((1 << 15) - 2, 15)}
    for byte in text:
        bits.code(*codes[byte])
    stream = bits.code((1 << 15) - 1, 15).stream(text)
    assert by_zlib(stream, len(text)) == text
    assert pair.inflate([stream, stream], [len(text)] * 2) == [text, text]
