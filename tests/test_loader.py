"""DataLoader: the right pixels in the right order, on every way out clean."""

import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zlib

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from rxrx_kernels import png

import rxrx_fast as rx
from rxrx_fast.stores import FileStore

POLICY = rx.Policy(hflip=0.5, vflip=0.5, rot90=1.0, stats_jitter=0.1)


@pytest.fixture(scope="module")
def stats(rxrx_root):
    return rx.PlateStats.fit(rx.Catalog.read(rxrx_root), quiet=True)


@pytest.fixture
def dataset(rxrx_root, stats):
    return rx.Dataset(rxrx_root, stats=stats, augment=POLICY)


@pytest.fixture
def copy(rxrx_root, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(rxrx_root, root)
    return root


@pytest.fixture(params=["rxrx_kernels", "DALI"])
def decoder(request, monkeypatch):
    """Who decodes PNG: this project's kernels, or DALI, as for every other format."""
    if request.param == "DALI":
        monkeypatch.setattr(FileStore, "decodes", False, raising=True)
    return request.param


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("rxrx_fast")]


def assert_no_threads():
    end = time.monotonic() + 20
    while threads() and time.monotonic() < end:
        time.sleep(0.02)
    assert not threads()


def by_site(loader):
    """{site_index: image or views} over one epoch, as copies."""
    found = {}
    for images, labels, meta in loader:
        for i, site in enumerate(meta["site_index"].tolist()):
            assert site not in found
            found[site] = tuple(v[i].clone() for v in images) if isinstance(images, tuple) else images[i].clone()
    return found


def test_raw_batches_are_what_pillow_decodes(rxrx_root, decoder):
    """uint8, unshuffled: every site once, in order, bit for bit."""
    dataset = rx.Dataset(rxrx_root, dtype="uint8")
    at = 0
    for images, labels, meta in rx.DataLoader(dataset, batch_size=7):
        assert images.dtype == torch.uint8 and labels.dtype == torch.int64
        for image, label in zip(images.numpy(), labels):
            expected = np.stack([np.asarray(Image.open(f)) for f in dataset.catalog.files([at])[0]])
            np.testing.assert_array_equal(image, expected)
            assert label == dataset.labels[at]
            at += 1
    assert at == len(dataset) == 48


@pytest.mark.real
def test_real_batches_are_what_pillow_decodes(real_root, decoder):
    """The twelve complete real sites through DALI, bit for bit, and normalised by plate within float32."""
    with pytest.warns(UserWarning, match="lack files"):
        dataset = rx.Dataset(real_root, dtype="uint8")
    raw = by_site(rx.DataLoader(dataset, batch_size=5))
    assert len(raw) == 12
    for i, site in enumerate(dataset.catalog.table.index):
        expected = np.stack([np.asarray(Image.open(f)) for f in dataset.catalog.files([i])[0]])
        np.testing.assert_array_equal(raw[site].numpy(), expected)
    fitted = rx.PlateStats.fit(dataset.catalog, quiet=True)
    for site, image in by_site(rx.DataLoader(rx.Dataset(dataset.catalog, stats=fitted), batch_size=5)).items():
        # One complete site a plate: normalised by its plate, it has mean 0 and deviation 1.
        np.testing.assert_allclose(image.double().mean((1, 2)), 0, atol=1e-4)
        np.testing.assert_allclose(image.double().std((1, 2), correction=0), 1, atol=1e-4)


@pytest.mark.parametrize("level", ["plate", "site"])
@pytest.mark.parametrize("views", [1, 3])
def test_batches_equal_single_samples(rxrx_root, stats, level, views):
    """DALI's batches and Pillow's single samples have the same pixels, labels and meta, view by view."""
    dataset = rx.Dataset(rxrx_root, stats=stats, augment=POLICY, normalize=level, views=views, seed=4)
    loader = rx.DataLoader(dataset, batch_size=5, shuffle=True, seed=4)
    loader.set_epoch(6)
    dataset.set_epoch(6)
    row = {site: i for i, site in enumerate(dataset.catalog.table.index)}
    for images, labels, meta in loader:
        for i, site in enumerate(meta["site_index"].tolist()):
            image, label, single = dataset[row[site]]
            assert labels[i] == label and {name: int(codes[i]) for name, codes in meta.items()} == single
            if views == 1:
                assert torch.equal(images[i], image)
            else:
                assert all(torch.equal(view[i], expected) for view, expected in zip(images, image))


