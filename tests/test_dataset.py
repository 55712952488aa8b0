"""Dataset: what a sample is, and that torch's own DataLoader can serve it."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from rxrx_kernels.orient.site import orient_site

import rxrx_fast as rx
from rxrx_fast.stats import FILE_NAME, default_path
from rxrx_fast.stats.normalize import Normalize


@pytest.fixture(scope="module")
def stats(rxrx_root):
    return rx.PlateStats.fit(rx.Catalog.read(rxrx_root), quiet=True)


def pillow(dataset, i):
    return np.stack([np.asarray(Image.open(f)) for f in dataset.catalog.files([i], dataset.channels)[0]])


@pytest.mark.parametrize("channels", [(1, 2, 3, 4, 5, 6), (6, 1), (3,)])
def test_raw_pixels_are_pillows(rxrx_root, channels):
    """dtype="uint8" gives what Pillow decodes, in the order of the channels asked for."""
    dataset = rx.Dataset(rxrx_root, dtype="uint8", channels=channels)
    for i in (0, 7, len(dataset) - 1):
        image, label, meta = dataset[i]
        assert image.dtype == torch.uint8
        np.testing.assert_array_equal(image.numpy(), pillow(dataset, i))
        assert label == dataset.catalog.table["sirna_id"].iat[i]
        assert meta["site_index"] == dataset.catalog.table.index[i]


@pytest.mark.parametrize("level", ["global", "cell_type", "experiment", "plate", "site"])
def test_normalised_pixels_are_those_of_float64(rxrx_root, stats, level):
    """(x - mean) / std of the level's group, within float32's rounding; channels keep their own statistics."""
    dataset = rx.Dataset(rxrx_root, normalize=level, stats=stats, channels=(5, 2))
    codes, _ = dataset.catalog.group_keys(level)
    for i in (0, len(dataset) - 1):
        members = [i] if level == "site" else np.flatnonzero(codes == codes[i])
        pixels = np.stack([pillow(dataset, j) for j in members]).astype(np.float64)
        mean, std = pixels.mean((0, 2, 3))[:, None, None], pixels.std((0, 2, 3))[:, None, None]
        expected = (pillow(dataset, i) - mean) / std
        np.testing.assert_allclose(dataset[i][0].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_without_normalisation_pixels_keep_their_values(rxrx_root):
    """normalize="none" casts to float32 and changes nothing."""
    dataset = rx.Dataset(rxrx_root, normalize="none")
    np.testing.assert_array_equal(dataset[3][0].numpy(), pillow(dataset, 3).astype(np.float32))


def test_views_are_independent_draws_of_one_site(rxrx_root, stats):
    """Each view is the site under its own draw: geometry and jitter as the policy drew them, by epoch."""
    policy = rx.Policy(hflip=0.5, vflip=0.5, rot90=1.0, stats_jitter=0.1)
    dataset = rx.Dataset(rxrx_root, stats=stats, augment=policy, views=3, seed=5)
    dataset.set_epoch(2)
    codes, names = dataset.catalog.group_keys("plate")
    table = stats.frame("plate").set_index(["plate", "channel"])
    different = 0
    for i in range(8):
        images, _, _ = dataset[i]
        assert len(images) == 3
        site = dataset.catalog.table.index.to_numpy()[[i]]
        for view, image in enumerate(images):
            draws = policy.draw(5, 2, site, view, 6)
            rows = table.loc[names[codes[i]]]
            center = (rows["mean"].to_numpy() * draws.mean_factor[0]).astype(np.float32)
            scale = (1 / (rows["std"].to_numpy() * draws.std_factor[0])).astype(np.float32)
            expected = np.empty(image.shape, np.float32)
            orient_site(pillow(dataset, i), expected, int(draws.codes[0]), center, scale)
            np.testing.assert_array_equal(image.numpy(), expected)
        different += not torch.equal(images[0], images[1])
    assert different == 8
    dataset.set_epoch(3)
    assert not torch.equal(dataset[0][0][0], images[0])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_torchs_dataloader_serves_it(rxrx_root, stats, method):
    """Two worker processes, started either way, give the samples of this process, in order."""
    dataset = rx.Dataset(rxrx_root, stats=stats, augment="wilds")
    # The kernels have run in this process before it forks.
    expected = [dataset[i] for i in range(len(dataset))]
    loader = torch.utils.data.DataLoader(dataset, batch_size=5, num_workers=2, multiprocessing_context=method)
    at = 0
    for images, labels, meta in loader:
        for image, label, site in zip(images, labels, meta["site_index"]):
            assert torch.equal(image, expected[at][0])
            assert label == expected[at][1]
            assert site == expected[at][2]["site_index"]
            at += 1
    assert at == len(dataset)


def test_incomplete_sites_are_left_out_aloud(rxrx_root, tmp_path):
    """A site without one of its files is left out with a warning that counts, unless that channel is not wanted."""
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(rxrx_root, root)
    whole = rx.Catalog.read(root)
    victim = whole.files([4])[0][5]
    import os

    os.unlink(victim)
    with pytest.warns(UserWarning, match=f"1 of {len(whole)} sites lack files"):
        dataset = rx.Dataset(root, dtype="uint8")
    assert len(dataset) == len(whole) - 1
    assert whole.table["site_id"].iat[4] not in set(dataset.catalog.table["site_id"])
    assert len(rx.Dataset(root, dtype="uint8", channels=(1, 2, 3, 4, 5))) == len(whole)


def test_statistics_are_fitted_once_and_kept_beside_the_data(rxrx_root, tmp_path):
    """The first data set fits and saves; the second only reads."""
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(rxrx_root, root)
    first = rx.Dataset(root, split="train")
    saved = (root / FILE_NAME).stat().st_mtime_ns
    assert len(rx.PlateStats.load(root / FILE_NAME)) == len(rx.Catalog.read(root))
    second = rx.Dataset(root, split="test")
    assert (root / FILE_NAME).stat().st_mtime_ns == saved
    assert len(first) + len(second) == len(rx.Catalog.read(root))


def test_statistics_of_a_read_only_root_go_to_the_cache(rxrx_root, tmp_path, monkeypatch):
    """Where the root can't be written, the user's cache folder keeps them, by the root's path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    dataset = rx.Dataset(rxrx_root)
    (kept,) = (tmp_path / "rxrx_fast").glob("*.npz")
    assert kept == default_path(rxrx_root)
    assert len(rx.PlateStats.load(kept)) == len(dataset)
    assert default_path(tmp_path) != kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int32"}, "dtype='int32'"),
        ({"channels": (0, 1)}, "channels"),
        ({"channels": (1, 1)}, "channels"),
        ({"size": 0}, "size=0"),
        ({"views": 0}, "views=0"),
        ({"views": []}, "views"),
        ({"views": ["wilds"], "augment": "wilds"}, "list of views"),
        ({"augment": "strong"}, "augment='strong'"),
        ({"normalize": "batch"}, "level='batch'"),
        ({"split": "validation"}, "validation"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(rxrx_root, arguments, message):
    """One line that names the argument and its value."""
    with pytest.raises(rx.UsageError, match=message) as caught:
        rx.Dataset(rxrx_root, **arguments)
    assert "\n" not in str(caught.value)


def test_indices_are_those_of_a_sequence(rxrx_root):
    """Negative indices count from the end; beyond it is an IndexError, so iteration ends."""
    dataset = rx.Dataset(rxrx_root, dtype="uint8")
    assert torch.equal(dataset[-1][0], dataset[len(dataset) - 1][0])
    with pytest.raises(IndexError):
        dataset[len(dataset)]


@pytest.mark.real
def test_real_pixels_are_pillows(real_root):
    """Every complete real site, raw, through the map-style data set."""
    with pytest.warns(UserWarning, match="lack files"):
        dataset = rx.Dataset(real_root, dtype="uint8")
    assert len(dataset) == 12
    for i in range(len(dataset)):
        np.testing.assert_array_equal(dataset[i][0].numpy(), pillow(dataset, i))


def test_normalisations_are_comparable_objects():
    """A level's name stands for its Normalize."""
    assert Normalize.of("plate") == rx.Normalize(level="plate")
    assert Normalize.of(Normalize("site")) == Normalize("site")
