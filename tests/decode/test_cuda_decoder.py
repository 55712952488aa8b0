"""Decoding on a GPU, as far as a machine without one can test it: packing, choosing, and refused sites.

The pipeline runs for real, on the CPU; instead of the GPU, a launcher inflates the same packed streams with zlib. The
kernels are tested in tests/kernels/cuda/test_cuda_png.py, all of it together in tests/devices/test_gpu.py.
"""

import importlib.util
import os
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from loading import SUPPORT
from rxrx_kernels.png import files as png
from rxrx_kernels.png import gather as png_gather
from rxrx_kernels.png.unfilter import PADDING, unfilter

import rxrx_fast as rx
from rxrx_fast.catalog import Catalog
from rxrx_fast.decode import choice, cuda, cuda_png, pipeline
from rxrx_fast.decode.choice import Choice
from rxrx_fast.errors import DataError, SiteError, UsageError
from rxrx_fast.runtime.buffers import Buffers
from rxrx_fast.runtime.gpu_memory import explained
from rxrx_fast.stores import open_store


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture
def store(rxrx_root):
    return open_store(Catalog.read(rxrx_root).available())


class Stack:
    """What a launch gives: pixels, and the samples that were refused."""

    def __init__(self, stack, refused):
        self.stack, self.refused = stack, refused