def test_pixels_do_not_depend_on_threads_batches_or_memory_format(dataset):
    """The same seed gives the same pixels for one or three threads, any batch size, either memory format."""
    expected = by_site(rx.DataLoader(dataset, batch_size=8, shuffle=True, seed=1, num_threads=1))
    for arguments in ({"num_threads": 3}, {"batch_size": 3}, {"shuffle": False}, {"channels_last": True}):
        found = by_site(rx.DataLoader(dataset, **{"batch_size": 8, "shuffle": True, "seed": 1, **arguments}))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[site], expected[site]) for site in expected)
    other = by_site(rx.DataLoader(dataset, batch_size=8, seed=2))
    assert not all(torch.equal(other[site], expected[site]) for site in expected)


def test_float16_is_float32_rounded_once(rxrx_root, stats, dataset):
    """dtype="float16" gives the nearest float16 of each float32 value, in batches and in single samples."""
    half = rx.Dataset(rxrx_root, stats=stats, augment=POLICY, dtype="float16")
    expected, found = (by_site(rx.DataLoader(d, batch_size=8, shuffle=True)) for d in (dataset, half))
    assert found.keys() == expected.keys()
    for site, image in found.items():
        assert image.dtype == torch.float16 and torch.equal(image, expected[site].half())
    assert torch.equal(half[3][0], dataset[3][0].half())


def test_channels_last_is_torchs_memory_format(dataset):
    """Delivered as torch means it: NCHW shape, NHWC strides."""
    images, _, _ = next(iter(rx.DataLoader(dataset, batch_size=4, channels_last=True)))
    assert images.shape == (4, 6, 64, 64) and images.is_contiguous(memory_format=torch.channels_last)


def test_epochs_follow_one_another(dataset):
    """Each iteration is the next epoch, in another order; set_epoch goes back, and repeats exactly."""
    loader = rx.DataLoader(dataset, batch_size=16, shuffle=True, seed=3)
    orders = [torch.cat([meta["site_index"] for _, _, meta in loader]) for _ in range(3)]
    assert len(loader) == 3
    for order in orders:
        assert sorted(order.tolist()) == sorted(dataset.catalog.table.index)
    assert not torch.equal(orders[0], orders[1]) and not torch.equal(orders[1], orders[2])
    loader.set_epoch(1)
    assert torch.equal(torch.cat([meta["site_index"] for _, _, meta in loader]), orders[1])


def test_resumes_where_it_was_saved(dataset):
    """A state taken in the middle, loaded into another loader: the rest of the epoch, then the next one."""
    whole = rx.DataLoader(dataset, batch_size=10, shuffle=True, seed=3)
    expected = [(images.clone(), meta["site_index"]) for _ in range(2) for images, _, meta in whole]
    first = rx.DataLoader(dataset, batch_size=10, shuffle=True, seed=3)
    for k, _ in enumerate(first):
        if k == 1:
            break
    state = first.state_dict()
    second = rx.DataLoader(dataset, batch_size=10, shuffle=True, seed=3, num_threads=1)
    second.load_state_dict(state)
    rest = [(images.clone(), meta["site_index"]) for _ in range(2) for images, _, meta in second]
    assert len(rest) == len(expected) - 2
    for (image, site), (expected_image, expected_site) in zip(rest, expected[2:]):
        assert torch.equal(image, expected_image) and torch.equal(site, expected_site)
    with pytest.raises(rx.UsageError, match="seed"):
        rx.DataLoader(dataset, batch_size=10, seed=4).load_state_dict(state)


