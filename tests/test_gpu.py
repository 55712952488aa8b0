"""The whole loader on a GPU: the CPU's bits, no half-written batch, memory that stays flat, and errors that help.

``make gpu-test`` runs these and what else is marked ``gpu``.
"""

import warnings

import numpy as np
import pytest
import torch
from loading import POLICY, assert_no_threads
from rxrx_kernels import nvcomp

import rxrx_fast as rx
from rxrx_fast import device as devices
from rxrx_fast.errors import SiteError, UsageError

pytestmark = pytest.mark.gpu

#: Who decodes: the host, and the GPU with either inflate.
DECODERS = ["host", "gpu own", "gpu nvcomp"]


@pytest.fixture(params=DECODERS)
def decoding(request, monkeypatch):
    """Every test of this room runs with every decoder."""
    path, _, inflate = request.param.partition(" ")
    if inflate == "nvcomp" and not nvcomp.available():
        pytest.skip("nvCOMP 5 is not installed")
    monkeypatch.setenv("RXRX_FAST_DECODE", path)
    monkeypatch.setenv("RXRX_FAST_INFLATE", inflate or "own")
    return request.param


def epoch(dataset, device, **options):
    """Batches of an epoch as CPU copies: ((images, ...), labels, sites)."""
    found = []
    for images, labels, meta in rx.DataLoader(dataset, 5, shuffle=True, device=device, **options):
        views = images if isinstance(images, tuple) else (images,)
        found.append((tuple(view.cpu().clone() for view in views), labels, meta["site_index"]))
    return found


def assert_same(found, wanted):
    """The same sites and labels, and the same bits in every image."""
    assert len(found) == len(wanted) > 0
    for (views, labels, sites), (expected, expected_labels, expected_sites) in zip(found, wanted):
        assert labels.equal(expected_labels) and sites.equal(expected_sites)
        for view, other in zip(views, expected, strict=True):
            # As integers, so that NaN and signed zeros count too.
            kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[view.element_size()]
            assert view.dtype == other.dtype and view.contiguous().view(kind).equal(other.contiguous().view(kind))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "bfloat16", "float32"])
@pytest.mark.parametrize("normalize", ["plate", "site"])
def test_batches_are_the_cpus(rxrx_root, stats, decoding, dtype, normalize, channels_last):
    """Every type and memory format, both normalisations, augmented: bit-equal to the CPU's batches."""
    dataset = rx.Dataset(rxrx_root, stats=stats, normalize=normalize, augment=POLICY, dtype=dtype)
    assert_same(epoch(dataset, "cuda", channels_last=channels_last), epoch(dataset, "cpu", channels_last=channels_last))


@pytest.mark.parametrize("name", ["none", "wilds", "deepnoise-easy", "deepnoise-hard", "rcic-first-place"])
@pytest.mark.parametrize("size", [None, 48])
def test_presets_are_the_cpus(rxrx_root, stats, name, size):
    """Every policy of the field, at the stored size and another, with mixing: bit-equal, soft labels too."""
    dataset = rx.Dataset(rxrx_root, stats=stats, augment=name, size=size)
    assert_same(epoch(dataset, "cuda"), epoch(dataset, "cpu"))


@pytest.mark.parametrize(
    "normalize",
    [
        rx.Normalize("plate", method="quantile"),
        rx.Normalize("plate", illumination=True),
        rx.Normalize("experiment", clip=(1, 99)),
    ],
    ids=["quantile", "illumination", "clip"],
)
def test_tables_and_light_are_the_cpus(rxrx_root, stats, normalize):
    """Quantile matching, clipping and illumination go through the same kernel, with the same bits."""
    dataset = rx.Dataset(rxrx_root, stats=stats, normalize=normalize, augment=POLICY)
    assert_same(epoch(dataset, "cuda"), epoch(dataset, "cpu"))


