"""Cases of test_cuda_png.py: ``python cuda_png_cases.py CASE``, on a GPU or (NUMBA_ENABLE_CUDASIM=1) the simulator."""

import random
import sys
import zlib

import numpy as np
from numba import config, cuda
from png_writer import container, encoded, filtered, image_header
from rxrx_kernels.cuda import deflate, png
from rxrx_kernels.png import gather as png_gather
from rxrx_kernels.png import status as png_status

rng = np.random.default_rng(0)
SIMULATED = bool(config.ENABLE_CUDASIM)
ALIGNMENT = png_gather.ALIGNMENT
NOISE = rng.normal(0, 6, 512 * 513).astype(np.int8).tobytes()


def deflated(data, level=6, strategy=zlib.Z_DEFAULT_STRATEGY, cut=0):
    """Write a raw deflate stream. ``cut`` > 0 starts a new block after so many bytes."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    parts = []
    for start in range(0, len(data), cut or len(data)):
        parts += [packer.compress(data[start : start + (cut or len(data))])]
        parts += [packer.flush(zlib.Z_FULL_FLUSH)] if cut else []
    return b"".join(parts) + packer.flush()


def inflate(streams, room, margin=5):
    """Run the kernel: (out, decoded, status). Nothing may write to the margin behind the output's room."""
    starts, buffer = [], b""
    for stream in streams:
        starts.append(len(buffer))
        # These bytes behind each stream must not be read as a part of it.
        buffer += stream + b"\xff" * (2 * ALIGNMENT - len(stream) % ALIGNMENT)
    words = cuda.to_device(np.frombuffer(buffer, np.uint32))
    out = cuda.to_device(np.full((len(streams), room + margin), 0xA5, np.uint8))
    decoded, status = cuda.to_device(np.full(len(streams), -1)), cuda.to_device(np.zeros(len(streams), np.int32))
    sizes = cuda.to_device(np.array([len(stream) for stream in streams]))
    deflate.inflate_batch(words, cuda.to_device(np.array(starts)), sizes, room, out, decoded, status)
    out, decoded, status = out.copy_to_host(), decoded.copy_to_host(), status.copy_to_host()
    assert (out[:, room:] == 0xA5).all(), "written behind the output's room"
    return out[:, :room], decoded, status


