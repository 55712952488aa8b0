"""Gathering of PNG files' compressed data for a GPU: every stream inflates to its file's filtered rows."""

import struct
import threading
import zlib

import numpy as np
import pytest
from png_writer import SIGNATURE, chunk, container, encoded, filtered, image_header
from rxrx_kernels.png import files as png
from rxrx_kernels.png import gather as png_gather
from rxrx_kernels.png import status as png_status
from rxrx_kernels.png.gather import ALIGNMENT

rng = np.random.default_rng(0)
NOISE = rng.integers(0, 256, (40, 70), dtype=np.uint8)
DEEP = rng.integers(0, 65536, (40, 70)).astype(np.uint16)


def buffer(size):
    """Make aligned memory filled with a pattern."""
    whole = np.full(size + ALIGNMENT, 0xA5, np.uint8)
    start = -whole.ctypes.data % ALIGNMENT
    return whole[start : start + size]


def gather(files, shape=NOISE.shape, depth=8):
    out = buffer(png_gather.room(files))
    return png_gather.gather(files, out, *shape, depth), out


def raw(stream_of, k):
    found, out = stream_of
    return out[found.starts[k] : found.starts[k] + found.sizes[k]].tobytes()


@pytest.mark.parametrize("pixels", [NOISE, DEEP])
@pytest.mark.parametrize("pieces", [None, (1,), (2, 1, 0, 1), (700, 700), (1,) * 9])
def test_streams_inflate_to_the_filtered_rows(pixels, pieces):
    """One IDAT chunk or many, cut anywhere: the raw stream is aligned, and its Adler-32 is returned."""
    files = [encoded(pixels, filters, pieces=pieces) for filters in (0, 1, 2, 3, 4)]
    files[2] += b"bytes behind the end"
    result = gather(files, depth=8 * pixels.itemsize)
    found, out = result
    assert not found.status.any()
    assert not (found.starts % ALIGNMENT).any()
    for k, filters in enumerate((0, 1, 2, 3, 4)):
        wanted = filtered(pixels, filters).tobytes()
        assert zlib.decompress(raw(result, k), -15) == wanted
        assert zlib.adler32(wanted) == found.adlers[k]
        # A decoder may read a whole unit beyond the stream.
        assert found.starts[k] + found.sizes[k] + ALIGNMENT <= out.size


def test_streams_do_not_overlap():
    """Each file writes only its own part of the buffer."""
    files = [encoded(NOISE, 4, level=level, pieces=(100,)) for level in (9, 0, 1)]
    together, out = gather(files)
    ends = together.starts + together.sizes + 4
    assert (ends[:-1] <= together.starts[1:] - 2).all()
    for k, data in enumerate(files):
        alone = gather([data])
        assert raw((together, out), k) == raw(alone, 0)


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        (b"", png_status.CONTAINER),
        (b"\x78\xda\x01", png_status.STREAM),
        (b"\x79\xda" + bytes(20), png_status.STREAM),
        (b"\x78\xdb" + bytes(20), png_status.STREAM),
        (b"\x88\x1c" + bytes(20), png_status.STREAM),
        (b"\x78\xf9" + bytes(20), png_status.STREAM),
    ],
)
def test_what_is_no_zlib_stream_is_refused(stream, status):
    """Refuse no data, half a header, another method, a wrong check, a window above 32 KB, a preset dictionary."""
    (found, _) = gather([container(image_header(40, 70), stream)])
    assert found.status.tolist() == [status]
    assert found.sizes.tolist() == [0]


