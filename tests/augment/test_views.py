"""From policies and statistics to finished pixels, against float64 arithmetic on Pillow's pixels."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from loading import pillow_pixels
from rxrx_kernels.augment import warp

import rxrx_fast as rx
from rxrx_fast.augment import geometry
from rxrx_fast.augment.policy import PRESETS


def drawn(dataset, i, view=0, seed=0):
    """The draws of sample i."""
    return dataset.policies[view].draw(seed, 0, dataset.catalog.table.index.to_numpy()[[i]], view, 6)


@pytest.mark.parametrize("name", ["deepnoise-easy", "deepnoise-normal", "deepnoise-hard", "rcic-first-place"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
def test_presets_make_every_type(rxrx_root, stats, name, dtype):
    """Rounded types are float32 rounded once; raw pixels are the geometry's alone."""
    policy = dataclasses.replace(PRESETS[name], cutmix=0.0)
    dataset = rx.Dataset(rxrx_root, stats=stats, augment=policy, dtype=dtype)
    exact = rx.Dataset(rxrx_root, stats=stats, augment=policy)
    for i in range(0, len(dataset), 5):
        image = dataset[i][0]
        assert image.dtype == getattr(torch, dtype)
        assert image.shape == (6, *dataset.image_size)
        if dtype != "uint8":
            assert torch.equal(image, exact[i][0].to(image.dtype))
    if dtype == "uint8":
        still = dataclasses.replace(policy, stats_jitter=0.0, gain=0.0, offset=0.0, border="zero")
        plain = rx.Dataset(rxrx_root, normalize="none", augment=still)
        moved = rx.Dataset(rxrx_root, augment=still, dtype="uint8")
        expected = torch.floor(plain[3][0] + 0.5).to(torch.uint8)
        assert torch.equal(moved[3][0], expected)


def test_the_border_is_zero_after_normalisation(rxrx_root, stats):
    """deepnoise-easy shifts zeros in, exactly, and not the plate's dark; "zero" shifts in black."""
    policy = rx.Policy(zoom=(0.5, 0.5), border="mean", stats_jitter=0.1)
    image = rx.Dataset(rxrx_root, stats=stats, augment=policy)[0][0]
    side = image.shape[1]
    frame = torch.ones(side, side, dtype=torch.bool)
    quarter = side // 4
    frame[quarter:-quarter, quarter:-quarter] = False
    assert (image[:, frame] == 0).all()
    assert (image[:, ~frame] != 0).any()
    policy = dataclasses.replace(policy, stats_jitter=0.0)
    raw = rx.Dataset(rxrx_root, normalize="none", augment=dataclasses.replace(policy, border="zero"))[0][0]
    assert (raw[:, frame] == 0).all()
    assert (raw[:, ~frame] > 0).any()
    edge = rx.Dataset(rxrx_root, normalize="none", augment=dataclasses.replace(policy, border="edge"))[0][0]
    assert torch.equal(edge[:, 0, 0], rx.Dataset(rxrx_root, normalize="none")[0][0][:, 0, 0])


def test_erasing_leaves_zeros_where_the_draw_says(rxrx_root, stats):
    """The rectangle is zero in every channel and nothing else changes; its area is within the policy's."""
    policy = rx.Policy(erase=1.0)
    dataset = rx.Dataset(rxrx_root, stats=stats, augment=policy)
    plain = rx.Dataset(rxrx_root, stats=stats)
    for i in range(6):
        side = dataset.image_size
        y0, y1, x0, x1 = geometry.box(drawn(dataset, i).erased, None, side, side)[0]
        assert 0.01 < (y1 - y0) * (x1 - x0) / (side[0] * side[1]) < 0.42
        expected = plain[i][0].clone()
        expected[:, y0:y1, x0:x1] = 0
        assert torch.equal(dataset[i][0], expected)