def test_float16_is_the_rounded_float32(rxrx_root, stats):
    """Half precision is computed in single and rounded once, to nearest even."""
    full, half = (
        epoch(rx.Dataset(rxrx_root, stats=stats, augment=POLICY, dtype=dtype), "cuda")
        for dtype in ("float32", "float16")
    )
    for ((images,), *_), ((rounded,), *_) in zip(full, half, strict=True):
        np.testing.assert_array_equal(rounded.numpy(), images.numpy().astype(np.float16))


def test_float32_is_the_documented_arithmetic(rxrx_root, stats):
    """(pixel - center) x scale, in single precision and this order: what NumPy makes of the raw pixels."""
    dataset = rx.Dataset(rxrx_root, stats=stats, normalize="plate", dtype="float32")
    raw = rx.Dataset(rxrx_root, stats=stats, dtype="uint8")
    groups, mean, std, *_ = stats.normalizer(rx.Normalize("plate"), dataset.catalog)
    for ((images,), _, sites), ((pixels,), _, same) in zip(epoch(dataset, "cuda"), epoch(raw, "cuda"), strict=True):
        assert sites.equal(same)
        positions = np.array([dataset.catalog.table.index.get_loc(int(site)) for site in sites])
        center = mean[groups[positions]].astype(np.float32)[:, :, None, None]
        scale = (1 / std[groups[positions]]).astype(np.float32)[:, :, None, None]
        wanted = (pixels.numpy().astype(np.float32) - center) * scale
        np.testing.assert_array_equal(images.numpy(), wanted)


def test_views(rxrx_root, stats, decoding):
    """Three views of one decode: as on the CPU."""
    dataset = rx.Dataset(rxrx_root, stats=stats, augment=POLICY, views=3)
    assert_same(epoch(dataset, "cuda"), epoch(dataset, "cpu"))


def test_runs_repeat(dataset, decoding):
    """Two runs of one seed give the same bits, whatever the number of threads."""
    assert_same(epoch(dataset, "cuda", num_threads=4), epoch(dataset, "cuda", num_threads=1))


def test_a_consumers_stream_never_sees_half_a_batch(dataset, decoding, monkeypatch):
    """The loader's stream is made slow; a consumer that reads at once, on a stream of its own, sees whole batches."""
    wanted = epoch(dataset, "cpu")
    finish = devices.CudaDevice._finish

    def slowly(self, *arguments):
        with torch.cuda.stream(self._stream):
            torch.cuda._sleep(30_000_000)
        return finish(self, *arguments)

    monkeypatch.setattr(devices.CudaDevice, "_finish", slowly)
    mine, copies = torch.cuda.Stream(), []
    with torch.cuda.stream(mine):
        for images, labels, meta in rx.DataLoader(dataset, 5, shuffle=True, device="cuda"):
            copies.append(((images.clone(),), labels, meta["site_index"]))
    mine.synchronize()
    assert_same([((images.cpu(),), labels, sites) for (images,), labels, sites in copies], wanted)


def test_a_batchs_memory_waits_for_its_consumer(dataset, decoding):
    """A consumer whose stream is far behind, and who drops each batch at once, still reads what was delivered."""
    wanted = epoch(dataset, "cpu")
    mine, copies = torch.cuda.Stream(), []
    with torch.cuda.stream(mine):
        for images, labels, meta in rx.DataLoader(dataset, 5, shuffle=True, device="cuda"):
            torch.cuda._sleep(30_000_000)
            copies.append(((images.clone(),), labels, meta["site_index"]))
            del images
    mine.synchronize()
    assert_same([((images.cpu(),), labels, sites) for (images,), labels, sites in copies], wanted)


def test_two_loaders_share_a_gpu(dataset, decoding):
    """Two loaders in turns, of different batch sizes: each delivers what it delivers alone."""
    alone = epoch(dataset, "cuda"), epoch(dataset, "cuda", seed=7)
    loaders = (rx.DataLoader(dataset, 5, shuffle=True, seed=seed, device="cuda") for seed in (0, 7))
    together = [], []
    for batches in zip(*loaders, strict=True):
        for found, (images, labels, meta) in zip(together, batches):
            found.append(((images.cpu().clone(),), labels, meta["site_index"]))
    for found, wanted in zip(together, alone):
        assert_same(found, wanted)