def blocks():
    """Stored, fixed and dynamic blocks, several of them, matches near and far, long codes, one byte."""
    size = 700 if SIMULATED else 40000
    noise = NOISE[:size]
    text = (b"abcabcabcd" * size)[:size]
    far = (NOISE[: size // 2] * 2)[:size]
    skewed = np.concatenate([np.repeat(np.arange(20, dtype=np.uint8), [2**k for k in range(20)])[:size]])
    skewed = rng.permutation(np.resize(skewed, size)).astype(np.uint8).tobytes()
    texts = [noise, noise, noise, text, text, far, skewed, b"\0" * size, noise]
    kinds = [(6,), (0,), (6, zlib.Z_FIXED), (9,), (6, zlib.Z_HUFFMAN_ONLY), (9,), (9,), (9,), (9, 0, 200)]
    streams = [deflated(data, *kind) for data, kind in zip(texts, kinds)]
    out, decoded, status = inflate(streams, size)
    assert not status.any(), status
    assert (decoded == size).all(), decoded
    for k, data in enumerate(texts):
        assert out[k].tobytes() == data, k
    out, decoded, status = inflate([deflated(b"x"), deflated(b"y", 0)], 1)
    assert out.tobytes() == b"xy"
    assert not status.any()


def damage():
    """Any damage ends with a status or, by chance, as zlib decodes it. Neighbours are whole; margins stay unwritten."""
    size = 120 if SIMULATED else 3000
    data = NOISE[:size]
    good = [deflated(data), deflated(data, 6, zlib.Z_FIXED), deflated(data, 0), deflated((b"abcd" * size)[:size])]
    random.seed(0)
    bad = []
    for _ in range(10 if SIMULATED else 4000):
        stream = bytearray(random.choice(good))
        kind = random.randrange(3)
        if kind == 0:
            stream[random.randrange(len(stream))] ^= 1 << random.randrange(8)
        elif kind == 1:
            del stream[random.randrange(1, len(stream)) :]
        else:
            stream[:20] = random.randbytes(20)
        bad.append(bytes(stream))
    # A block of a reserved kind; a stored one whose sizes contradict; a distance before the start; two that lie.
    crafted = [b"\x07" + bytes(30), b"\x01\x05\x00\x00\x00hello", b"\x4b\x04\x42\x00\x00", b"", b"\xed\xfd" + bytes(9)]
    streams = [s for pair in zip(bad + crafted, [good[0]] * (len(bad) + len(crafted))) for s in pair]
    out, decoded, status = inflate(streams, size)
    for k, stream in enumerate(streams):
        try:
            unpacker = zlib.decompressobj(-15)
            wanted = unpacker.decompress(stream)
            whole = unpacker.eof
        except zlib.error:
            whole = False
        if whole and len(wanted) == size:
            assert status[k] == 0, k
            assert out[k].tobytes() == wanted, k
        elif whole:
            assert status[k] == (png_status.SHORT if len(wanted) < size else png_status.LONG), (k, status[k])
        else:
            # A stream that zlib can't finish has no end, or is larger than its room before it.
            assert status[k] in (png_status.STREAM, png_status.LONG), (k, status[k])
        assert 0 <= decoded[k] <= size
    # A stream that was refused before is skipped.
    out = cuda.to_device(np.full((1, size), 7, np.uint8))
    status = cuda.to_device(np.array([9], np.int32))
    one = cuda.to_device(np.zeros(1, np.int64))
    deflate.inflate_batch(cuda.to_device(np.zeros(8, np.uint32)), one, one, size, out, one, status)
    assert status.copy_to_host()[0] == 9
    assert (out.copy_to_host() == 7).all()


def adler():
    """Sums of any size and content are zlib's. A wrong one is a damaged stream, and an earlier status stays."""
    for size in (1, 31, 300) if SIMULATED else (1, 255, 256, 512 * 513, 2_000_003):
        data = rng.integers(0, 256, (4, size + 3), dtype=np.uint8)
        data[1] = 255
        sums = np.array([zlib.adler32(row[:size].tobytes()) for row in data], np.uint32)
        sums[2] ^= 1 << 16
        sums[3] ^= 1
        status = cuda.to_device(np.array([0, 0, 0, png_status.FILTER], np.int32))
        png.check_adler_batch(cuda.to_device(data), size, cuda.to_device(sums), status)
        assert status.copy_to_host().tolist() == [0, 0, png_status.STREAM, png_status.FILTER]


def filters(dtype, shapes):
    """Any mix of filters, images smaller and larger than a tile, and rows of unknown filters."""
    for shape in shapes:
        _batch, _channels, height, width = shape
        pixels = rng.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
        planes = pixels.reshape(-1, height, width)
        rows = [filtered(plane, rng.integers(0, 5, height)).ravel() for plane in planes]
        data = np.stack([np.concatenate([row, rng.integers(0, 256, 7, dtype=np.uint8)]) for row in rows])
        status = np.zeros(len(planes), np.int32)
        bad = len(planes) - 1
        if bad:
            data[bad, (height - 1) * (1 + width * pixels.itemsize)] = 5
            status[0] = png_status.STREAM
        out, statuses = cuda.to_device(np.full_like(pixels, 99)), cuda.to_device(status)
        png.unfilter_batch(cuda.to_device(data), out, statuses)
        out = out.copy_to_host().reshape(planes.shape)
        wanted = status.tolist()
        if bad:
            wanted[bad] = png_status.FILTER
            assert (out[0] == 99).all(), "a plane of a stream that was refused is written"
        assert statuses.copy_to_host().tolist() == wanted
        good = slice(1, bad) if bad else slice(None)
        np.testing.assert_array_equal(out[good], planes[good], str(shape))


def filters_8():
    filters(np.uint8, [(1, 3, 37, 41)] if SIMULATED else [(1, 3, 37, 41), (1, 1, 1, 1), (2, 2, 64, 33), (1, 3, 5, 700)])


def filters_16():
    filters(np.uint16, [(3, 1, 34, 3)] if SIMULATED else [(1, 3, 37, 41), (1, 1, 1, 1), (2, 2, 64, 33), (1, 3, 5, 700)])


def decode(files, shape, dtype):
    """Decode as in use: gather on the host; inflate, check and unfilter on the device."""
    height, width = shape
    size = height * (1 + width * np.dtype(dtype).itemsize)
    whole = np.zeros(png_gather.room(files) + ALIGNMENT, np.uint8)
    start = -whole.ctypes.data % ALIGNMENT
    buffer = whole[start : start + png_gather.room(files)]
    found = png_gather.gather(files, buffer, height, width, 8 * np.dtype(dtype).itemsize)
    out = cuda.to_device(np.zeros((1, len(files), height, width), dtype))
    data = cuda.to_device(np.zeros((len(files), size), np.uint8))
    status = cuda.to_device(found.status.astype(np.int32))
    starts, sizes = cuda.to_device(found.starts), cuda.to_device(found.sizes)
    decoded = cuda.to_device(np.zeros(len(files), np.int64))
    words = cuda.to_device(buffer[: buffer.size // 4 * 4].view(np.uint32))
    deflate.inflate_batch(words, starts, sizes, size, data, decoded, status)
    png.check_adler_batch(data, size, cuda.to_device(found.adlers), status)
    png.unfilter_batch(data, out, status)
    return out.copy_to_host()[0], status.copy_to_host()


def whole():
    """Files decode to pixels; a right CRC-32 around a wrong Adler-32 is found."""
    shape = (6, 7) if SIMULATED else (512, 512)
    pixels = rng.normal(40, 9, (3, *shape)).clip(0, 255).astype(np.uint8)
    files = [encoded(plane, rng.integers(0, 5, shape[0]), pieces=(50,)) for plane in pixels]
    stream = bytearray(zlib.compress(filtered(pixels[0], 4).tobytes()))
    stream[-1] ^= 1
    files.append(container(image_header(*shape), bytes(stream)))
    out, status = decode(files, shape, np.uint8)
    assert status.tolist() == [0, 0, 0, png_status.STREAM]
    np.testing.assert_array_equal(out[:3], pixels)


def large():
    """A batch of 1,536 channels of 512 x 512, of both depths, decodes twice to the writer's pixels."""
    for dtype, scale in ((np.uint8, 12), (np.uint16, 900)):
        pixels = rng.gamma(2, scale, (6, 512, 512)).clip(0, np.iinfo(dtype).max).astype(dtype)
        files = [encoded(plane, 4, level=9) for plane in pixels] * 256
        for _ in range(2):
            out, status = decode(files, (512, 512), dtype)
            assert not status.any()
            for k in range(len(files)):
                assert (out[k] == pixels[k % 6]).all(), k


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print(f"{sys.argv[1]}: done")
