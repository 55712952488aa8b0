"""Illumination: a known field is estimated from the images and divided out."""

import numpy as np
import pytest

import rxrx_fast as rx
from rxrx_fast.stats.illumination import block_shift, illumination_factors


def lamp(height, width):
    """A lamp that falls off to 60% in one corner; mean 1."""
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    light = 1 - 0.25 * (x - 0.3) ** 2 - 0.4 * (y - 0.4) ** 2 - 0.1 * x * y
    return light / light.mean()


@pytest.mark.parametrize("size", [(512, 512), (100, 60), (65, 64), (5, 3)])
def test_a_known_lamp_is_undone(size):
    """Factors times the light are 1 at every pixel, interpolated between the nodes, within a fraction of a per cent."""
    side = 1 << block_shift(size)
    light = lamp(*size)
    pixels = np.rint(1e6 * light).astype(np.int64)
    field = np.add.reduceat(np.add.reduceat(pixels, range(0, size[0], side), 0), range(0, size[1], side), 1)
    factors, shift = illumination_factors(field[None, None], size)
    assert 1 << shift == side
    assert factors.dtype == np.float32
    rows, columns = ((np.arange(n) / side) for n in size)
    from scipy.ndimage import map_coordinates

    gain = map_coordinates(factors[0, 0].astype(float), np.meshgrid(rows, columns, indexing="ij"), order=1)
    assert gain.shape == size
    assert np.abs(gain * light - 1).max() < (0.005 if max(size) > 5 else 0.2)


def test_blocks_are_few_and_a_dark_plate_is_left_alone():
    """At most 32 blocks on a side; no light at all gives factors of 1."""
    assert [block_shift((n, n)) for n in (32, 33, 512, 513, 2048)] == [0, 1, 4, 5, 6]
    factors, _ = illumination_factors(np.zeros((1, 2, 32, 32), np.int64), (64, 64))
    np.testing.assert_allclose(factors, 1)


def test_the_loaders_pixels_are_corrected(copy, tmp_path):
    """Uneven illumination drawn over all files is gone from the mean of corrected images, and visible without."""
    from PIL import Image

    catalog = rx.Catalog.read(copy)
    light = lamp(64, 64)
    for path in {p for files in catalog.files(range(len(catalog)), (1, 2)) for p in files}:
        noise = np.random.default_rng(abs(hash(path)) % 2**32).integers(100, 140, (64, 64))
        Image.fromarray(np.rint(noise * light).astype(np.uint8)).save(path)
    stats = rx.PlateStats.fit(catalog, quiet=True)
    spread = {}
    for on in (False, True):
        normalize = rx.Normalize("none", illumination=on)
        dataset = rx.Dataset(catalog, normalize=normalize, stats=stats, channels=(2, 1))
        mean = np.mean([dataset[i][0].numpy() for i in range(len(dataset))], axis=(0, 1))
        blocks = mean.reshape(8, 8, 8, 8).mean((1, 3))
        spread[on] = np.ptp(blocks) / blocks.mean()
    assert spread[False] > 0.3
    assert spread[True] < 0.03
    flipped = rx.Dataset(catalog, normalize=normalize, stats=stats, channels=(2, 1), augment=rx.Policy(transpose=1.0))
    np.testing.assert_allclose(flipped[3][0], dataset[3][0].transpose(1, 2), rtol=1e-5)
