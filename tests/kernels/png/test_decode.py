"""Decoding whole files: the same bits as Pillow, and every damaged file refused with its reason.

RXRX_FUZZ=200000 python -m pytest tests/kernels/png/test_decode.py -k mutated    runs the fuzzer for longer
"""

import ctypes
import io
import mmap
import os
import pickle
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from png_mutants import HEAD, PIXELS, SHAPE, STREAM, WHOLE, expected, mutants, pixels_of
from png_writer import SIGNATURE, chunk, container, encoded, image_header
from rxrx_kernels.deflate import libdeflate
from rxrx_kernels.png import files as png

MUTATIONS = int(os.environ.get("RXRX_FUZZ", "200000"))


def decode(data, shape, dtype=np.uint8):
    out = np.empty((1, *shape), dtype)
    png.decode_site([data], out)
    return out[0]


def by_pillow(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


@settings(max_examples=120, deadline=None)
@given(
    st.integers(1, 200),
    st.integers(1, 200),
    st.sampled_from([np.uint8, np.uint16]),
    st.integers(0, 9),
    st.lists(st.integers(0, 400), max_size=12),
    st.sampled_from([zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE]),
    st.integers(0, 2**32),
)
def test_as_pillow_decodes(height, width, dtype, level, pieces, strategy, seed):
    """Any size, mix of filters, zlib level and strategy, and any split into IDAT chunks, also empty ones."""
    pixels = pixels_of((height, width), dtype, seed)
    filters = np.random.default_rng(seed).integers(0, 5, height)
    data = encoded(pixels, filters, level=level, pieces=pieces, strategy=strategy)
    np.testing.assert_array_equal(decode(data, pixels.shape, dtype), pixels)
    np.testing.assert_array_equal(by_pillow(data), pixels)


@pytest.mark.parametrize("shape", [(4096, 4096), (1, 4096), (4096, 1), (1, 1), (4095, 31)])
def test_from_one_pixel_to_sixteen_million(shape):
    """The smallest and the largest sizes decode to their pixels."""
    pixels = pixels_of(shape)
    data = encoded(pixels, np.arange(shape[0]) % 5, level=1)
    np.testing.assert_array_equal(decode(data, shape), pixels)


def test_a_byte_in_every_chunk():
    """A file with as many IDAT chunks as compressed bytes decodes."""
    pixels = pixels_of((20, 30))
    np.testing.assert_array_equal(decode(encoded(pixels, pieces=[1] * 5000), pixels.shape), pixels)


def test_other_chunks_and_trailing_bytes_are_passed_over():
    """Skip gamma, size, text, time and private chunks around the image data, and bytes behind the end."""
    pixels = pixels_of((20, 30))
    before = chunk(b"gAMA", bytes(4)) + chunk(b"pHYs", bytes(9)) + chunk(b"tEXt", b"a\0b") + chunk(b"prVt", b"")
    data = encoded(pixels, before=before, after=chunk(b"tIME", bytes(7)) + chunk(b"tEXt", b"c\0d")) + b"trailing"
    np.testing.assert_array_equal(decode(data, pixels.shape), pixels)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_any_bytes_are_taken(wrap):
    """Take bytes, views and arrays, writeable or not."""
    pixels = pixels_of((20, 30))
    np.testing.assert_array_equal(decode(wrap(encoded(pixels)), pixels.shape), pixels)


@pytest.mark.real
def test_real_files(real_root):
    """Every real file decodes as by Pillow, into the samples of one batch array."""
    paths = sorted(real_root.rglob("*.png"))
    assert len(paths) >= 120
    batch = np.empty((len(paths) // 6, 6, 512, 512), np.uint8)
    for sample, start in zip(batch, range(0, len(paths), 6)):
        png.decode_site([np.fromfile(path, np.uint8) for path in paths[start : start + 6]], sample)
    for plane, path in zip(batch.reshape(-1, 512, 512), paths):
        np.testing.assert_array_equal(plane, np.asarray(Image.open(path)))


# Damage
# ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"GIF89a" + bytes(40), "not a PNG file"),
        (WHOLE[:20], "truncated: 20 bytes"),
        (WHOLE[:-30], "truncated in chunk 'IDAT'"),
        (WHOLE[:-12], r"end chunk \(IEND\) is missing"),
        (WHOLE[:60] + bytes([WHOLE[60] ^ 1]) + WHOLE[61:], "CRC-32 of chunk 'IDAT' at byte 33 is wrong"),
        (container(HEAD, STREAM[:-1] + bytes([STREAM[-1] ^ 1])), "Adler-32 is wrong"),
        (container(HEAD, STREAM[:-6]), "zlib stream"),
        (container(HEAD, b"\x78\xda" + b"\xff" * 40), "zlib stream"),
        (container(HEAD, zlib.compress(bytes(131))), "ends before the last row"),
        (container(HEAD, zlib.compress(bytes(133))), "more image data"),
        (container(HEAD, zlib.compress(b"\5" + bytes(131))), "unknown filter"),
        (container(HEAD, b""), "no image data"),
        (SIGNATURE + HEAD + chunk(b"IEND", b""), "no image data"),
        (
            SIGNATURE
            + HEAD
            + chunk(b"IDAT", STREAM[:9])
            + chunk(b"tEXt", b"")
            + chunk(b"IDAT", STREAM[9:])
            + WHOLE[-12:],
            "interrupted",
        ),
        (container(HEAD, STREAM, before=HEAD), "must know"),
        (container(HEAD, STREAM, before=chunk(b"ABCD", b"")), "must know"),
        (container(image_header(12, 11), STREAM), "is 12 x 11 pixels .* but 12 x 10 pixels of 8-bit"),
        (container(image_header(2**31 - 1, 2**31 - 1), STREAM), "is 2147483647 x 2147483647 pixels"),
        (container(image_header(0, 10), STREAM), "header is not valid"),
        (container(image_header(*SHAPE, depth=16), STREAM), "bit depth 16"),
        (container(image_header(*SHAPE, depth=4), STREAM), "bit depth 4"),
        (container(image_header(*SHAPE, color=2), STREAM), "colour type 2"),
        (container(image_header(*SHAPE, color=3), STREAM), "colour type 3"),
        (container(image_header(*SHAPE, color=5), STREAM), "header is not valid"),
        (container(image_header(*SHAPE, interlace=1), STREAM), "interlaced"),
        (container(image_header(*SHAPE, filtering=1), STREAM), "header is not valid"),
    ],
)
def test_every_damage_has_a_reason(data, reason):
    """The message says what is wrong, and the index with which file; the others are decoded."""
    out = np.zeros((3, *SHAPE), np.uint8)
    with pytest.raises(png.PngError, match=reason) as caught:
        png.decode_site([WHOLE, data, WHOLE], out)
    assert caught.value.index == 1
    np.testing.assert_array_equal(out[[0, 2]], np.stack([PIXELS, PIXELS]))


def test_an_error_survives_a_process_boundary():
    """An error keeps its message and index through pickle, as between worker processes."""
    error = pickle.loads(pickle.dumps(png.PngError("damaged", 4)))
    assert (str(error), error.index) == ("damaged", 4)


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ((8, 0, False), 1),
        ((16, 0, False), 1),
        ((8, 0, True), 0),
        ((4, 0, False), 0),
        ((8, 2, False), 0),
        ((8, 3, False), 0),
    ],
)
def test_what_is_supported(header, taken):
    """Only grayscale of 8 or 16 bits that is not interlaced is supported."""
    assert png.supported(png.Header(10, 12, *header)) == bool(taken)