def test_gain_offset_and_gamma_are_those_of_float64(rxrx_root, stats):
    """A ((255 (v / 255)^g - m) / s) + b, by channel, within float32's rounding."""
    policy = rx.Policy(gain=0.1, offset=0.1, gamma=0.5, stats_jitter=0.1)
    dataset = rx.Dataset(rxrx_root, stats=stats, augment=policy)
    linear = rx.Dataset(rxrx_root, stats=stats, augment=dataclasses.replace(policy, gamma=0.0))
    groups, center, scale, _ = stats.normalizer(dataset.normalize, dataset.catalog)
    for i in (0, 5):
        d = drawn(dataset, i)
        a, b, g, m, s = (part[0][:, None, None] for part in (d.gain, d.offset, d.gamma, d.mean_factor, d.std_factor))
        v = pillow_pixels(dataset.catalog, i).astype(np.float64)
        m, s = m * center[groups[i]][:, None, None], s * scale[groups[i]][:, None, None]
        np.testing.assert_allclose(dataset[i][0], a * (255 * (v / 255) ** g - m) / s + b, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(linear[i][0], a * (v - m) / s + b, rtol=2e-5, atol=2e-5)


def test_channels_take_their_statistics_along(rxrx_root, stats):
    """Shuffled channels are the same pictures in another order; dropped ones are zero, and never all of them."""
    plain = rx.Dataset(rxrx_root, stats=stats)
    dataset = rx.Dataset(rxrx_root, stats=stats, augment=rx.Policy(channel_shuffle=1.0, channel_dropout=0.5))
    seen = set()
    for i in range(len(dataset)):
        order = drawn(dataset, i).order[0]
        image, whole = dataset[i][0], plain[i][0]
        for k, source in enumerate(order):
            assert torch.equal(image[k], whole[source] if source >= 0 else torch.zeros_like(image[k]))
        assert (order >= 0).any()
        seen.add(tuple(order))
    assert len(seen) > len(dataset) // 2


@pytest.mark.parametrize("size", [32, (48, 40), 100])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest", "antialias"])
def test_any_size_is_made(rxrx_root, size, interpolation):
    """Resizing agrees with SciPy's sampling at pixel centres (Pillow's, where shrinking is smoothed)."""
    from PIL import Image
    from scipy import ndimage

    dataset = rx.Dataset(rxrx_root, normalize="none", size=size, augment=rx.Policy(interpolation=interpolation))
    shape = size if isinstance(size, tuple) else (size, size)
    image = dataset[2][0].numpy()
    assert image.shape == (6, *shape)
    assert dataset.size == shape
    for plane, source in zip(image, pillow_pixels(dataset.catalog, 2)):
        ideal = [(np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(shape, source.shape)]
        if interpolation == "antialias":
            picture = Image.fromarray(source.astype(np.float32), "F").resize(shape[::-1], Image.Resampling.BILINEAR)
            # Beyond the edge the kernel repeats pixels, where Pillow leaves them out.
            inner = slice(3, -3)
            assert np.abs(plane - np.asarray(picture))[inner, inner].max() < 3
        elif interpolation == "nearest":
            rows, columns = (np.clip(np.floor(p + 0.5), 0, m - 1).astype(int) for p, m in zip(ideal, source.shape))
            np.testing.assert_array_equal(plane, source[np.ix_(rows, columns)])
        else:
            grid = np.meshgrid(*ideal, indexing="ij")
            expected = ndimage.map_coordinates(source.astype(np.float64), grid, order=1, mode="nearest")
            assert np.abs(plane - expected).max() < 255 / 256 + 1e-3


def test_noise_and_blur_do_what_they_say(rxrx_root):
    """Noise has the deviation drawn and differs by site, view and channel; blur keeps the mean and lowers detail."""
    noisy = rx.Dataset(rxrx_root, normalize="none", augment=rx.Policy(noise=(4.0, 4.0)), views=2)
    plain = rx.Dataset(rxrx_root, normalize="none")
    middling = [(plain[i][0] > 25) & (plain[i][0] < 230) for i in (0, 1)]
    found = [[image - plain[i][0] for image in noisy[i][0]] for i in (0, 1)]
    for difference, mask in zip(found, middling):
        for view in difference:
            assert abs(view[mask].std() - 4) < 0.2
            assert abs(view[mask].mean()) < 0.2
    both = middling[0] & middling[1]
    pairs = [(found[0][0], found[0][1], middling[0]), (found[0][0], found[1][0], both)]
    for a, b, mask in pairs:
        assert abs(np.corrcoef(a[mask], b[mask])[0, 1]) < 0.1
    blurred = rx.Dataset(rxrx_root, normalize="none", augment=rx.Policy(blur=(2.0, 2.0)))[0][0]
    assert abs(blurred.mean() - plain[0][0].mean()) < 1
    assert blurred.diff(dim=2).abs().mean() < 0.6 * plain[0][0].diff(dim=2).abs().mean()


def test_elastic_deformation_bends_within_its_limit(rxrx_root):
    """A ramp shows where each pixel came from: displacements stay within the limit and change smoothly."""
    from rxrx_kernels.augment.site import augment_site, plain

    policy = rx.Policy(elastic=5.0)
    bend = policy.draw(0, 0, np.array([3]), 0, 1).displacement[0]
    ramp = np.tile(np.arange(0, 256, 2, dtype=np.uint8), (128, 1))[None]
    out = np.empty((1, 128, 128), np.float32)
    how = plain(1)._replace(
        displacement=np.rint(bend * 256).astype(np.int32), sampling=np.array([warp.BILINEAR, warp.EDGE])
    )
    augment_site(ramp, out, how)
    moved = (out[0] / 2 - np.arange(128))[:, 8:-8]
    assert 0.5 < np.abs(moved).max() <= 5.01
    assert np.abs(np.diff(moved, axis=0)).max() < 0.5


def test_quantile_matching_gives_groups_one_distribution():
    """A group that is darker and flatter than the reference has the reference's quantiles after its mapping."""
    rng = np.random.default_rng(0)
    reference = np.clip(rng.gamma(4.0, 16.0, 200_000), 0, 255)
    group = np.clip(reference * 0.6 + 20, 0, 255)
    counts = [np.bincount(np.rint(v).astype(int), minlength=256)[None] for v in (group, reference)]
    mapping = rx.Normalize("plate", method="quantile").mapping(*counts)[0]
    assert (np.diff(mapping) >= 0).all()
    shares = np.linspace(0.02, 0.98, 25)
    found = np.quantile(mapping[np.rint(group).astype(int)], shares)
    # A grey value of the group is worth 1 / 0.6 of the reference's.
    assert np.abs(found - np.quantile(reference, shares)).max() < 1.7


def test_quantile_matched_pixels_are_mapped_ones(rxrx_root, stats):
    """Each plate's pixels go through its own table, then through the statistics of all sites."""
    dataset = rx.Dataset(rxrx_root, stats=stats, normalize=rx.Normalize("plate", method="quantile"))
    group, center, scale, mapping = stats.normalizer(dataset.normalize, dataset.catalog)
    whole = np.concatenate([pillow_pixels(dataset.catalog, j).reshape(6, -1) for j in range(len(dataset))], axis=1)
    np.testing.assert_allclose(center[0], whole.mean(1), rtol=1e-12)
    for i in (0, len(dataset) - 1):
        table = mapping[group[i]]
        expected = np.stack([row[plane] for row, plane in zip(table, pillow_pixels(dataset.catalog, i))])
        expected = (expected - center[0][:, None, None]) / scale[0][:, None, None]
        np.testing.assert_allclose(dataset[i][0], expected, rtol=1e-5, atol=1e-5)


def test_clipping_cuts_the_tails(rxrx_root, stats):
    """No value lies beyond the plate's percentiles; those between are unchanged but for the statistics."""
    dataset = rx.Dataset(rxrx_root, stats=stats, normalize=rx.Normalize("plate", clip=(2, 98)))
    codes, _names = dataset.catalog.group_keys("plate")
    group, center, scale, _mapping = stats.normalizer(dataset.normalize, dataset.catalog)
    for i in (0, len(dataset) - 1):
        pixels = np.stack([pillow_pixels(dataset.catalog, j) for j in np.flatnonzero(codes == codes[i])])
        low, high = np.percentile(pixels, (2, 98), axis=(0, 2, 3))[:, :, None, None]
        m, s = (part[group[i]][:, None, None] for part in (center, scale))
        expected = (np.clip(pillow_pixels(dataset.catalog, i), low, high) - m) / s
        np.testing.assert_allclose(dataset[i][0], expected, rtol=1e-4, atol=1e-4)


def test_too_few_control_wells_fall_back_and_say_so(rxrx_root, stats):
    """Plates with fewer wells than asked take their experiment's statistics, with one warning that counts."""
    normalize = rx.Normalize("plate", wells="negative_control", min_wells=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = rx.Dataset(rxrx_root, stats=stats, normalize=normalize)
    experiments = rx.Normalize("experiment", wells="negative_control")
    wells = (
        dataset.catalog.table.query("well_type == 'negative_control'")
        .groupby(["experiment", "plate"], observed=True)["well"]
        .nunique()
    )
    assert (wells < 2).any(), "the data set is one in which some plates have a single control"
    assert any("take the statistics of their experiment" in str(w.message) for w in caught)
    groups, center, _, _ = stats.normalizer(experiments, dataset.catalog)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine, found, _, _ = stats.normalizer(normalize, dataset.catalog)
    for i, row in enumerate(dataset.catalog.table.itertuples()):
        if wells.get((row.experiment, row.plate), 0) < 2:
            np.testing.assert_array_equal(found[mine[i]], center[groups[i]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": "site", "method": "quantile"}, "quantile"),
        ({"clip": (5, 1)}, "clip"),
        ({"clip": 5}, "clip"),
        ({"min_wells": 0}, "min_wells"),
    ],
)
def test_normalisations_that_cannot_be_are_refused(arguments, message):
    """The message names the field."""
    with pytest.raises(rx.UsageError, match=message):
        rx.Normalize(**arguments)