def test_memory_stays_flat(dataset, decoding):
    """Twenty epochs after the first three take no more GPU memory, of torch's or anyone's."""
    loader = rx.DataLoader(dataset, 5, shuffle=True, device="cuda")

    def run(epochs):
        for _ in range(epochs):
            for images, _, _ in loader:
                images.sum()
        torch.cuda.synchronize()
        return torch.cuda.memory_reserved(), torch.cuda.mem_get_info()[0]

    reserved, free = run(3)
    later, free_later = run(20)
    assert later <= reserved and free - free_later <= 32 * 2**20


def test_a_full_gpu_says_what_to_lower(dataset, decoding):
    """With next to no memory the loader ends with one line that names batch_size, and without threads left over."""
    torch.cuda.empty_cache()
    blocks = []
    torch.cuda.set_per_process_memory_fraction(1e-5)
    try:
        with pytest.raises(UsageError, match="no memory left .* lower batch_size"):
            for images, _, _ in rx.DataLoader(dataset, 48, device="cuda"):
                blocks.append(images)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert_no_threads()
    # The context is none the worse for it.
    assert len(epoch(dataset, "cuda")) > 0


def damaged(copy, stats):
    """A data set with one file of a wrong CRC-32, and that file's path."""
    dataset = rx.Dataset(copy, stats=stats)
    path = dataset.store.paths(3)[2]
    with open(path, "r+b") as file:
        file.seek(200)
        byte = file.read(1)[0]
        file.seek(200)
        file.write(bytes([byte ^ 0xFF]))
    return dataset, path


def test_a_damaged_file_is_named(copy, stats, decoding):
    """The error of the CPU path, from the GPU path."""
    dataset, path = damaged(copy, stats)
    with pytest.raises(SiteError, match="CRC-32") as caught:
        epoch(dataset, "cuda")
    assert caught.value.path == path
    assert_no_threads()


def test_a_damaged_site_is_replaced(copy, stats, decoding):
    """With on_error="skip" another site takes its place, the same as on the CPU, and all the rest is untouched."""
    dataset, _ = damaged(copy, stats)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(epoch(dataset, "cuda", on_error="skip"), epoch(dataset, "cpu", on_error="skip"))


def test_stopping_early_leaves_nothing(dataset, decoding):
    """An iterator that is dropped with batches in flight ends its threads, and the next epoch is right."""
    wanted = epoch(dataset, "cpu")
    for _ in range(5):
        iterator = iter(rx.DataLoader(dataset, 5, shuffle=True, device="cuda"))
        next(iterator)
        del iterator
    assert_no_threads()
    assert_same(epoch(dataset, "cuda"), wanted)


def test_another_gpu(dataset, decoding):
    """A loader of cuda:1 works there alone, from a process whose current device is 0."""
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU on this machine")
    before = torch.cuda.memory_allocated(0)
    found = epoch(dataset, "cuda:1")
    for images, _, _ in rx.DataLoader(dataset, 5, device="cuda:1"):
        assert images.device == torch.device("cuda", 1)
    assert torch.cuda.memory_allocated(0) == before and torch.cuda.current_device() == 0
    assert_same(found, epoch(dataset, "cpu"))


def test_the_choice_is_measured(rxrx_root, monkeypatch):
    """Without a wish both ways are measured, and the loader takes the one with the higher rate."""
    from concurrent.futures import ThreadPoolExecutor

    from rxrx_fast import decode_choice
    from rxrx_fast.catalog import Catalog
    from rxrx_fast.stores import FileStore

    monkeypatch.delenv("RXRX_FAST_DECODE", raising=False)
    store = FileStore(Catalog.read(rxrx_root).available(), (1, 2, 3, 4, 5, 6))
    with ThreadPoolExecutor(2) as pool:
        choice = decode_choice.choose(store, batch=32, pool=pool, threads=2, device=0)
    assert choice.host_rate > 0 and choice.gpu_rate > 0
    assert choice.path == ("gpu" if choice.gpu_rate > choice.host_rate else "host")