@pytest.mark.parametrize(
    ("files", "out", "scratch", "reason"),
    [
        ([WHOLE], np.empty((2, *SHAPE), np.uint8), None, "1 files for 2 planes"),
        ([WHOLE], np.empty((1, *SHAPE), np.int32), None, "out must be"),
        ([], np.empty((0, *SHAPE), np.uint8), None, "out must be"),
        ([WHOLE], np.empty((1, *SHAPE[::-1]), np.uint8).transpose(0, 2, 1), None, "C-contiguous"),
        ([WHOLE], np.broadcast_to(np.uint8(0), (1, *SHAPE)), None, "C-contiguous"),
        ([WHOLE], np.empty((1, *SHAPE), np.uint8), (12, 11, 8), "scratch is for"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(files, out, scratch, reason):
    """Arrays are checked before the compiled loop, which trusts its arguments."""
    with pytest.raises(ValueError, match=reason):
        png.decode_site(files, out, scratch and png.Scratch(*scratch))


def paired_scratch():
    """Make a scratch that uses the inflater for two streams for small files too."""
    scratch = png.Scratch(*SHAPE)
    scratch.paired = 0
    return scratch


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow(3)) for seed in range(2, 12))])
def test_mutated_files(seed):
    """A damaged file is refused, or decodes to the same pixels as zlib and the plain loop."""
    source, decoded, scratch = mutants(seed), 0, paired_scratch() if seed else None
    out = np.empty((64, *SHAPE), np.uint8)
    for _ in range(MUTATIONS // 4 // len(out)):
        files = [next(source) for _ in out]
        status = png.decode_files(files, out, scratch)
        for data, found, plane in zip(files, status, out):
            wanted = expected(data)
            assert (found == 0) == (wanted is not None), (
                png.status_text(int(found), data, out) if found else "was decoded"
            )
            if wanted is not None:
                decoded += 1
                assert (plane == wanted).all()
    assert decoded > MUTATIONS // 50


def test_no_byte_behind_a_file_is_read():
    """Files may end where readable memory ends: reading one byte more would end the process."""
    size = mmap.PAGESIZE * 2
    memory = mmap.mmap(-1, size)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address + mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
    page = np.frombuffer(memory, np.uint8, mmap.PAGESIZE)
    out, scratch = np.empty((1, *SHAPE), np.uint8), paired_scratch()
    try:
        for end in range(1, len(WHOLE) + 1):
            page[-end:] = np.frombuffer(WHOLE[:end], np.uint8)
            assert (png.decode_files([page[-end:]], out, scratch)[0] == 0) == (end == len(WHOLE))
        source = mutants(9)
        for _ in range(2000):
            data = next(source)[: mmap.PAGESIZE]
            if data:
                page[-len(data) :] = np.frombuffer(data, np.uint8)
                png.decode_files([page[-len(data) :]], out, scratch)
    finally:
        libc.mprotect(ctypes.c_void_p(address + mmap.PAGESIZE), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE)
    np.testing.assert_array_equal(decode(WHOLE, SHAPE), PIXELS)


def test_nothing_outside_of_the_planes_is_written():
    """Other samples of the batch belong to other threads. They are unchanged, also when a file is damaged."""
    source, scratch = mutants(5), paired_scratch()
    batch = np.full((3, 4, *SHAPE), 0x5A, np.uint8)
    for _ in range(300):
        png.decode_files([next(source) for _ in range(4)], batch[1], scratch)
        assert (batch[[0, 2]] == 0x5A).all()


def test_the_time_is_told():
    """Inflating and unfiltering are added to what is there, and are no longer than the call."""
    pixels = pixels_of((512, 512), seed=4)
    files, out, seconds = [encoded(pixels)] * 6, np.empty((6, 512, 512), np.uint8), np.array([100.0, 200.0])
    png.decode_files(files, out)
    start = time.perf_counter()
    png.decode_files(files, out, seconds=seconds)
    whole = time.perf_counter() - start
    inflating, unfiltering = seconds - (100, 200)
    assert 0 < unfiltering < inflating < whole
    assert 0.5 * whole < inflating + unfiltering <= whole


def test_threads_share_nothing():
    """Many threads, each with its own scratch, and two sizes in turn: every image is right."""
    shapes = [(64, 80), (65, 79)]
    pictures = {(shape, seed): pixels_of(shape, seed=seed) for shape in shapes for seed in range(8)}
    files = {key: encoded(pixels, np.arange(len(pixels)) % 5, pieces=(100,)) for key, pixels in pictures.items()}

    def work(k):
        key = (shapes[k % 2], k % 8)
        return (decode(files[key], key[0]) == pictures[key]).all()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(2000)))


