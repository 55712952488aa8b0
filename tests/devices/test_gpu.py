"""The whole loader on a GPU: the CPU's bits, no half-written batch, memory that stays flat, and errors that help.

``make gpu-test`` runs these and what else is marked ``gpu``.
"""

import os
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from loading import POLICY, assert_no_threads
from rxrx_kernels.cuda import nvcomp

import rxrx_fast as rx
from rxrx_fast.augment.policy import PRESETS
from rxrx_fast.devices import device as devices
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
        assert labels.equal(expected_labels)
        assert sites.equal(expected_sites)
        for view, other in zip(views, expected, strict=True):
            # As integers, so that NaN and signed zeros count too.
            kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[view.element_size()]
            assert view.dtype == other.dtype
            assert view.contiguous().view(kind).equal(other.contiguous().view(kind))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "bfloat16", "float32"])
@pytest.mark.parametrize("normalize", ["plate", "site"])
def test_batches_are_the_cpus(rxrx_root, stats, decoding, dtype, normalize, channels_last):
    """Every type and memory format, both normalisations, augmented: bit-equal to the CPU's batches."""
    dataset = rx.Dataset(rxrx_root, stats=stats, normalize=normalize, augment=POLICY, dtype=dtype)
    assert_same(epoch(dataset, "cuda", channels_last=channels_last), epoch(dataset, "cpu", channels_last=channels_last))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [None, 48])
def test_presets_are_the_cpus(rxrx_root, stats, name, size):
    """Every policy of the field, at the stored size and another, with mixing: bit-equal, soft labels too."""
    dataset = rx.Dataset(rxrx_root, stats=stats, augment=name, size=size)
    assert_same(epoch(dataset, "cuda"), epoch(dataset, "cpu"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint8"])
@pytest.mark.parametrize("name", PRESETS)
def test_presets_in_every_type_are_the_cpus(rxrx_root, stats, name, dtype):
    """The same in the other types: rounded once from the same float32, grey values exactly."""
    dataset = rx.Dataset(rxrx_root, stats=stats, augment=name, dtype=dtype)
    assert_same(epoch(dataset, "cuda"), epoch(dataset, "cpu"))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("mixing", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0, "mix": 0.5}])
def test_mixed_samples_are_the_cpus(rxrx_root, stats, mixing, dtype):
    """MixUp, CutMix and both, in each type and two views: bit-equal, with the same soft labels."""
    policy = rx.Policy(hflip=0.5, rotate=10, **mixing)
    dataset = rx.Dataset(rxrx_root, stats=stats, augment=policy, views=2, dtype=dtype)
    assert_same(epoch(dataset, "cuda"), epoch(dataset, "cpu"))


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A screen of 16-bit TIFF files, and its statistics."""
    root, rng = tmp_path_factory.mktemp("deep"), np.random.default_rng(0)
    rows = [("A1", plate, f"{row}0{column}", 1) for plate in (1, 2) for row in "BC" for column in range(2, 8)]
    sites = pd.DataFrame(rows, columns=["experiment", "plate", "well", "site"])
    for _k, row in enumerate(sites.itertuples()):
        for channel in range(1, 4):
            # Of 12 bits and more, so that bins are of several widths.
            pixels = rng.gamma(2, 200 * channel**2 * (1 + row.plate), (64, 64)).clip(0, 65535).astype(np.uint16)
            path = root / f"{row.experiment}/Plate{row.plate}/{row.well}_s{row.site}_w{channel}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, pixels)
    catalog = rx.Catalog.from_frame(
        sites, path="{experiment}/Plate{plate}/{well}_s{site}_w{channel}.tif", channels=3, root=root
    )
    return catalog, rx.PlateStats.fit(catalog, quiet=True)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", ["uint16", "float16", "bfloat16", "float32"])
@pytest.mark.parametrize("normalize", ["plate", "site"])
@pytest.mark.parametrize("augment", ["none", "deepnoise-hard", "everything"])
def test_batches_of_16_bits_are_the_cpus(deep, dtype, normalize, augment, channels_last):
    """16-bit pixels, by the simplest kernel, the leanest and the whole one: bit-equal to the CPU's batches."""
    catalog, stats = deep
    policy = POLICY if augment == "everything" else augment
    dataset = rx.Dataset(catalog, channels=(1, 2, 3), stats=stats, normalize=normalize, augment=policy, dtype=dtype)
    assert_same(epoch(dataset, "cuda", channels_last=channels_last), epoch(dataset, "cpu", channels_last=channels_last))


@pytest.mark.parametrize("method", ["affine", "quantile"])
def test_tables_of_16_bits_are_the_cpus(deep, method):
    """Gamma and quantile matching go through tables of 4,096 entries: the same bits."""
    catalog, stats = deep
    policy = rx.Policy(gamma=0.3, noise=(0, 300))
    normalize = rx.Normalize("plate", method=method)
    dataset = rx.Dataset(catalog, channels=(1, 2, 3), stats=stats, normalize=normalize, augment=policy, views=2)
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