def test_short_last_batch_and_drop_last(dataset):
    """48 samples by 10: five batches of which the last has 8, or four."""
    sizes = [len(labels) for _, labels, _ in rx.DataLoader(dataset, batch_size=10)]
    assert sizes == [10, 10, 10, 10, 8]
    loader = rx.DataLoader(dataset, batch_size=10, drop_last=True)
    assert [len(labels) for _, labels, _ in loader] == [10] * 4 and len(loader) == 4


def test_ranks_share_the_epoch(dataset):
    """Two ranks: the same number of steps, disjoint sites, together one rank's global batches."""
    one = rx.DataLoader(dataset, batch_size=8, shuffle=True, seed=2)
    two = [rx.DataLoader(dataset, batch_size=4, shuffle=True, seed=2, rank=r, world_size=2) for r in (0, 1)]
    for whole, first, second in zip(one, *two, strict=True):
        assert torch.equal(torch.cat([first[0], second[0]]), whole[0])
        assert torch.equal(torch.cat([first[1], second[1]]), whole[1])


@pytest.mark.parametrize("level", ["plate", "experiment", "cell_type"])
def test_group_batches(dataset, level):
    """Every batch from one group, every site once."""
    loader = rx.DataLoader(dataset, batch_size=5, shuffle=True, group_by=level)
    codes, _ = dataset.catalog.group_keys(level)
    group = dict(zip(dataset.catalog.table.index, codes))
    sites = []
    for _, _, meta in loader:
        assert len({group[s] for s in meta["site_index"].tolist()}) == 1
        sites += meta["site_index"].tolist()
    assert sorted(sites) == sorted(dataset.catalog.table.index)


def test_torch_samplers_decide_the_order(dataset):
    """A sampler, a batch sampler and torch's DistributedSampler are followed to the letter."""
    index = dataset.catalog.table.index.to_numpy()
    wanted = [40, 3, 3, 17, 9]
    loader = rx.DataLoader(dataset, batch_size=2, sampler=wanted)
    assert [meta["site_index"].tolist() for _, _, meta in loader] == [
        index[[40, 3]].tolist(),
        index[[3, 17]].tolist(),
        [index[9]],
    ]
    batches = torch.utils.data.BatchSampler(torch.utils.data.SequentialSampler(dataset), 20, drop_last=False)
    loader = rx.DataLoader(dataset, batch_sampler=batches)
    assert [len(labels) for _, labels, _ in loader] == [20, 20, 8] and len(loader) == 3
    sampler = torch.utils.data.DistributedSampler(dataset, num_replicas=2, rank=1, shuffle=True)
    loader = rx.DataLoader(dataset, batch_size=7, sampler=sampler)
    loader.set_epoch(5)
    sampler.set_epoch(5)
    assert [s for _, _, meta in loader for s in meta["site_index"].tolist()] == index[list(sampler)].tolist()


# Every way out -------------------------------------------------------------------------------------------------------


def test_leaving_early_ends_the_threads(dataset):
    """break, an exception in the loop, and a dropped iterator leave no thread behind; the loader goes on working."""
    loader = rx.DataLoader(dataset, batch_size=4, shuffle=True)
    for _ in loader:
        assert threads()
        break
    gc.collect()
    assert_no_threads()
    with pytest.raises(ZeroDivisionError):
        for _ in loader:
            1 / 0
    gc.collect()
    assert_no_threads()
    iterator = iter(loader)
    next(iterator)
    iterator.close()
    assert_no_threads()
    with pytest.raises(StopIteration):
        next(iterator)
    del loader, iterator
    assert sum(len(labels) for _, labels, _ in rx.DataLoader(dataset, batch_size=4)) == len(dataset)
    assert_no_threads()


def test_a_new_iterator_ends_the_one_before(dataset):
    """Only one epoch of a loader streams at a time."""
    loader = rx.DataLoader(dataset, batch_size=4)
    first = iter(loader)
    next(first)
    second = iter(loader)
    with pytest.raises(StopIteration):
        next(first)
    assert sum(len(labels) for _, labels, _ in second) == len(dataset)


