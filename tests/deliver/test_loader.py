"""DataLoader: the right pixels in the right order, and the arguments of torch's."""

import time

import numpy as np
import pytest
import torch
from loading import POLICY, by_site
from PIL import Image

import rxrx_fast as rx


def test_raw_batches_are_what_pillow_decodes(rxrx_root, decoder):
    """uint8, unshuffled: every site once, in order, bit for bit."""
    dataset = rx.Dataset(rxrx_root, dtype="uint8")
    at = 0
    for images, labels, _meta in rx.DataLoader(dataset, batch_size=7):
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
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
    seen = []
    for images, labels, meta in loader:
        for i, site in enumerate(meta["site_index"].tolist()):
            seen.append(site)
            image, label, single = dataset[row[site]]
            assert labels[i] == label
            assert {name: int(codes[i]) for name, codes in meta.items()} == single
            if views == 1:
                assert torch.equal(images[i], image)
            else:
                assert all(torch.equal(view[i], expected) for view, expected in zip(images, image, strict=True))
    assert sorted(seen) == sorted(row)


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
    assert len(expected) == len(dataset)
    assert found.keys() == expected.keys()
    for site, image in found.items():
        assert image.dtype == torch.float16
        assert torch.equal(image, expected[site].half())
    assert torch.equal(half[3][0], dataset[3][0].half())


def test_channels_last_is_torchs_memory_format(dataset):
    """Delivered as torch means it: NCHW shape, NHWC strides."""
    images, _, _ = next(iter(rx.DataLoader(dataset, batch_size=4, channels_last=True)))
    assert images.shape == (4, 6, 64, 64)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_epochs_follow_one_another(dataset):
    """Each iteration is the next epoch, in another order; set_epoch goes back, and repeats exactly."""
    loader = rx.DataLoader(dataset, batch_size=16, shuffle=True, seed=3)
    orders = [torch.cat([meta["site_index"] for _, _, meta in loader]) for _ in range(3)]
    assert len(loader) == 3
    for order in orders:
        assert sorted(order.tolist()) == sorted(dataset.catalog.table.index)
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[1], orders[2])
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
        assert torch.equal(image, expected_image)
        assert torch.equal(site, expected_site)
    with pytest.raises(rx.UsageError, match="seed"):
        rx.DataLoader(dataset, batch_size=10, seed=4).load_state_dict(state)


def test_short_last_batch_and_drop_last(dataset):
    """48 samples by 10: five batches of which the last has 8, or four."""
    sizes = [len(labels) for _, labels, _ in rx.DataLoader(dataset, batch_size=10)]
    assert sizes == [10, 10, 10, 10, 8]
    loader = rx.DataLoader(dataset, batch_size=10, drop_last=True)
    assert [len(labels) for _, labels, _ in loader] == [10] * 4
    assert len(loader) == 4


def test_ranks_share_the_epoch(dataset):
    """Two ranks: the same number of steps, disjoint sites, together one rank's global batches."""
    one = rx.DataLoader(dataset, batch_size=8, shuffle=True, seed=2)
    two = [rx.DataLoader(dataset, batch_size=4, shuffle=True, seed=2, rank=r, world_size=2) for r in (0, 1)]
    samples = 0
    for whole, first, second in zip(one, *two, strict=True):
        assert torch.equal(torch.cat([first[0], second[0]]), whole[0])
        assert torch.equal(torch.cat([first[1], second[1]]), whole[1])
        samples += len(whole[1])
    assert samples == len(dataset)


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
    assert [len(labels) for _, labels, _ in loader] == [20, 20, 8]
    assert len(loader) == 3
    sampler = torch.utils.data.DistributedSampler(dataset, num_replicas=2, rank=1, shuffle=True)
    loader = rx.DataLoader(dataset, batch_size=7, sampler=sampler)
    loader.set_epoch(5)
    sampler.set_epoch(5)
    assert [s for _, _, meta in loader for s in meta["site_index"].tolist()] == index[list(sampler)].tolist()


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
    ("arguments", "message"),
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


def test_an_idle_gpu_is_said(dataset, monkeypatch):
    """device="auto" with a GPU and without a package that it needs: the CPU, and a warning that names the package."""
    from rxrx_fast.devices import device

    monkeypatch.setattr(device, "missing_for_cuda", lambda: ["numba-cuda can't be imported"])
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: True)
    with pytest.warns(UserWarning, match="although there is a GPU: numba-cuda can't be imported"):
        assert device.resolve("auto") is None


def test_report_tells_who_waited(dataset):
    """A slow consumer makes the loader not the limit; a fast one waits. Both are said in a sentence."""
    slow = rx.DataLoader(dataset, batch_size=4)
    for _ in slow:
        time.sleep(0.1)
    report = slow.report()
    assert report["sites"] == len(dataset)
    assert report["batches"] == 12
    assert report["worked_s"] > 1.0
    assert report["waiting_share"] < 0.5
    fast = rx.DataLoader(dataset, batch_size=4)
    for _ in fast:
        pass
    assert fast.report()["waiting_share"] > 0.5
    assert "IO-bound: the model waited" in fast.report()["sentence"]


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
            assert torch.equal(labels, gpu_labels)
            assert torch.equal(meta["site_index"], gpu_meta["site_index"])
            for a, b in zip(expected, found):
                assert b.is_cuda
                assert torch.equal(a, b.cpu())
