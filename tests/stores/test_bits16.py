"""16-bit images end to end: TIFF and PNG files of another screen, as NumPy, tifffile and Pillow have them."""

import os

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from loading import REAL
from PIL import Image
from scipy import ndimage

import rxrx_fast as rx
from rxrx_fast.viz.augmented import draw_augmented
from rxrx_fast.viz.plates import draw_plates
from rxrx_fast.viz.site import draw_site

CHANNELS = 3
SIZE = (48, 64)
PATH = "{experiment}/Plate{plate}/{well}_s{site}_w{channel}"


def scene(seed, top):
    """Smooth spots on a dark ground, (3, H, W) uint16, up to about ``top``."""
    rng = np.random.default_rng(seed)
    spots = ndimage.gaussian_filter(rng.uniform(0, 1, (CHANNELS, *SIZE)), (0, 3, 3))
    spots = (spots - spots.min()) / np.ptp(spots)
    return (top * (0.05 + 0.9 * spots**2) + rng.uniform(0, top / 50, spots.shape)).astype(np.uint16)


def sites():
    """Two plates of six wells: the first as a camera of 12 bits gives them, the second with the whole range."""
    wells = ["B02", "B03", "B04", "C02", "C03", "C04"]
    frame = pd.DataFrame(
        [{"experiment": "screen-1", "plate": p, "well": w, "site": s} for p in (1, 2) for w in wells for s in (1, 2)]
    )
    kinds = {"B02": "negative_control", "B03": "positive_control"}
    frame["well_type"] = [kinds.get(well, "treatment") for well in frame["well"]]
    return frame.assign(label=np.arange(len(frame)) // 2)


def truth():
    """Pixels of all sites, (24, 3, H, W)."""
    return np.stack([scene(i, 4000 if plate == 1 else 65000) for i, plate in enumerate(sites()["plate"])])


def write_site(root, row, stack, ending):
    """One file a channel."""
    for channel, plane in enumerate(stack, 1):
        path = root / (PATH.format(**row, channel=channel) + ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        if ending == ".tif":
            order, compression = (("<", None), (">", None), ("<", "zlib"))[channel - 1]
            tifffile.imwrite(path, plane, byteorder=order, compression=compression, rowsperstrip=5)
        else:
            Image.fromarray(plane).save(path)


def catalog_of(root, ending=".tif"):
    return rx.Catalog.from_frame(sites(), path=PATH + ending, channels=CHANNELS, root=root)


@pytest.fixture(scope="module", params=[".tif", ".png"])
def catalog(request, tmp_path_factory):
    """The screen as TIFFs (of either order of bytes, plain and compressed) and as PNGs."""
    root = tmp_path_factory.mktemp("screen")
    for row, stack in zip(sites().to_dict("records"), truth()):
        write_site(root, row, stack, request.param)
    return catalog_of(root, request.param)


@pytest.fixture(scope="module")
def tiffs(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiffs")
    for row, stack in zip(sites().to_dict("records"), truth()):
        write_site(root, row, stack, ".tif")
    return catalog_of(root)


@pytest.fixture(scope="module")
def stats(tiffs):
    return rx.PlateStats.fit(tiffs, quiet=True)


def by_plate(values):
    """(2, 3, pixels) float64 of both plates."""
    return values.reshape(2, 12, CHANNELS, -1).transpose(0, 2, 1, 3).reshape(2, CHANNELS, -1).astype(np.float64)


# ------------------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("channels", [(1, 2, 3), (3, 1)])
def test_raw_pixels_are_the_files(catalog, channels):
    """dtype="uint16" through the loader and dataset[i], bit for bit, in the channels' order asked for."""
    dataset = rx.Dataset(catalog, dtype="uint16", channels=channels)
    assert dataset.image_size == SIZE
    assert dataset.store.dtype == np.uint16
    expected, seen = truth()[:, [c - 1 for c in channels]], 0
    for images, labels, meta in rx.DataLoader(dataset, batch_size=7, shuffle=True, num_threads=2):
        assert images.dtype == torch.uint16
        for image, label, site in zip(images, labels, meta["site_index"].tolist()):
            np.testing.assert_array_equal(image.numpy(), expected[site])
            np.testing.assert_array_equal(dataset[site][0].numpy(), expected[site])
            assert label == site // 2
            seen += 1
    assert seen == len(expected)


@pytest.mark.parametrize("level", ["none", "global", "plate", "site"])
def test_normalised_pixels_are_those_of_float64(tiffs, stats, level):
    """(x - mean) / std of the group, within float32's rounding; batches give the same bits as single samples."""
    pixels = truth().astype(np.float64)
    groups = {"none": None, "global": np.zeros(24, int), "plate": np.repeat([0, 1], 12), "site": np.arange(24)}[level]
    dataset = rx.Dataset(tiffs, stats=stats, normalize=level)
    batches = list(rx.DataLoader(dataset, batch_size=9, num_threads=2))
    assert sum(len(images) for images, _, _ in batches) == 24
    for images, _, meta in batches:
        for image, i in zip(images, meta["site_index"].tolist()):
            mean, std = np.zeros((CHANNELS, 1, 1)), np.ones((CHANNELS, 1, 1))
            if groups is not None:
                mine = pixels[groups == groups[i]]
                mean, std = (f(mine, axis=(0, 2, 3))[:, None, None] for f in (np.mean, np.std))
            np.testing.assert_allclose(image, (pixels[i] - mean) / std, rtol=1e-5, atol=2e-5)
            assert torch.equal(dataset[i][0], image)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_smaller_types_are_float32_rounded_once(tiffs, stats, dtype):
    """For every augmentation, in either memory format."""
    policy = rx.Policy(hflip=0.5, vflip=0.5, rotate=20, zoom=(0.8, 1.2), blur=(0.5, 2), noise=(0, 90), gamma=0.3)
    exact = rx.Dataset(tiffs, stats=stats, augment=policy, size=(32, 48))
    rounded = rx.Dataset(tiffs, stats=stats, augment=policy, size=(32, 48), dtype=dtype)
    for channels_last in (False, True):
        loaders = (rx.DataLoader(d, batch_size=8, channels_last=channels_last, seed=0) for d in (exact, rounded))
        pairs = [(a, b) for (a, _, _), (b, _, _) in zip(*loaders, strict=True)]
        assert len(pairs) == 3
        for a, b in pairs:
            assert torch.equal(a.to(getattr(torch, dtype)), b)
    assert torch.equal(exact[3][0].to(getattr(torch, dtype)), rounded[3][0])


@pytest.mark.parametrize("views", [1, 2])
def test_what_moves_pixels_is_that_of_float64(tiffs, views):
    """Flips, crops and resizing against SciPy's bilinear sampling, within the 1/256 of a pixel that positions have."""
    pixels = truth().astype(np.float64)
    size = (30, 80)
    dataset = rx.Dataset(
        tiffs, normalize="none", size=size, views=views, augment=rx.Policy(hflip=0.5, vflip=0.5, border="edge")
    )
    flipped = set()
    for i in range(0, 24, 3):
        images = dataset[i][0] if views > 1 else (dataset[i][0],)
        for view, image in enumerate(images):
            code = int(dataset.policies[view].draw(0, 0, np.array([i]), view, CHANNELS).codes[0])
            flipped.add(code)
            source = pixels[i][:, :: -1 if code & 2 else 1, :: -1 if code & 1 else 1]
            at = np.meshgrid(*((np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(size, SIZE)), indexing="ij")
            expected = np.stack([ndimage.map_coordinates(plane, at, order=1, mode="nearest") for plane in source])
            steepest = max(np.abs(np.diff(source, axis=axis)).max() for axis in (1, 2))
            np.testing.assert_allclose(image, expected, atol=steepest / 256)
    assert len(flipped) > 2


def test_raw_pixels_are_moved_and_not_normalised(tiffs):
    """uint16 output of a flip and of a resize: the grey values of normalize="none", rounded."""
    policy = rx.Policy(hflip=1.0, gain=0.5, gamma=0.5)
    flipped = rx.Dataset(tiffs, dtype="uint16", augment=policy)
    np.testing.assert_array_equal(flipped[5][0].numpy(), truth()[5][:, :, ::-1])
    still = rx.Policy(rotate=30)
    raw = rx.Dataset(tiffs, dtype="uint16", augment=still, size=40)[7][0].numpy()
    exact = rx.Dataset(tiffs, normalize="none", augment=still, size=40)[7][0].double().numpy()
    np.testing.assert_array_equal(raw, np.floor(exact + 0.5))
    assert raw.max() > 255


def test_mixing_and_torch_s_own_loader(tiffs, stats):
    """CutMix batches have soft labels; torch's DataLoader takes the data set, raw pixels too."""
    mixed = rx.Dataset(tiffs, stats=stats, augment=rx.Policy(cutmix=1.0, mixup=1.0))
    images, labels, _ = next(iter(rx.DataLoader(mixed, batch_size=8)))
    assert images.shape == (8, CHANNELS, *SIZE)
    assert torch.allclose(labels.sum(1), torch.ones(8))
    plain = torch.utils.data.DataLoader(rx.Dataset(tiffs, dtype="uint16"), batch_size=4)
    np.testing.assert_array_equal(next(iter(plain))[0].numpy(), truth()[:4])


# --------------------------------------------------------------------------------------------------------- statistics


def test_mean_and_std_are_exact(catalog):
    """By plate, to the last bit but one of float64; extremes to the grey value; also with the whole range."""
    frame = rx.PlateStats.fit(catalog, quiet=True).frame("plate").set_index(["plate", "channel"])
    for p, plate in enumerate(by_plate(truth())):
        for c, values in enumerate(plate):
            row = frame.loc[(f"screen-1/{p + 1}", c + 1)]
            np.testing.assert_allclose([row["mean"], row["std"]], [values.mean(), values.std()], rtol=1e-14)
            assert (row["min"], row["max"], row["sites"]) == (values.min(), values.max(), 12)


def test_quantiles_are_exact_within_a_bin(tiffs, stats):
    """The whole range: median within 7.5 grey values, MAD within 15. 12 bits: exact."""
    for plates, found, error in ((2, stats, 7.5), (1, rx.PlateStats.fit(tiffs.where(plate=1), quiet=True), 0)):
        assert found.bin_shift == (4 if error else 0)
        assert found.counts.shape[1:] == (3, CHANNELS, 4096)
        frame = found.frame("plate")
        assert len(frame) == CHANNELS * plates
        for plate, values in zip(frame["plate"].unique(), by_plate(truth())):
            part = frame[frame["plate"] == plate]
            median = np.median(values, axis=1)
            mad = np.median(np.abs(values - median[:, None]), axis=1)
            assert (np.abs(part["median"] - median) <= error).all()
            assert (np.abs(part["mad"] - mad) <= 2 * error).all()


def test_site_statistics_are_each_images_own(tiffs, stats):
    """Mean, std and extremes exact; the median too in sites that need no more than 12 bits."""
    frame = stats.frame("site")
    flat = truth().reshape(24 * CHANNELS, -1)
    for name, function in (("mean", np.mean), ("std", np.std), ("min", np.min), ("max", np.max)):
        np.testing.assert_allclose(frame[name], function(flat, axis=1), rtol=1e-12)
    median = np.median(flat, axis=1)
    half = len(flat) // 2
    np.testing.assert_array_equal(frame["median"][:half], median[:half])
    assert (np.abs(frame["median"] - median) <= 7.5).all()


def test_parts_merge_to_the_whole(tiffs, stats, tmp_path):
    """Parts of different bins, in either order, through a file: the same numbers, bit for bit."""
    parts = [rx.PlateStats.fit(tiffs.take(range(a, b)), quiet=True) for a, b in ((0, 7), (7, 24))]
    assert [part.bin_shift for part in parts] == [0, 4]
    parts[0].save(tmp_path / "a.npz")
    parts[0] = rx.PlateStats.load(tmp_path / "a.npz")
    assert (parts[0].bits, parts[0].bin_shift) == (16, 0)
    levels = [rx.Normalize(), rx.Normalize("global", "median", "mad"), rx.Normalize(wells="controls", clip=(1, 99))]
    for merged in (parts[0].merge(parts[1]), parts[1].merge(parts[0])):
        assert merged.bin_shift == stats.bin_shift
        for normalize in levels:
            mine, whole = (s.normalizer(normalize, tiffs) for s in (merged, stats))
            np.testing.assert_array_equal(mine.center[mine.groups], whole.center[whole.groups])
            np.testing.assert_array_equal(mine.scale[mine.groups], whole.scale[whole.groups])


def test_a_fit_goes_on_from_its_file(tiffs, stats, tmp_path):
    """Taken up from what was saved: only the rest is counted, and bins are widened when that needs them."""
    path = tmp_path / "stats.npz"
    assert rx.PlateStats.fit(tiffs.where(plate=1), path=path, quiet=True).bin_shift == 0
    resumed = rx.PlateStats.fit(tiffs, path=path, quiet=True)
    assert len(resumed) == 24
    pd.testing.assert_frame_equal(resumed.frame("plate"), stats.frame("plate"))
    np.testing.assert_array_equal(resumed.counts, stats.counts)
    assert path.stat().st_size < 200_000


def test_clipping_and_gamma_of_12_bits_are_those_of_float64(tiffs):
    """Percentiles of the pixels are clipped to exactly; gamma is about 4,095."""
    one = tiffs.where(plate=1)
    pixels = truth()[:12].astype(np.float64)
    low, high = np.quantile(pixels.transpose(1, 0, 2, 3).reshape(CHANNELS, -1), [0.02, 0.98], axis=1)
    clipped = np.clip(pixels, low[:, None, None], high[:, None, None])
    stats = rx.PlateStats.fit(one, quiet=True)
    normalize = rx.Normalize(clip=(2, 98))
    dataset = rx.Dataset(one, stats=stats, normalize=normalize)
    _, mean, std, _ = stats.normalizer(normalize, one)
    expected = (clipped[4] - mean[0][:, None, None]) / std[0][:, None, None]
    np.testing.assert_allclose(dataset[4][0], expected, rtol=1e-5, atol=2e-3)
    np.testing.assert_allclose(mean[0], clipped.mean((0, 2, 3)), atol=1)
    dataset = rx.Dataset(one, stats=stats, augment=rx.Policy(gamma=0.5))
    gamma = dataset.policies[0].draw(0, 0, np.array([4]), 0, CHANNELS).gamma[0][:, None, None]
    _, mean, std, _ = stats.normalizer(rx.Normalize(), one)
    expected = (4095 * (pixels[4] / 4095) ** gamma - mean[0][:, None, None]) / std[0][:, None, None]
    np.testing.assert_allclose(dataset[4][0], expected, rtol=1e-4, atol=1e-4)


def test_quantile_matching_makes_plates_alike(tiffs, stats):
    """Two plates of quite different ranges have the same quartiles after it, up to a bin."""
    dataset = rx.Dataset(tiffs, stats=stats, normalize=rx.Normalize(method="quantile"))
    images = torch.stack([dataset[i][0] for i in range(24)]).numpy()
    raw = np.quantile(by_plate(truth()), (0.25, 0.5, 0.75), axis=2)
    after = np.quantile(by_plate(images), (0.25, 0.5, 0.75), axis=2)
    assert (raw[:, 1] / raw[:, 0] > 10).all()
    assert np.abs(after[:, 1] - after[:, 0]).max() < 0.1


def test_even_light_leaves_the_pixels_alone(tiffs, stats):
    """The illumination's field is summed from 16 bits: its factors are about 1 for these scenes, and used."""
    plates, factors, _ = stats.illumination(tiffs)
    expected = truth()[:12].astype(np.float64).sum((0, 2, 3))
    np.testing.assert_array_equal(stats.block_sums[0].sum((1, 2)), expected)
    assert plates.tolist() == [0] * 12 + [1] * 12
    assert 0.5 < factors.min() < factors.max() < 2
    flat = rx.Dataset(tiffs, stats=stats, normalize=rx.Normalize(illumination=True))
    assert not torch.equal(flat[0][0], rx.Dataset(tiffs, stats=stats)[0][0])


# ------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("ending", [".tif", ".png"])
@pytest.mark.parametrize("stray", [8, 16])
def test_mixed_depths_are_refused(tmp_path, ending, stray):
    """One 8-bit file among 16-bit ones, or the reverse: the site, the file and both depths in one line."""
    frame = sites().head(4)
    for i, row in enumerate(frame.to_dict("records")):
        narrow = (i == 2) == (stray == 8)
        stack = scene(i, 255 if narrow else 4000)
        write_site(tmp_path, row, stack.astype(np.uint8) if narrow else stack, ending)
    catalog = rx.Catalog.from_frame(frame, path=PATH + ending, channels=CHANNELS, root=tmp_path)
    dataset = rx.Dataset(catalog, normalize="none")
    assert dataset.store.dtype == (np.uint16 if stray == 8 else np.uint8)
    for run in (lambda: dataset[2], lambda: list(rx.DataLoader(dataset, batch_size=4))):
        with pytest.raises(rx.SiteError, match=f"{stray}.bit") as caught:
            run()
        assert caught.value.site_id == catalog.table["site_id"].iat[2]
        assert "B03_s1_w1" in caught.value.path
        assert f"{24 - stray}-bit" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_damaged_files_are_named_or_left_out(tmp_path):
    """Cut, of another size, of floats: refused with the reason; with skip, listed."""
    frame = sites().head(5)
    for i, row in enumerate(frame.to_dict("records")):
        write_site(tmp_path, row, scene(i, 4000), ".tif")
    catalog = rx.Catalog.from_frame(frame, path=PATH + ".tif", channels=CHANNELS, root=tmp_path)
    cut, small, real = (catalog.files([i])[0][1] for i in (1, 2, 3))
    os.truncate(cut, os.path.getsize(cut) // 2)
    tifffile.imwrite(small, scene(2, 4000)[0, :40])
    tifffile.imwrite(real, scene(3, 4000)[0].astype(np.float32))
    stats = rx.PlateStats.fit(catalog, on_error="skip", quiet=True)
    assert len(stats) == 2
    reasons = {path: reason for _, path, reason in stats.faults}
    assert "truncated" in reasons[cut]
    assert "40 x 64" in reasons[small]
    assert "32-bit" in reasons[real]
    with pytest.raises(rx.SiteError, match="truncated"):
        rx.PlateStats.fit(catalog, quiet=True)


def test_what_does_not_fit_is_said_first(tiffs, stats, rxrx_root):
    """Raw types of the other depth, statistics of the other depth: one line each, before anything is read."""
    with pytest.raises(rx.UsageError, match="'uint16' is raw pixels"):
        rx.Dataset(tiffs, dtype="uint8")
    with pytest.raises(rx.UsageError, match="'uint8' is raw pixels"):
        rx.Dataset(rxrx_root, dtype="uint16")
    with pytest.raises(rx.DataError, match="16-bit pixels"):
        rx.Dataset(rxrx_root, stats=stats)
    with pytest.raises(rx.DataError, match="bits can't be merged"):
        stats.merge(rx.PlateStats(CHANNELS))


# -------------------------------------------------------------------------------------------------- files and pictures


@pytest.mark.parametrize("last", [False, True])
def test_one_file_of_all_channels(tmp_path, last):
    """Pages or interleaved samples, in the channels' order asked for, counted and normalised like the rest."""
    frame = sites().head(4)
    for i, well in enumerate(frame["well"] + "_" + frame["site"].astype(str)):
        stack = scene(i, 65000)
        array, photometric = (stack.transpose(1, 2, 0), "rgb") if last else (stack, "minisblack")
        tifffile.imwrite(tmp_path / f"{well}.ome.tif", array, photometric=photometric)
    catalog = rx.Catalog.from_frame(frame, path="{well}_{site}.ome.tif", channels=CHANNELS, root=tmp_path)
    dataset = rx.Dataset(catalog, dtype="uint16", channels=(3, 1))
    images = next(iter(rx.DataLoader(dataset, batch_size=4)))[0].numpy()
    np.testing.assert_array_equal(images, np.stack([scene(i, 65000)[[2, 0]] for i in range(4)]))
    frame = rx.PlateStats.fit(catalog, quiet=True).frame("global")
    np.testing.assert_allclose(frame["mean"], np.stack([scene(i, 65000) for i in range(4)]).mean((0, 2, 3)))


def test_pictures_are_scaled_to_the_pixels(tiffs, stats, tmp_path):
    """A dim 12-bit site is drawn as bright as a bright one; plates and augmentations are drawn too."""
    dim, bright = (
        np.asarray(Image.open(draw_site(tiffs, tmp_path / f"{i}.png", site_id=tiffs.table["site_id"].iat[i])))
        for i in (0, 20)
    )
    assert dim.shape == bright.shape
    assert 0.8 < dim[..., :3].mean() / bright[..., :3].mean() < 1.25
    catalog = rx.Catalog.from_frame(sites().assign(label=1), path=PATH + ".tif", channels=CHANNELS, root=tiffs.root)
    assert draw_plates(catalog, tmp_path / "plates.png", stats=stats, quiet=True).stat().st_size > 10_000
    assert draw_augmented(tiffs, tmp_path / "drawn.png", rx.Policy(hflip=0.5)).stat().st_size > 10_000


# ---------------------------------------------------------------------------------------------------------- real files

BBBC022 = REAL / "bbbc022"


@pytest.mark.real
@pytest.mark.skipif(not BBBC022.is_dir(), reason=f"no real BBBC022 files in {BBBC022}")
def test_real_files_of_bbbc022():
    """Two images of 520 x 696: tifffile's pixels, NumPy's statistics, float64's normalisation, through the loader."""
    files = sorted(path.stem for path in BBBC022.glob("*.tif"))
    frame = pd.DataFrame({"experiment": "BBBC022", "well": [f.split("_")[1] for f in files], "file": files})
    catalog = rx.Catalog.from_frame(frame, path="{file}.tif", channels=1, root=BBBC022)
    pixels = np.stack([tifffile.imread(BBBC022 / f"{name}.tif") for name in files])
    assert len(catalog) == 2
    assert pixels.shape == (2, 520, 696)
    assert pixels.max() < 4096
    raw = next(iter(rx.DataLoader(rx.Dataset(catalog, dtype="uint16"), batch_size=2)))[0]
    np.testing.assert_array_equal(raw[:, 0].numpy(), pixels)
    stats = rx.PlateStats.fit(catalog, quiet=True)
    row = stats.frame("plate").iloc[0]
    flat = pixels.astype(np.float64).ravel()
    median = np.median(flat)
    assert (row["median"], row["mad"], row["min"], row["max"]) == (
        median,
        np.median(np.abs(flat - median)),
        flat.min(),
        flat.max(),
    )
    np.testing.assert_allclose([row["mean"], row["std"]], [flat.mean(), flat.std()], rtol=1e-14)
    image = next(iter(rx.DataLoader(rx.Dataset(catalog, stats=stats), batch_size=2)))[0][:, 0].double().numpy()
    np.testing.assert_allclose(image, (pixels - flat.mean()) / flat.std(), rtol=1e-5, atol=1e-5)