def resident():
    """Bytes of this process in the host's memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_stays_flat(dataset, decoding):
    """Two thousand batches of many epochs take no more memory of the GPU, torch's or anyone's, nor of the host."""
    loader = rx.DataLoader(dataset, 5, shuffle=True, device="cuda")

    def run(batches):
        while batches > 0:
            for images, _, _ in loader:
                images.sum()
                batches -= 1
        torch.cuda.synchronize()
        return torch.cuda.memory_reserved(), torch.cuda.mem_get_info()[0], resident()

    reserved, free, host = run(200)
    later, free_later, host_later = run(2000)
    assert later <= reserved
    assert free - free_later <= 32 * 2**20
    assert host_later - host <= 64 * 2**20


def test_memory_stays_flat_over_one_long_epoch(rxrx_root, stats):
    """Five thousand batches of one epoch, blurred and in two views: what is in use after 500 is enough to the end."""
    policy = rx.Policy(rotate=10, blur=(0.5, 1.0), noise=(0, 5))
    dataset = rx.Dataset(rxrx_root, stats=stats, augment=policy, views=2, dtype="float16")
    sampler = list(range(len(dataset))) * (15_000 // len(dataset))
    loader, marks = rx.DataLoader(dataset, 3, sampler=sampler, device="cuda"), []
    for step, (images, _, _) in enumerate(loader):
        images[0].sum()
        if step in (500, 4950):
            torch.cuda.synchronize()
            marks.append((torch.cuda.max_memory_allocated(), torch.cuda.memory_reserved(), resident()))
    (peak, reserved, host), (later, reserved_later, host_later) = marks
    assert later <= 1.1 * peak
    assert reserved_later <= reserved + 2**25
    assert host_later - host <= 64 * 2**20


def test_batches_go_to_cupy_without_a_copy(dataset):
    """Through DLPack, of every kind of output: the same memory, and CuPy sees the same numbers."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    for (images, _, _), _ in zip(rx.DataLoader(dataset, 5, device="cuda", channels_last=True), range(3)):
        array = cupy.from_dlpack(images)
        assert array.data.ptr == images.data_ptr()
        assert array.shape == tuple(images.shape)
        assert array.strides == tuple(4 * step for step in images.stride())
        np.testing.assert_array_equal(cupy.asnumpy(array), images.cpu().numpy())
        # And back again.
        assert torch.from_dlpack(array).data_ptr() == images.data_ptr()


RANK = """
import os, sys
import torch
import rxrx_fast as rx
rank = int(os.environ["LOCAL_RANK"])
dataset = rx.Dataset(sys.argv[1], dtype="uint8")
loader = rx.DataLoader(dataset, 4, shuffle=True, device="cuda", rank=rank, world_size=2)
assert loader.device.index == rank % torch.cuda.device_count()
for images, _, meta in loader:
    assert images.device == loader.device
    for image, site in zip(images.cpu(), meta["site_index"].tolist()):
        print("site", rank, site, int(image.to(torch.int64).sum()))
"""


def test_two_ranks_share_a_gpu(rxrx_root):
    """Under torchrun, with fewer GPUs than ranks too: each site comes once, on the rank's own GPU, with its pixels."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "--no_python"]
    command += [sys.executable, "-c", RANK, str(rxrx_root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [tuple(map(int, line.split()[1:])) for line in done.stdout.splitlines() if line.startswith("site ")]
    alone = rx.DataLoader(rx.Dataset(rxrx_root, dtype="uint8"), 4, device="cpu")
    wanted = {
        site: int(image.to(torch.int64).sum())
        for images, _, meta in alone
        for image, site in zip(images, meta["site_index"].tolist())
    }
    assert {site: total for _, site, total in rows} == wanted
    assert len(rows) == len(wanted)
    assert {rank for rank, _, _ in rows} == {0, 1}


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
    path = dataset.store.paths([3])[0][2]
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
    assert torch.cuda.memory_allocated(0) == before
    assert torch.cuda.current_device() == 0
    assert_same(found, epoch(dataset, "cpu"))


def test_the_choice_is_measured(rxrx_root, monkeypatch):
    """Without a wish both ways are measured, and the loader takes the one with the higher rate."""
    from concurrent.futures import ThreadPoolExecutor

    from rxrx_fast.catalog import Catalog
    from rxrx_fast.decode import choice as decode_choice
    from rxrx_fast.stores import open_store

    monkeypatch.delenv("RXRX_FAST_DECODE", raising=False)
    store = open_store(Catalog.read(rxrx_root).available())
    with ThreadPoolExecutor(2) as pool:
        choice = decode_choice.choose(store, batch=32, pool=pool, threads=2, device=0)
    assert choice.host_rate > 0
    assert choice.gpu_rate > 0
    assert choice.path == ("gpu" if choice.gpu_rate > choice.host_rate else "host")
