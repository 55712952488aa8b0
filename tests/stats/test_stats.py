"""Statistics: compared with NumPy on the pixels; fitted in parts and merged; saved and resumed."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from rxrx_fast.catalog import Catalog
from rxrx_fast.errors import DataError, SiteError, UsageError
from rxrx_fast.stats import PlateStats, counting, file
from rxrx_fast.stats.normalize import Normalize
from rxrx_fast.stores.files import FileStore


@pytest.fixture(scope="module")
def catalog(rxrx_root):
    return Catalog.read(rxrx_root)


@pytest.fixture(scope="module")
def stats(catalog):
    return PlateStats.fit(catalog, quiet=True)


@pytest.fixture(scope="module")
def pixels(catalog):
    """All sites as Pillow decodes them, (S, C, H, W)."""
    return np.stack(
        [np.stack([np.asarray(Image.open(f)) for f in files]) for files in catalog.files(range(len(catalog)))]
    )


def keys(catalog, level):
    codes, names = catalog.group_keys(level)
    return np.array(names, dtype=object)[codes]


@pytest.mark.parametrize("level", ["global", "cell_type", "experiment", "plate"])
@pytest.mark.parametrize("wells", ["all", "controls", "negative_control"])
def test_statistics_are_those_of_the_groups_pixels(catalog, stats, pixels, level, wells):
    """Center and scale of every kind equal NumPy's over the group's pixels."""
    kind = catalog.table["well_type"].astype(str).to_numpy()
    chosen = {"all": kind != "", "controls": kind != "treatment", "negative_control": kind == "negative_control"}[wells]
    key = keys(catalog, level)
    for center, scale in (("mean", "std"), ("median", "mad"), ("mean", "mean_site_std")):
        groups, m, s, _ = stats.normalizer(Normalize(level, center, scale, wells), catalog)
        for i in (0, len(catalog) // 2, len(catalog) - 1):
            mine = pixels[(key == key[i]) & chosen].astype(np.float64)
            flat = mine.transpose(1, 0, 2, 3).reshape(mine.shape[1], -1)
            expected_center = flat.mean(1) if center == "mean" else np.median(flat, axis=1)
            expected_scale = {
                "std": flat.std(1),
                "mad": 1.482602218505602 * np.median(np.abs(flat - np.median(flat, 1, keepdims=True)), axis=1),
                "mean_site_std": mine.std((2, 3)).mean(0),
            }[scale]
            np.testing.assert_allclose(m[groups[i]], expected_center, rtol=1e-12)
            np.testing.assert_allclose(s[groups[i]], np.where(expected_scale == 0, 1, expected_scale), rtol=1e-9)


def test_site_frame_is_each_images_own(catalog, stats, pixels):
    """The columns of the competition's pixel_stats.csv, from the pixels themselves."""
    frame = stats.frame("site").set_index(["site", "channel"])
    for i in (0, len(catalog) - 1):
        for c in range(6):
            row, image = frame.loc[(catalog.table["site_id"].iat[i], c + 1)], pixels[i, c]
            found = row[["mean", "std", "median", "min", "max"]].astype(float)
            np.testing.assert_allclose(found, [image.mean(), image.std(), np.median(image), image.min(), image.max()])


def test_parts_merge_to_the_whole(catalog, stats, tmp_path):
    """Fitted in two parts, in either order, through a file: the same numbers, bit for bit."""
    half = len(catalog) // 3
    parts = [PlateStats.fit(catalog.take(range(a, b)), quiet=True) for a, b in ((0, half), (half, len(catalog)))]
    parts[0].save(tmp_path / "a.npz")
    parts[0] = PlateStats.load(tmp_path / "a.npz")
    for merged in (parts[0].merge(parts[1]), parts[1].merge(parts[0])):
        for normalize in (Normalize(), Normalize("cell_type", "median", "mad"), Normalize(scale="mean_site_std")):
            groups, m, s, _ = merged.normalizer(normalize, catalog)
            expected_groups, em, es, _ = stats.normalizer(normalize, catalog)
            np.testing.assert_array_equal(m[groups], em[expected_groups])
            np.testing.assert_array_equal(s[groups], es[expected_groups])
    with pytest.raises(DataError, match="in both"):
        parts[0].merge(stats)


def test_an_interrupted_fit_goes_on(catalog, stats, tmp_path, monkeypatch):
    """Ctrl-C saves the counted sites; the next call counts only the rest, with the result of an unbroken fit."""
    path = tmp_path / "stats.npz"
    calls = []

    def interrupted(stack, counts=None, original=counting.moments.histogram):
        calls.append(1)
        if len(calls) > 20:
            raise KeyboardInterrupt
        return original(stack, counts)

    with monkeypatch.context() as patch:
        patch.setattr(counting.moments, "histogram", interrupted)
        with pytest.raises(KeyboardInterrupt):
            PlateStats.fit(catalog, path=path, batch_size=8, num_threads=1, quiet=True)
    partial = PlateStats.load(path)
    assert 0 < len(partial) < len(catalog)
    read = []
    original = FileStore.read_into
    monkeypatch.setattr(FileStore, "read_into", lambda self, p, *a: read.extend(p) or original(self, p, *a))
    resumed = PlateStats.fit(catalog, path=path, quiet=True)
    assert len(read) == len(catalog) - len(partial)
    assert (
        resumed.frame("plate")
        .sort_values(["plate", "channel"], ignore_index=True)
        .equals(stats.frame("plate").sort_values(["plate", "channel"], ignore_index=True))
    )