def test_the_scratch_goes_with_its_thread():
    """A thread's buffers and libdeflate's tables are freed when it ends."""
    finalizers = []

    def work():
        decode(WHOLE, SHAPE)
        finalizers.append(png._threads.scratch.decompressor._free)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not finalizers[0].alive


def test_a_missing_libdeflate_is_said(monkeypatch):
    """Without libdeflate, the message says what to install."""
    libdeflate._library.cache_clear()
    libdeflate.functions.cache_clear()
    monkeypatch.setitem(sys.modules, "deflate", None)
    try:
        assert not libdeflate.available()
        with pytest.raises(ImportError, match="pip install 'deflate"):
            png.Scratch(10, 10)
    finally:
        monkeypatch.undo()
        libdeflate._library.cache_clear()
        libdeflate.functions.cache_clear()
    assert libdeflate.available()


@pytest.mark.slow(6)
def test_a_second_process_compiles_nothing():
    """The second process loads all compiled code from Numba's cache, for both depths, and stores nothing more."""
    script = """
import numpy as np
from png_mutants import pixels_of
from png_writer import encoded
from rxrx_kernels.png import files
for dtype in (np.uint8, np.uint16):
    pixels = pixels_of((130, 40), dtype)
    out = np.empty((2, 130, 40), dtype)
    files.decode_site([encoded(pixels), encoded(pixels, 1)], out)
    assert (out == pixels).all()
"""
    support = Path(__file__).parents[2] / "support"
    environment = os.environ | {"NUMBA_DEBUG_CACHE": "1", "PYTHONPATH": str(support)}
    first, second = (
        subprocess.run(
            [sys.executable, "-P", "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        for _ in range(2)
    )
    assert "data loaded" in second.stdout
    assert "data saved" not in second.stdout, first.stdout


@pytest.mark.slow(30)
@pytest.mark.skipif("NUMBA_BOUNDSCHECK" in os.environ, reason="is the run with bounds checking itself")
def test_with_bounds_checking(tmp_path):
    """Run these tests again with every index of compiled code checked (addresses are not: see cliffs)."""
    here = Path(__file__).parent
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path), "RXRX_FUZZ": "4000"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        str(here / "test_unfilter.py"),
        str(here.parent / "deflate" / "test_inflate_pair.py"),
        __file__,
    ]
    run = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, cwd=here.parents[2])
    assert run.returncode == 0, run.stdout[-3000:]
