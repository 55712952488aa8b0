"""Streaming every layout: Kaggle, WILDS with its RGB files, and another screen's TIFFs, against Pillow."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import rxrx_fast as rx
from rxrx_fast.synth import writer as synthetic


@pytest.fixture(scope="module")
def wilds_root(rxrx_root, tmp_path_factory):
    """The generated data as WILDS packs it: one RGB file a site, channels 1 to 3, half the size from the centre."""
    root = tmp_path_factory.mktemp("wilds")
    catalog = rx.Catalog.read(rxrx_root)
    for row, files in zip(catalog.table.itertuples(), catalog.files(range(len(catalog)), (1, 2, 3))):
        rgb = np.stack([np.asarray(Image.open(f))[16:48, 16:48] for f in files], axis=-1)
        path = root / "images" / row.experiment / f"Plate{row.plate}" / f"{row.well}_s{row.site}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgb).save(path)
    pd.read_csv(rxrx_root / "metadata.csv").to_csv(root / "metadata.csv", index=False)
    return root


def check(dataset, decode):
    """Every site through the loader and through dataset[i], raw, against ``decode(files)``."""
    at = 0
    for images, _labels, meta in rx.DataLoader(dataset, batch_size=5):
        for image, site in zip(images, meta["site_index"].tolist()):
            expected = decode(dataset.catalog.files([at])[0])
            np.testing.assert_array_equal(image.numpy(), expected)
            assert torch.equal(dataset[at][0], image)
            assert site == dataset.catalog.table.index[at]
            at += 1
    assert at == len(dataset) > 0


@pytest.mark.parametrize("channels", [(1, 2, 3), (3, 1)])
def test_wilds_rgb_files_are_channels(wilds_root, channels):
    """RGB comes out as channels 1 to 3, in the order asked for."""
    dataset = rx.Dataset(wilds_root, dtype="uint8", channels=channels)
    assert dataset.catalog.layout.name == "wilds"
    assert dataset.image_size == (32, 32)
    check(dataset, lambda files: np.asarray(Image.open(files[0])).transpose(2, 0, 1)[[c - 1 for c in channels]])


def test_wilds_standard_transform(wilds_root):
    """normalize="site", augment="wilds": each image has mean 0 and deviation 1 by channel, also in batches."""
    dataset = rx.Dataset(wilds_root, normalize="site", augment="wilds")
    batches = [images for images, _, _ in rx.DataLoader(dataset, batch_size=16, shuffle=True)]
    assert sum(map(len, batches)) == len(dataset)
    for images in batches:
        assert images.shape[1:] == (3, 32, 32)
        np.testing.assert_allclose(images.double().mean((2, 3)), 0, atol=1e-5)
        np.testing.assert_allclose(images.double().std((2, 3), correction=0), 1, atol=1e-5)


def test_kaggle_layout_streams(tmp_path):
    """The competition's layout: labels where the CSVs have them, -1 where they do not, pixels as Pillow's."""
    root = synthetic.generate(
        tmp_path / "kaggle", layout="kaggle", experiments=2, plates=1, wells=5, sites=2, size=32, workers=1, quiet=True
    )
    dataset = rx.Dataset(root, dtype="uint8")
    check(dataset, lambda files: np.stack([np.asarray(Image.open(f)) for f in files]))
    test = rx.Dataset(root, split="test", dtype="uint8")
    treated = (test.catalog.table["well_type"] == "treatment").to_numpy()
    assert (test.labels[treated] == -1).all()
    assert (test.labels[~treated] >= 1108).all()
    assert treated.any()


def test_another_screens_tiffs_stream(tmp_path):
    """8-bit TIFFs named by a template of the user's, with labels, through the same loader."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"experiment": "screen-1", "plate": 1, "well": [f"A{i:02d}" for i in range(1, 8)], "site": 1, "label": range(7)}
    )
    for well in frame["well"]:
        for channel in (1, 2, 3, 4, 5):
            path = tmp_path / "screen-1" / f"{well}_s1_w{channel}.tif"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (40, 56), dtype=np.uint8)).save(path)
    catalog = rx.Catalog.from_frame(frame, path="{experiment}/{well}_s{site}_w{channel}.tif", channels=5, root=tmp_path)
    dataset = rx.Dataset(catalog, dtype="uint8")
    assert dataset.image_size == (40, 56)
    assert dataset.labels.tolist() == list(range(7))
    check(dataset, lambda files: np.stack([np.asarray(Image.open(f)) for f in files]))
    with pytest.raises(rx.UsageError, match="square"):
        rx.Dataset(catalog, dtype="uint8", augment="wilds")
    flipped = rx.Dataset(catalog, dtype="uint8", augment=rx.Policy(hflip=1.0))
    images, _, _ = next(iter(rx.DataLoader(flipped, batch_size=7)))
    assert torch.equal(images, next(iter(rx.DataLoader(dataset, batch_size=7)))[0].flip(3))
