"""Decoding one site's six PNG files on one core: each step alone, the whole, and other PNG decoders.

pytest benchmarks/test_png_kernels.py --benchmark-only --benchmark-columns=min,median,rounds

Every row is one site, six files of 512 x 512; divide by six for a channel. Each round decodes another site, so that
neither caches nor branch predictors remember it. Compare numbers of one run only.
"""

import ctypes
import io
import itertools
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rxrx_kernels.deflate import libdeflate, pair
from rxrx_kernels.png import files as png
from rxrx_kernels.png import unfilter

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "rxrx1-kaggle-2023"
SITES, SIZE = 20, 512


@pytest.fixture(scope="module")
def sites():
    """Make lists of six encoded files: real ones if present, else smooth noise as Pillow writes it."""
    paths = sorted(REAL.rglob("*.png"))[: 6 * SITES]
    files = [np.fromfile(path, np.uint8) for path in paths] or [_generated(seed) for seed in range(6 * SITES)]
    return [files[k : k + 6] for k in range(0, len(files), 6)]


def _generated(seed):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 120, (24, 24), np.uint8)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    pixels = np.clip(np.asarray(coarse) + rng.normal(0, 1 + seed % 4, (SIZE, SIZE)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=9)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def stream_of(data):
    """Join the zlib stream of a file."""
    data, position, pieces = data.tobytes(), 8, []
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"IDAT":
            pieces.append(data[position + 8 : position + 8 + length])
        position += 12 + length
    return b"".join(pieces)


def measure(benchmark, function, items):
    """Measure one site a round, the next site each time."""
    turn = itertools.cycle(items)
    function(next(turn))
    benchmark.pedantic(function, setup=lambda: ((next(turn),), {}), rounds=3 * len(items), warmup_rounds=len(items))


@pytest.mark.benchmark(group="png: six channels, one core")
class TestPng:
    def test_inflate_libdeflate(self, benchmark, sites):
        """Inflating by libdeflate, the floor of every decoder that uses it."""
        library = libdeflate._library()
        call, target = library.libdeflate_zlib_decompress, np.empty(SIZE * (SIZE + 1), np.uint8)
        keep = libdeflate.Decompressor()
        work = ctypes.c_void_p(keep.address)

        def all_six(streams):
            for data in streams:
                sizes = ctypes.c_size_t(len(data)), ctypes.c_void_p(target.ctypes.data), ctypes.c_size_t(target.size)
                assert call(work, data, *sizes, None) == 0

        measure(benchmark, all_six, [[stream_of(data) for data in files] for files in sites])

    def test_inflate_pair(self, benchmark, sites):
        """Inflating by our own inflater, two streams at once, with Adler-32 and without unfiltering."""
        scratch = png.Scratch(SIZE, SIZE)
        states, memories, tails = scratch.pair
        adler32, targets = np.uint64(scratch.functions.adler32), scratch.filtered
        done = pair.DONE

        def all_six(streams):
            states[:] = 0
            waiting, held = list(streams), [None, None]
            while waiting or any(stream is not None for stream in held):
                for slot in range(2):
                    if held[slot] is None and waiting:
                        held[slot] = waiting.pop()
                        source, size = np.uint64(held[slot].ctypes.data), np.uint64(held[slot].size)
                        target = np.uint64(targets[slot].ctypes.data)
                        pair.begin(states[slot], source, size, target, np.uint64(SIZE * (SIZE + 1)))
                pair.work(states, memories, tails, adler32)
                for slot in range(2):
                    if held[slot] is not None and states[slot, pair.PHASE] != pair.BUSY:
                        assert states[slot, pair.PHASE] == done
                        held[slot], states[slot, pair.PHASE] = None, pair.FREE

        measure(benchmark, all_six, [[np.frombuffer(stream_of(f), np.uint8) for f in files] for files in sites])

    def test_unfilter(self, benchmark, sites):
        """Unfiltering alone."""
        padding = bytes(unfilter.PADDING)
        rows = [[np.frombuffer(zlib.decompress(stream_of(f)) + padding, np.uint8) for f in files] for files in sites]
        out, work = np.empty((SIZE, SIZE), np.uint8), unfilter.workspace(SIZE, 1)
        measure(benchmark, lambda six: [unfilter.undo(one, out, 1, *work) for one in six], rows)

    def test_decode_site(self, benchmark, sites):
        """Container, CRC-32, inflate, Adler-32 and unfilter, into one array."""
        out = np.empty((6, SIZE, SIZE), np.uint8)
        measure(benchmark, lambda files: png.decode_site(files, out), sites)
        png.decode_site(sites[0], out)
        np.testing.assert_array_equal(out, [np.asarray(Image.open(io.BytesIO(data.tobytes()))) for data in sites[0]])

    def test_cv2(self, benchmark, sites):
        """OpenCV on one thread."""
        cv2 = pytest.importorskip("cv2")
        cv2.setNumThreads(1)
        measure(benchmark, lambda files: [cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) for data in files], sites)

    def test_pillow(self, benchmark, sites):
        """Pillow, from memory."""
        encoded = [[data.tobytes() for data in files] for files in sites]
        measure(benchmark, lambda files: [np.asarray(Image.open(io.BytesIO(data))) for data in files], encoded)

    def test_libspng(self, benchmark, sites):
        """Libspng through pyspng, from memory."""
        pyspng = pytest.importorskip("pyspng")
        encoded = [[data.tobytes() for data in files] for files in sites]
        measure(benchmark, lambda files: [pyspng.load(data) for data in files], encoded)

    def test_dali(self, benchmark, sites):
        """DALI's decoder on one thread, without prefetching; six files share the pipeline's own cost."""
        dali = pytest.importorskip("nvidia.dali")
        turn = itertools.cycle(sites)
        pipe = dali.Pipeline(
            batch_size=6, num_threads=1, device_id=None, prefetch_queue_depth=1, exec_async=False, exec_pipelined=False
        )
        with pipe:
            encoded = dali.fn.external_source(source=lambda: next(turn), no_copy=True, dtype=dali.types.UINT8, ndim=1)
            pipe.set_outputs(dali.fn.decoders.image(encoded, output_type=dali.types.GRAY))
        pipe.build()
        measure(benchmark, lambda _: pipe.run(), sites)


@pytest.mark.parametrize("threads", sorted({1, 2, os.cpu_count() or 1}))
@pytest.mark.benchmark(group="png: all sites, threads")
def test_threads(benchmark, sites, threads):
    """A pool of threads, one site a task: shows whether it scales with cores."""
    from concurrent.futures import ThreadPoolExecutor

    out = np.empty((len(sites), 6, SIZE, SIZE), np.uint8)
    with ThreadPoolExecutor(threads) as pool:
        benchmark.pedantic(lambda: list(pool.map(png.decode_site, sites, out)), rounds=10, warmup_rounds=2)