def test_the_first_error_is_told(rxrx_root, tmp_path):
    """A damaged site is the error raised; that the partial result can't be saved either is a warning."""
    shutil.copytree(rxrx_root, tmp_path / "copy")
    catalog = Catalog.read(tmp_path / "copy")
    with open(catalog.files([3])[0][2], "r+b") as victim:
        victim.truncate(100)
    with pytest.raises(SiteError, match="truncated"), pytest.warns(UserWarning, match="can't be saved"):
        PlateStats.fit(catalog, path=tmp_path / "missing" / "stats.npz", quiet=True)
    with pytest.raises(DataError, match="can't be saved"):
        PlateStats.fit(catalog.take([0]), path=tmp_path / "missing" / "stats.npz", quiet=True)


def test_a_damaged_site_is_named_or_left_out(rxrx_root, tmp_path):
    """on_error='raise' names the file and the reason; 'skip' lists the site and counts the rest."""
    root = tmp_path / "copy"
    shutil.copytree(rxrx_root, root)
    catalog = Catalog.read(root)
    victim = catalog.files([3])[0][2]
    os.truncate(victim, 100)
    with pytest.raises(SiteError, match="truncated") as caught:
        PlateStats.fit(catalog, quiet=True)
    assert caught.value.path == victim
    assert caught.value.site_id == catalog.table["site_id"].iat[3]
    stats = PlateStats.fit(catalog, on_error="skip", quiet=True)
    assert len(stats) == len(catalog) - 1
    assert [fault[0] for fault in stats.faults] == [catalog.table["site_id"].iat[3]]


def test_what_is_not_statistics_is_refused(tmp_path, catalog, stats):
    """A missing file, another file, a pickle, and a group that was not counted are refused, each in one line."""
    with pytest.raises(DataError, match="no such file"):
        PlateStats.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(DataError, match="not a file of statistics"):
        PlateStats.load(tmp_path / "text.npz")
    np.savez(tmp_path / "pickle.npz", version=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="not a file of statistics"):
        PlateStats.load(tmp_path / "pickle.npz")
    first = catalog.table["experiment"].iat[0]
    part = PlateStats.fit(catalog.where(experiment=first), quiet=True)
    with pytest.raises(DataError, match="hold no site of plate"):
        part.normalizer(Normalize(), catalog)
    treated = PlateStats.fit(catalog.where(well_type="treatment"), quiet=True)
    with pytest.raises(DataError, match="fewer than 1 counted negative_control wells"):
        treated.normalizer(Normalize(wells="negative_control"), catalog)
    with pytest.raises(UsageError, match="on_error"):
        PlateStats.fit(catalog, on_error="ignore")
    with pytest.raises(UsageError, match="level='batch'"):
        Normalize(level="batch")
    assert not list(tmp_path.glob("*.part"))


def test_saved_statistics_are_everybodys(stats, tmp_path):
    """The file has the mode of any new file, so colleagues can read it; nothing else is left behind."""
    stats.save(tmp_path / "a.npz")
    (tmp_path / "b").touch()
    assert (tmp_path / "a.npz").stat().st_mode == (tmp_path / "b").stat().st_mode
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b"]
    with pytest.raises(DataError, match="can't be saved"):
        stats.save(tmp_path / "missing" / "a.npz")


@pytest.mark.real
def test_the_real_image_has_its_published_statistics(real_root):
    """train/HEPG2-01/Plate1/B02_s1_w1.png: the figures of the competition's pixel_stats.csv."""
    catalog = Catalog.read(real_root).where(experiment="HEPG2-01", plate=1)
    frame = PlateStats.fit(catalog, quiet=True).frame("site")
    row = frame[frame["channel"] == 1].iloc[0]
    assert row["site"] == "HEPG2-01_1_B02_1"
    assert (round(row["mean"], 6), round(row["std"], 6)) == (71.063782, 43.146240)
    assert (row["median"], row["min"], row["max"]) == (67, 7, 255)


def test_statistics_of_an_older_version_are_fitted_again(copy, monkeypatch):
    """Statistics beside the data are fitted again, with a warning; a file that the user named is refused."""
    catalog = Catalog.read(copy)
    with monkeypatch.context() as older:
        older.setattr(file, "VERSION", 1)
        # The data set is shared: another test may have left statistics beside it.
        (copy / file.FILE_NAME).unlink(missing_ok=True)
        PlateStats.fit(catalog, path=copy / file.FILE_NAME, quiet=True)
    with pytest.raises(DataError, match="of version 1"):
        PlateStats.load(copy / file.FILE_NAME)
    with pytest.warns(UserWarning, match="older version"):
        again = PlateStats.beside(catalog)
    assert len(again) == len(catalog)
    assert len(PlateStats.load(copy / file.FILE_NAME)) == len(catalog)
