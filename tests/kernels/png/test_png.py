"""The PNG container check: whole files pass, and damaged ones are refused with a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rxrx_kernels.png import files as png


def encoded(height=20, width=30, mode="L", seed=0):
    shape = (height, width) if mode == "L" else (height, width, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, "PNG", compress_level=9)
    return buffer.getvalue()


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_a_whole_file_passes(mode, channels):
    """The header is what Pillow wrote, and trailing bytes are tolerated."""
    data = encoded(mode=mode)
    for version in (data, np.frombuffer(data, np.uint8), data + b"trailing"):
        found = png.verify(version)
        assert (found.height, found.width, found.bit_depth, found.channels) == (20, 30, 8, channels)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_flipped_bit_passes(data):
    """Any flipped bit from the signature to the end chunk is found."""
    whole = encoded()
    at, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    broken = bytearray(whole)
    broken[at] ^= 1 << bit
    with pytest.raises(png.PngError):
        png.verify(bytes(broken))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(encoded()) - 1))
def test_no_truncated_file_passes(length):
    """Every proper prefix of a file is refused."""
    with pytest.raises(png.PngError, match=r"truncated|empty|not a PNG"):
        png.verify(encoded()[:length])


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"GIF89a" + bytes(40), "not a PNG"),
        (png.SIGNATURE + chunk(b"IDAT", b"x" * 20), "header"),
        (png.SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 5, 8, 0, 0, 0, 0)), "not valid"),
        (
            png.SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 5, 8, 0, 0, 0, 0)) + chunk(b"IEND", b""),
            "no image data",
        ),
    ],
)
def test_reasons_are_said(data, reason):
    """The message gives the reason in words."""
    with pytest.raises(png.PngError, match=reason):
        png.verify(data)
