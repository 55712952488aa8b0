"""TIFF files of every make: against tifffile, and refused with the reason where they can't be read."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from rxrx_fast.stores import tiff

PIXELS = np.random.default_rng(0).integers(0, 65536, (40, 56), dtype=np.uint16)


def written(array, **options):
    """The bytes of a file that tifffile writes, (N,) uint8."""
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return np.frombuffer(file.getvalue(), np.uint8)


def moved_strips():
    """A file whose strips lie on the disk in the opposite order, as nothing forbids."""
    whole = written(PIXELS, rowsperstrip=8)
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        page = file.pages[0]
        offsets, sizes, tag = page.dataoffsets, page.databytecounts, page.tags["StripOffsets"]
    data = bytearray(whole)
    for new, old in zip(offsets, offsets[::-1]):
        data[new : new + sizes[0]] = whole[old : old + sizes[0]].tobytes()
    entries = np.array(offsets[::-1], "<u4").tobytes()
    assert tag.dtype == 4
    data[tag.valueoffset : tag.valueoffset + len(entries)] = entries
    return np.frombuffer(bytes(data), np.uint8)


def by_pillow():
    """LZW, which tifffile can't decode without another package."""
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "TIFF", compression="tiff_lzw")
    return np.frombuffer(file.getvalue(), np.uint8)


FILES = {
    "one strip": (written(PIXELS), True),
    "strips": (written(PIXELS, rowsperstrip=5), True),
    "strips in any order": (moved_strips(), True),
    "big-endian": (written(PIXELS, byteorder=">", rowsperstrip=7), True),
    "8 bits": (written((PIXELS >> 8).astype(np.uint8)), True),
    "64-bit offsets": (written(PIXELS, bigtiff=True), False),
    "deflate": (written(PIXELS, compression="zlib", predictor=True), False),
    "tiles": (written(PIXELS, tile=(16, 16)), False),
    "LZW": (by_pillow(), False),
}


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_those_that_were_written(name):
    """Bit for bit, with size and depth known from the header; plain files without another library."""
    data, plain = FILES[name]
    expected = (PIXELS >> 8).astype(np.uint8) if name == "8 bits" else PIXELS
    assert tiff.is_tiff(data)
    assert (tiff._plain(data) is not None) == plain
    kind, pixels = tiff.read(data)
    np.testing.assert_array_equal(pixels(), expected)
    assert kind == ((40, 56), expected.dtype)


def test_channels_of_one_file():
    """A stack of pages and interleaved samples keep their shapes, and other types their names."""
    planes = np.stack([PIXELS, PIXELS[::-1], PIXELS // 2])
    for array, options in (
        (planes, {"photometric": "minisblack"}),
        (planes.transpose(1, 2, 0), {"photometric": "rgb"}),
    ):
        data = written(array, **options)
        kind, pixels = tiff.read(data)
        np.testing.assert_array_equal(pixels(), array)
        assert kind == (array.shape, np.uint16)
    assert tiff.read(written(PIXELS.astype(np.float32)))[0] == ((40, 56), np.float32)


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_refused(name):
    """At any length that lacks pixels: never zeros in their place."""
    whole = FILES[name][0]
    expected, refused = tiff.read(whole)[1](), 0
    for size in (*range(0, 400, 7), *range(400, whole.size, 499), whole.size - 1):
        try:
            found = tiff.read(whole[:size])[1]()
        except ValueError:
            refused += 1
        else:
            # What is missing was behind the pixels.
            np.testing.assert_array_equal(found, expected)
            assert size > whole.size // 2
    assert refused > 50


def test_damaged_headers_never_crash():
    """1,000 files with a byte changed in the header or the tags: read, or refused in words."""
    rng = np.random.default_rng(1)
    refused = 0
    for name in ("strips", "deflate"):
        for _ in range(500):
            data = FILES[name][0].copy()
            data[rng.integers(0, 400)] = rng.integers(0, 256)
            try:
                kind, pixels = tiff.read(data)
                if np.prod(kind.shape) == PIXELS.size:
                    pixels()
            except ValueError:
                refused += 1
    assert 0 < refused < 1000