def test_a_bad_file_is_named_and_its_neighbours_are_whole():
    """Damaged files get the decoder's statuses, and the files beside them are gathered."""
    good = encoded(NOISE)
    stream = zlib.compress(filtered(NOISE, 4).tobytes())
    flipped = bytearray(good)
    flipped[60] ^= 1
    bad = [
        b"",
        good[:-5],
        bytes(flipped),
        encoded(NOISE[:-1]),
        encoded(DEEP),
        SIGNATURE + image_header(40, 70) + chunk(b"IDAT", stream[:9]) + chunk(b"tEXt", b"a\0b")
        + chunk(b"IDAT", stream[9:]) + chunk(b"IEND", b""),
        SIGNATURE + image_header(40, 70) + chunk(b"NEWC", b"") + chunk(b"IDAT", stream) + chunk(b"IEND", b""),
        SIGNATURE + image_header(40, 70, interlace=1) + chunk(b"IDAT", stream) + chunk(b"IEND", b""),
    ]  # fmt: skip
    files = [file for pair in zip(bad, [good] * len(bad)) for file in pair]
    found, out = gather(files)
    plane = np.empty((1, *NOISE.shape), np.uint8)
    assert found.status[::2].tolist() == [png.decode_files([file], plane)[0] for file in bad]
    assert (found.status[::2] != 0).all()
    assert not found.status[1::2].any()
    for k in range(1, len(files), 2):
        assert zlib.decompress(raw((found, out), k), -15) == filtered(NOISE, 4).tobytes()


def test_any_flipped_byte_is_found_or_harmless():
    """A byte changed anywhere in the file is found, or leaves the stream the same."""
    good = encoded(NOISE[:8, :9])
    wanted = raw(gather([good], (8, 9)), 0)
    for place in range(len(good)):
        changed = bytearray(good)
        changed[place] ^= 0x10
        found, out = gather([bytes(changed)], (8, 9))
        assert found.status[0] != 0 or raw((found, out), 0) == wanted, place
    for size in range(len(good)):
        assert gather([good[:size]], (8, 9))[0].status[0] == png_status.CONTAINER


def test_lengths_of_chunks_are_not_trusted():
    """A chunk that claims to be larger than the file, or huge, ends in a status."""
    good = bytearray(encoded(NOISE))
    for claimed in (2**31 - 1, 2**32 - 1, len(good), len(good) + 1):
        struct.pack_into(">I", good, 33, claimed)
        assert gather([bytes(good)])[0].status.tolist() == [png_status.CONTAINER]


def test_threads_gather_side_by_side():
    """Four threads, each with its own part of one buffer, give what one thread gives."""
    files = [encoded(rng.integers(0, 256, (40, 70), dtype=np.uint8)) for _ in range(12)]
    sizes = [png_gather.room(files[3 * t : 3 * t + 3]) for t in range(4)]
    ends = np.cumsum(sizes)
    out = buffer(int(ends[-1]))
    results = [None] * 4

    def work(t):
        results[t] = png_gather.gather(files[3 * t : 3 * t + 3], out[ends[t] - sizes[t] : ends[t]], 40, 70)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for k, data in enumerate(files):
        alone = gather([data])
        part = out[ends[k // 3] - sizes[k // 3] :]
        assert raw((results[k // 3], part), k % 3) == raw(alone, 0)


def test_misuse_is_refused():
    """Refuse a buffer that is too small, unaligned or of another kind, and another bit depth."""
    files = [encoded(NOISE)]
    size = png_gather.room(files)
    for out in (buffer(size)[:-1], buffer(size + 1)[1:], np.zeros((2, size), np.uint8), np.zeros(size, np.int8)):
        with pytest.raises(ValueError, match="out must be"):
            png_gather.gather(files, out, 40, 70)
    with pytest.raises(ValueError, match="bit_depth=12"):
        png_gather.gather(files, buffer(size), 40, 70, 12)


@pytest.mark.real
def test_real_files(real_root):
    """Every real file's stream inflates to 512 rows with the stored Adler-32."""
    paths = sorted(real_root.rglob("*_w*.png"))[:60]
    files = [path.read_bytes() for path in paths]
    result = gather(files, (512, 512))
    assert not result[0].status.any()
    for k in range(len(files)):
        rows = zlib.decompress(raw(result, k), -15)
        assert len(rows) == 512 * 513
        assert zlib.adler32(rows) == result[0].adlers[k]