class HostLauncher:
    """A PngLauncher over zlib and the CPU's filters; ``spoil`` are samples that it refuses in each batch."""

    spoil: tuple = ()
    launched = 0

    depth = 2

    def __init__(self, device, stream, image_size, channels, buffers, *, batch):
        self._size, self._channels, self._buffers = image_size, channels, buffers

    def pack(self, sites, pool):
        return cuda_png.pack(sites, self._size, self._buffers, pool)

    def launch(self, data, packed):
        type(self).launched += 1
        streams, (height, width) = packed.streams, self._size
        stack = np.full((len(streams.starts) // self._channels, self._channels, height, width), 99, np.uint8)
        refused = set(self.spoil)
        for k, (start, size, status) in enumerate(zip(streams.starts, streams.sizes, streams.status)):
            plane = stack[k // self._channels, k % self._channels]
            if status:
                refused.add(k // self._channels)
                continue
            rows = zlib.decompress(data[start : start + size].tobytes(), -15)
            assert zlib.adler32(rows) == streams.adlers[k]
            unfilter(np.frombuffer(rows + bytes(PADDING), np.uint8), plane)
        return Stack(stack, sorted(refused))

    def settle(self, launch):
        return launch.refused

    def replace(self, launch, sample, pixels):
        launch.stack[sample] = pixels

    def keep(self, launch, samples):
        return launch.stack[samples]


@pytest.fixture
def on_a_gpu(monkeypatch):
    """The pipeline takes the CUDA decoder, with the launcher above instead of a GPU."""
    monkeypatch.setattr(choice, "choose", lambda *_, **__: Choice("gpu", "asked for by the test"))
    monkeypatch.setattr(cuda, "PngLauncher", HostLauncher)
    monkeypatch.setattr(HostLauncher, "launched", 0)
    return HostLauncher


def run(store, pool, batches, **options):
    # Closed in any case: a later test would find a thread that is left.
    with closing(pipeline.SitePipeline(store, batches, batch_size=5, pool=pool, num_threads=2, **options)) as stages:
        return [(decoded.positions.tolist(), np.array(decoded.stack)) for decoded in stages]


def test_packing_keeps_every_stream(store, pool):
    """A batch's streams lie in one buffer, in order, and inflate to the rows of their files."""
    sites = store.read(range(3), check=False)
    packed = cuda_png.pack(sites, store.image_size, Buffers(1), pool)
    height, width = store.image_size
    assert not packed.streams.status.any()
    assert len(packed.streams.starts) == 18
    for k, (start, size) in enumerate(zip(packed.streams.starts, packed.streams.sizes)):
        rows = zlib.decompress(packed.buffer[start : start + size].tobytes(), -15)
        plane = np.empty((1, height, width), np.uint8)
        png.decode_site([sites[k // 6][k % 6]], plane)
        undone = np.empty((height, width), np.uint8)
        unfilter(np.frombuffer(rows + bytes(PADDING), np.uint8), undone)
        assert (undone == plane[0]).all()
    # nvCOMP gets a whole stream of no bytes instead of a refused one.
    assert zlib.decompress(packed.buffer[-png_gather.ALIGNMENT :].tobytes(), -15) == b""


def test_buffers_are_used_again(store, pool):
    """Batches of nearly one size share their memory."""
    buffers = Buffers(2)
    addresses = set()
    for position in range(6):
        packed = cuda_png.pack(store.read([position], check=False), store.image_size, buffers, pool)
        addresses.add(packed.buffer.ctypes.data)
        del packed
    assert len(addresses) == 1


@pytest.mark.parametrize("depth", [1, 2, 3, 7])
def test_batches_come_in_order_and_whole(store, pool, on_a_gpu, depth, monkeypatch):
    """The positions and pixels of the host, to the last, short batch, however many batches are launched at once."""
    monkeypatch.setattr(on_a_gpu, "depth", depth)
    batches = [np.array(b) for b in ([3, 1, 4, 0, 5], [9, 2, 6, 5, 3], [8, 7])]
    found = run(store, pool, batches)
    assert on_a_gpu.launched == 3
    assert [positions for positions, _ in found] == [b.tolist() for b in batches]
    for positions, stack in found:
        for position, pixels in zip(positions, stack):
            np.testing.assert_array_equal(pixels, store.pixels([position])[0])


def test_refused_sites_are_decoded_by_the_host(store, pool, on_a_gpu, monkeypatch):
    """A site that the GPU refuses, though its files are whole, comes with the right pixels all the same."""
    monkeypatch.setattr(on_a_gpu, "spoil", (0, 2))
    ((positions, stack),) = run(store, pool, [np.arange(4)])
    assert positions == [0, 1, 2, 3]
    for position, pixels in enumerate(stack):
        np.testing.assert_array_equal(pixels, store.pixels([position])[0])


def damage(store, position, channel):
    path = Path(store.paths([position])[0][channel])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    return str(path)


def test_a_damaged_file_is_an_error_with_its_name(copy, pool, on_a_gpu):
    """By default the site's name, file and reason are raised."""
    store = open_store(Catalog.read(copy).available())
    path = damage(store, 2, 4)
    with pytest.raises(SiteError, match="CRC-32") as caught:
        run(store, pool, [np.arange(4)])
    assert caught.value.path == path


@pytest.mark.parametrize("instead", [6, None])
def test_a_damaged_site_is_replaced_or_left_out(copy, pool, on_a_gpu, instead):
    """As ``on_fault`` decides; the other samples of the batch are untouched."""
    store = open_store(Catalog.read(copy).available())
    damage(store, 2, 4)
    faults = []

    def on_fault(tried, error):
        faults.append(tried[-1])
        return instead

    ((positions, stack),) = run(store, pool, [np.arange(4)], on_fault=on_fault)
    assert faults == [2]
    assert positions == ([0, 1, 6, 3] if instead else [0, 1, 3])
    for position, pixels in zip(positions, stack):
        np.testing.assert_array_equal(pixels, store.pixels([position])[0])


def test_a_missing_file_is_replaced_before_packing(copy, pool, on_a_gpu):
    """A site that can't even be read has a substitute in the packed batch."""
    store = open_store(Catalog.read(copy).available())
    image_size = store.image_size
    os.remove(store.paths([1])[0][0])
    ((positions, stack),) = run(store, pool, [np.arange(3)], on_fault=lambda *_: 5)
    assert positions == [0, 5, 2]
    assert stack.shape[2:] == image_size
    np.testing.assert_array_equal(stack[1], store.pixels([5])[0])


def test_a_loader_delivers_the_same(rxrx_root, stats, on_a_gpu, monkeypatch):
    """Two epochs through DataLoader, shuffled and augmented: the bits that the host's decoding gives."""
    policy = rx.Policy(hflip=0.5, rot90=1.0, stats_jitter=0.1)
    dataset = rx.Dataset(rxrx_root, stats=stats, augment=policy)
    ours = rx.DataLoader(dataset, 5, shuffle=True, device="cpu")
    there = [(images.clone(), labels) for _ in range(2) for images, labels, _ in ours]
    assert on_a_gpu.launched == len(there)
    monkeypatch.setattr(choice, "choose", lambda *_, **__: Choice("host", ""))
    loader = rx.DataLoader(dataset, 5, shuffle=True, device="cpu")
    here = [(images.clone(), labels) for _ in range(2) for images, labels, _ in loader]
    assert len(here) == len(there) == 2 * len(loader)
    for (images, labels), (expected, wanted) in zip(there, here, strict=True):
        assert images.equal(expected)
        assert labels.equal(wanted)


needs_numba_cuda = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed (extra ptx)"
)


def simulate(name):
    """Run a script of this folder on the simulator, which is chosen before numba is imported."""
    run = subprocess.run(
        [sys.executable, SUPPORT / name], env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout == "simulated\n"


@pytest.mark.slow(14)
@needs_numba_cuda
def test_the_decoder_itself_on_the_simulator():
    """Tables, statuses, both inflates and mending: the real PngLauncher, with the kernels on the simulator."""
    simulate("gpu_simulated.py")


@pytest.mark.slow(15)
@needs_numba_cuda
def test_batches_are_finished_as_on_the_cpu_on_the_simulator():
    """The real CudaDevice: every preset, views, mixing, dtypes and 16 bits give CpuDevice's bits and strides."""
    simulate("gpu_simulated_device.py")


def test_choosing(store, pool, monkeypatch):
    """No GPU or other files: the host. The environment decides unmeasured. Else the faster rate, measured once."""
    monkeypatch.delenv("RXRX_FAST_DECODE", raising=False)
    asked = {"batch": 8, "pool": pool, "threads": 2}
    assert choice.choose(store, device=None, **asked).path == "host"
    measured = []

    def measure(sites, *_, **__):
        measured.append(len(sites))
        return choice.compare(800.0, 9000.0, 2, 8)

    monkeypatch.setattr(choice, "measure", measure)
    monkeypatch.setattr(choice, "_measured", {})
    for _ in range(2):
        found = choice.choose(store, device=0, **asked)
        assert found.path == "gpu"
        assert "9,000 sites/s on the GPU in batches of 8" in found.why
    assert measured == [8]
    choice.choose(store, device=0, batch=16, pool=pool, threads=2)
    assert len(measured) == 2
    assert choice.compare(800.0, 700.0, 1, 8).path == "host"
    for wish in ("host", "gpu"):
        monkeypatch.setenv("RXRX_FAST_DECODE", wish)
        assert choice.choose(store, device=0, **asked).path == wish
    monkeypatch.setenv("RXRX_FAST_DECODE", "cloud")
    with pytest.raises(UsageError, match="RXRX_FAST_DECODE='cloud'"):
        choice.choose(store, device=0, **asked)
    monkeypatch.delenv("RXRX_FAST_DECODE")
    for decoders in (("host",), ("dali", "host")):
        monkeypatch.setattr(store, "decoders", decoders)
        assert choice.choose(store, device=0, **asked).path == "host"
    assert len(measured) == 2


def test_the_host_is_measured_by_decoding(store, pool):
    """The host's rate is positive, of as many readable sites as are wanted."""
    sites = choice._readable(store)
    assert len(sites) == choice._SITES
    assert choice._host_rate(sites, store.image_size, pool, 2) > 10


def test_which_inflate(monkeypatch):
    """Ours, unless the environment asks for nvCOMP and it is there."""
    from rxrx_kernels.cuda import nvcomp

    monkeypatch.delenv("RXRX_FAST_INFLATE", raising=False)
    assert cuda_png.inflater() == "own"
    monkeypatch.setenv("RXRX_FAST_INFLATE", "nvcomp")
    monkeypatch.setattr(nvcomp, "available", lambda: True)
    assert cuda_png.inflater() == "nvcomp"
    monkeypatch.setattr(nvcomp, "available", lambda: False)
    with pytest.raises(UsageError, match="nvCOMP 5 is not installed"):
        cuda_png.inflater()
    monkeypatch.setenv("RXRX_FAST_INFLATE", "zlib")
    with pytest.raises(UsageError, match="RXRX_FAST_INFLATE='zlib'"):
        cuda_png.inflater()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA allocation failed: std::bad_alloc"),
        MemoryError("[CUDA_ERROR_OUT_OF_MEMORY] cuMemAlloc"),
    ],
)
def test_a_full_gpu_says_what_to_lower(error):
    """However a library words it: one line with the batch size and what to do. On the CPU it stays as it was."""
    with (
        pytest.raises(
            UsageError, match=r"GPU 0 has no memory left while decoding a batch of 64 .* lower batch_size=64"
        ),
        explained(0, 64, "decoding"),
    ):
        raise error
    with pytest.raises(type(error)), explained(None, 64, "decoding"):
        raise error


def test_other_errors_pass():
    """What has nothing to do with memory is not reworded."""
    with pytest.raises(RuntimeError, match="an illegal memory access"), explained(0, 64, "decoding"):
        raise RuntimeError("an illegal memory access was encountered")
    with pytest.raises(DataError, match="as it was"), explained(0, 64, "decoding"):
        raise DataError("as it was")