def test_two_loaders_side_by_side(rxrx_root, dataset):
    """Two loaders in step deliver what each delivers alone."""
    raw = rx.Dataset(rxrx_root, dtype="uint8")
    alone = by_site(rx.DataLoader(dataset, batch_size=6, shuffle=True)), by_site(rx.DataLoader(raw, batch_size=6))
    together = {}, {}
    for batches in zip(
        rx.DataLoader(dataset, batch_size=6, shuffle=True), rx.DataLoader(raw, batch_size=6), strict=True
    ):
        for found, (images, _, meta) in zip(together, batches):
            found.update({site: images[i].clone() for i, site in enumerate(meta["site_index"].tolist())})
    for found, expected in zip(together, alone):
        assert found.keys() == expected.keys() and all(torch.equal(found[s], expected[s]) for s in expected)


def test_a_kept_batch_is_never_written_again(dataset):
    """Buffers are recycled only when every view of them is gone: kept batches and slices keep their pixels."""
    loader = rx.DataLoader(dataset, batch_size=4, shuffle=True)
    kept, slices = [], []
    for _ in range(3):
        for images, _, _ in loader:
            kept.append((images, images.clone()))
            slices.append((images[1, 2], images[1, 2].clone()))
            kept = kept[-5:]
    assert all(torch.equal(a, b) for a, b in kept + slices)


def test_buffers_are_used_again(dataset):
    """A consumer that drops its batches sees few addresses, not a fresh one a batch."""
    loader = rx.DataLoader(dataset, batch_size=4)
    addresses = set()
    for _ in range(4):
        for images, _, _ in loader:
            addresses.add(images.data_ptr())
    assert len(addresses) < 4 * len(loader) / 2


def test_memory_stays_flat(rxrx_root, stats):
    """2,000 batches over many epochs: resident memory, threads and open files at the end are those of the start."""
    dataset = rx.Dataset(rxrx_root, stats=stats, augment=POLICY, channels=(1, 2))
    process = psutil.Process()

    def stream(batches):
        loader = rx.DataLoader(dataset, batch_size=2, shuffle=True)
        done = 0
        while done < batches:
            for _ in loader:
                done += 1
        return done

    stream(400)
    gc.collect()
    before = process.memory_info().rss, process.num_fds()
    assert stream(2000) >= 2000
    assert_no_threads()
    gc.collect()
    after = process.memory_info().rss, process.num_fds()
    assert after[0] - before[0] < 24 * 2**20
    assert after[1] <= before[1] + 2


def run_script(root, body, **options):
    script = textwrap.dedent(
        """
        import sys, warnings
        import rxrx_fast as rx
        dataset = rx.Dataset(sys.argv[1], dtype="uint8")
        """
    ) + textwrap.dedent(body)
    return subprocess.Popen(
        [sys.executable, "-u", "-c", script, str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_ctrl_c_ends_the_process(rxrx_root):
    """SIGINT in the middle of an epoch: KeyboardInterrupt in the loop, and a clean exit within seconds."""
    process = run_script(
        rxrx_root,
        """
        loader = rx.DataLoader(dataset, batch_size=2)
        try:
            while True:
                for k, batch in enumerate(loader):
                    print("batch", flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """,
    )
    try:
        for _ in range(3):
            assert process.stdout.readline() == "batch\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert out.strip().endswith("interrupted") and "Traceback" not in err


def test_the_interpreter_ends_with_a_loader_open(rxrx_root):
    """Leaving a loop by the end of the script neither hangs nor complains."""
    process = run_script(
        rxrx_root, "iterator = iter(rx.DataLoader(dataset, batch_size=2)); next(iterator); print('over')"
    )
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (0, "over\n", "")


def test_a_forked_process_is_told(rxrx_root):
    """An iterator taken into a fork says so, and does not hang."""
    process = run_script(
        rxrx_root,
        """
        import os
        warnings.simplefilter("ignore")
        iterator = iter(rx.DataLoader(dataset, batch_size=2))
        next(iterator)
        child = os.fork()
        if child == 0:
            try:
                next(iterator)
            except RuntimeError as error:
                os.write(1, str(error).encode())
            os._exit(0)
        os.waitpid(child, 0)
        """,
    )
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and "forked process" in out, err


# Faults --------------------------------------------------------------------------------------------------------------


def well_formed_but_wrong(path):
    """A PNG whose chunks and CRCs are right and whose compressed data is not: only decoding finds out."""
    data = bytearray(open(path, "rb").read())
    out, at = bytearray(data[:8]), 8
    while at < len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
        body = bytes(data[at + 8 : at + 8 + length])
        if kind == b"IDAT":
            body = body[: length // 2]
        out += len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        at += length + 12
    png.verify(bytes(out))
    open(path, "wb").write(out)


#: First column and row, and steps, of the passes of an interlaced PNG (section 8.2).
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

DAMAGE = {
    "missing": (os.unlink, "missing"),
    "truncated": (lambda path: os.truncate(path, 200), "truncated"),
    "empty": (lambda path: os.truncate(path, 0), "empty"),
    "other size": (lambda path: Image.new("L", (32, 64)).save(path), "64 x 32 pixels"),
    "sixteen bit": (lambda path: Image.fromarray(np.zeros((64, 64), np.uint16)).save(path), "16 bit"),
    "color": (lambda path: Image.new("RGB", (64, 64)).save(path), "colour type 2"),
    "not decodable": (well_formed_but_wrong, "zlib stream|can't be decoded|image data ends"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_fault_has_a_name(copy, kind, decoder):
    """With raise: one line with site, file and reason; with skip: another site in its place, and a report."""
    dataset = rx.Dataset(copy, dtype="uint8")
    damage, reason = DAMAGE[kind]
    victim, site_id = dataset.catalog.files([13])[0][4], dataset.catalog.table["site_id"].iat[13]
    damage(victim)
    with pytest.raises(rx.SiteError, match=reason) as caught:
        for _ in rx.DataLoader(dataset, batch_size=6):
            pass
    assert (caught.value.site_id, caught.value.path) == (site_id, victim) and "\n" not in str(caught.value)
    assert_no_threads()
    loaders = [rx.DataLoader(dataset, batch_size=6, on_error="skip", num_threads=n) for n in (1, 2)]
    with pytest.warns(UserWarning, match=site_id):
        epochs = [[meta["site_index"].tolist() for _, _, meta in loader] for loader in loaders]
    # The batch keeps its size, and the same site stands in every time.
    assert epochs[0] == epochs[1] and [len(batch) for batch in epochs[0]] == [6] * 8
    bad = dataset.catalog.table.index[13]
    assert bad not in epochs[0][2] and sum(site == bad for batch in epochs[0] for site in batch) == 0
    (fault,) = loaders[0].report()["faults"]
    assert (fault["site_id"], fault["path"]) == (site_id, victim) and re.search(reason, fault["reason"])


def test_rare_but_whole_files_are_decoded(copy):
    """An interlaced grayscale PNG in the middle of ordinary ones comes out as Pillow decodes it."""
    dataset = rx.Dataset(copy, dtype="uint8")
    # A constant picture: seven passes of unfiltered rows, all of them alike.
    rows = b"".join(
        (b"\0" + bytes([77]) * (-(-(64 - x) // dx))) * (-(-(64 - y) // dy))
        for x, y, dx, dy in ADAM7
    )
    body = png.SIGNATURE
    for kind, data in (
        (b"IHDR", (64).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 1])),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ):
        body += len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    path = dataset.catalog.files([9])[0][2]
    open(path, "wb").write(body)
    assert (np.asarray(Image.open(path)) == 77).all()
    images = torch.cat([images for images, _, _ in rx.DataLoader(dataset, batch_size=6)])
    assert (images[9, 2] == 77).all() and not (images[9, 1] == 77).all()


def test_too_many_faults_are_an_error(copy):
    """Past max_errors, skipping stops."""
    dataset = rx.Dataset(copy, dtype="uint8")
    for i in range(5):
        os.unlink(dataset.catalog.files([i])[0][0])
    loader = rx.DataLoader(dataset, batch_size=4, on_error="skip", max_errors=3)
    with pytest.warns(UserWarning, match="takes its place"), pytest.raises(rx.DataError, match="max_errors=3"):
        for _ in loader:
            pass
    assert_no_threads()


# The torch script's arguments ----------------------------------------------------------------------------------------


def test_torchs_arguments_are_understood(dataset):
    """What a script for torch's DataLoader passes is taken or refused with the reason, never ignored in silence."""
    loader = rx.DataLoader(
        dataset,
        16,
        True,
        num_workers=2,
        pin_memory=True,
        persistent_workers=True,
        prefetch_factor=4,
        collate_fn=None,
        generator=torch.Generator().manual_seed(7),
    )
    assert (loader.batch_size, loader.num_threads, loader.seed) == (16, 2, 7)
    assert sum(len(labels) for _, labels, _ in loader) == len(dataset)
    with pytest.raises(rx.UsageError, match="collate_fn"):
        rx.DataLoader(dataset, collate_fn=list)
    with pytest.raises(rx.UsageError, match="'batchsize'"):
        rx.DataLoader(dataset, batchsize=3)
    with pytest.raises(rx.UsageError, match="rx.Dataset"):
        rx.DataLoader([1, 2, 3])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"prefetch_factor": 0}, "prefetch_factor=0"),
        ({"num_threads": -1}, "num_threads=-1"),
        ({"rank": 2, "world_size": 2}, "rank=2"),
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"group_by": "well"}, "group_by='well'"),
        ({"sampler": [1], "shuffle": True}, "sampler"),
        ({"sampler": [1], "batch_sampler": [[1]]}, "batch_sampler"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(dataset, arguments, message):
    """One line that names the argument and its value."""
    with pytest.raises(rx.UsageError, match=message):
        rx.DataLoader(dataset, **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_said(dataset):
    """device="cuda" without a GPU is one line that says what is missing."""
    with pytest.raises(rx.UsageError, match="torch"):
        rx.DataLoader(dataset, device="cuda")
    assert rx.DataLoader(dataset).device == torch.device("cpu")


def test_report_tells_who_waited(dataset):
    """A slow consumer makes the loader not the limit; a fast one waits. Both are said in a sentence."""
    slow = rx.DataLoader(dataset, batch_size=4)
    for _ in slow:
        time.sleep(0.1)
    report = slow.report()
    assert report["sites"] == len(dataset) and report["batches"] == 12
    assert report["worked_s"] > 1.0 and report["waiting_share"] < 0.5
    fast = rx.DataLoader(dataset, batch_size=4)
    for _ in fast:
        pass
    assert fast.report()["waiting_share"] > 0.5 and "IO-bound: the model waited" in fast.report()["sentence"]


# On a GPU ------------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("level", ["plate", "site"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_gpu_batches_equal_cpu_batches(rxrx_root, stats, level, channels_last):
    """The same graph on the GPU: the same bits, raw and normalised."""
    for dtype in ("float32", "float16", "uint8"):
        dataset = rx.Dataset(rxrx_root, stats=stats, normalize=level, augment=POLICY, views=2, dtype=dtype)
        cpu, gpu = (
            rx.DataLoader(dataset, batch_size=10, shuffle=True, device=device, channels_last=channels_last)
            for device in ("cpu", "cuda")
        )
        for (expected, labels, meta), (found, gpu_labels, gpu_meta) in zip(cpu, gpu, strict=True):
            assert torch.equal(labels, gpu_labels) and torch.equal(meta["site_index"], gpu_meta["site_index"])
            for a, b in zip(expected, found):
                assert b.is_cuda and torch.equal(a, b.cpu())
