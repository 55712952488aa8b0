"""Pictures: their files, their contents, and one-line errors."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from rxrx_fast.catalog import Catalog
from rxrx_fast.errors import DataError, UsageError
from rxrx_fast.stats import PlateStats
from rxrx_fast.viz.augmented import draw_augmented
from rxrx_fast.viz.batch import draw_batch
from rxrx_fast.viz.plates import draw_plates
from rxrx_fast.viz.site import draw_site
from rxrx_fast.viz.stains import _TOTAL_WEIGHT, STAINS, composite
from rxrx_fast.viz.statistics_table import statistics_table


def pixels(path):
    """A picture as an array, checked: large enough, and neither empty nor of one colour."""
    with Image.open(path) as image:
        array = np.asarray(image.convert("RGB"))
    assert min(array.shape[:2]) > 400
    assert array.std() > 15, "the picture is nearly uniform"
    return array


@pytest.fixture(scope="module")
def catalog(rxrx_root):
    return Catalog.read(rxrx_root)


def test_a_composite_is_the_weighted_sum():
    """Values at `low` give black; one channel at `high` gives its colour; brighter values are cut."""
    planes = np.zeros((3, 4, 4), np.uint8)
    planes[2] = 200
    low, high = np.zeros(3), np.full(3, 100.0)
    picture = composite(planes, low, high)
    wanted = np.array(STAINS[2].rgb) / 255 * _TOTAL_WEIGHT / 3
    np.testing.assert_allclose(picture[0, 0], wanted, atol=1e-6)
    assert not composite(np.zeros((6, 2, 2)), np.zeros(6), np.ones(6)).any()
    bright = composite(np.random.default_rng(0).integers(90, 255, (6, 8, 8)), np.zeros(6), np.full(6, 50))
    assert bright.shape == (8, 8, 3)
    assert bright.dtype == np.float32
    assert bright.max() == 1


def test_a_constant_channel_does_not_divide_by_zero():
    """A channel of one value is drawn, without a warning."""
    with np.errstate(all="raise"):
        picture = composite(np.full((6, 4, 4), 7), np.full(6, 7), np.full(6, 7))
    assert np.isfinite(picture).all()


def test_site(catalog, tmp_path):
    """By default the first complete site is drawn; another site gives another picture."""
    first = pixels(draw_site(catalog, tmp_path / "first.png"))
    name = catalog.table["site_id"].iat[0]
    np.testing.assert_array_equal(first, pixels(draw_site(catalog, tmp_path / "same.png", site_id=name)))
    other = pixels(draw_site(catalog, tmp_path / "other.png", site_id=catalog.table["site_id"].iat[5]))
    assert (first != other).any()


def test_an_incomplete_site_is_drawn_with_gaps(rxrx_root, tmp_path):
    """Channels without a file stay black; the others are drawn."""
    root = tmp_path / "data"
    shutil.copytree(rxrx_root, root)
    catalog = Catalog.read(root)
    name = catalog.table["site_id"].iat[0]
    before = pixels(draw_site(catalog, tmp_path / "before.png", site_id=name))
    for path in catalog.files([0], (5, 6))[0]:
        (root / path).unlink()
    after = pixels(draw_site(Catalog.read(root), tmp_path / "after.png", site_id=name))
    lower, right = after.shape[0] // 2, after.shape[1] * 3 // 4
    assert after[lower:, right:].mean() < 0.3 * before[lower:, right:].mean()
    assert after[:lower, right:].mean() > 10
    default = draw_site(Catalog.read(root), tmp_path / "default.png")
    assert (pixels(default) != after).any(), "the default is a complete site"


def test_plates_before_and_after(catalog, tmp_path):
    """Across plates the normalised row is drawn from the statistics given, and the stored row is not."""
    stats = PlateStats.fit(catalog, quiet=True)
    straight = pixels(draw_plates(catalog, tmp_path / "a.png", stats=stats))
    stats.counts[0] = np.roll(stats.counts[0], 40, axis=-1)  # the first plate's mean is 40 higher
    shifted = pixels(draw_plates(catalog, tmp_path / "b.png", stats=stats))
    half, pictures = straight.shape[0] // 2 - 20, int(0.6 * straight.shape[1])
    np.testing.assert_array_equal(straight[:half, :pictures], shifted[:half, :pictures])
    assert np.abs(straight[-half:, :pictures].astype(int) - shifted[-half:, :pictures]).mean() > 2


def test_plates_without_saved_statistics_leave_no_file(catalog, rxrx_root, tmp_path):
    """Statistics counted for a picture cover part of the data, so they are not saved."""
    before = set(rxrx_root.iterdir())
    pixels(draw_plates(catalog, tmp_path / "a.png", quiet=True))
    assert set(rxrx_root.iterdir()) == before


def test_a_batch(tmp_path):
    """A montage is drawn for any number of images, with three channels as well as six."""
    rng = np.random.default_rng(0)
    pixels(draw_batch(rng.normal(size=(7, 6, 32, 32)), tmp_path / "six.png", titles=list("abcdefg")))
    pixels(draw_batch(rng.normal(size=(6, 3, 32, 32)), tmp_path / "three.png"))


def test_wilds_sites_have_three_channels(tmp_path):
    """An RGB file of the WILDS layout is drawn as its three channels."""
    (tmp_path / "images" / "HEPG2-01" / "Plate1").mkdir(parents=True)
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "images" / "HEPG2-01" / "Plate1" / "B02_s1.png")
    header = "site_id,well_id,cell_type,dataset,experiment,plate,well,site,well_type,sirna,sirna_id"
    row = "HEPG2-01_1_B02_1,HEPG2-01_1_B02,HEPG2,train,HEPG2-01,1,B02,1,negative_control,EMPTY,1138"
    (tmp_path / "metadata.csv").write_text(f"{header}\n{row}\n")
    catalog = Catalog.read(tmp_path)
    assert catalog.layout.channels == 3
    pixels(draw_site(catalog, tmp_path / "wilds.png"))
    with pytest.raises(DataError, match="nothing to compare"):
        draw_plates(catalog, tmp_path / "plates.png")


def test_errors_name_what_is_wrong(catalog, tmp_path):
    """Errors tell the closest name for a wrong one, the possible formats, and the folder that is missing."""
    with pytest.raises(UsageError, match="did you mean HUVEC-01_1_B02_2"):
        draw_site(catalog, tmp_path / "a.png", site_id="HUVEC-01-1-B02-2")
    with pytest.raises(UsageError, match=r"\.svg"):
        draw_site(catalog, tmp_path / "a")
    with pytest.raises(DataError, match="nowhere"):
        draw_site(catalog, tmp_path / "nowhere" / "a.png")


def test_the_table_shows_the_numbers(catalog):
    """The table has a line for each group, with means and standard deviations, and the stains' names."""
    stats = PlateStats.fit(catalog, quiet=True)
    lines = statistics_table(stats, "experiment").splitlines()
    frame = stats.frame("experiment")
    assert len(lines) == 1 + frame["experiment"].nunique()
    assert "1 nuclei" in lines[0]
    assert "6 Golgi" in lines[0]
    assert f"{frame['mean'].iat[5]:.1f} ± {frame['std'].iat[5]:.1f}" in lines[1]


def test_no_global_state_is_touched(catalog, tmp_path):
    """Drawing does not import pyplot, which would choose a window system for the whole program."""
    code = (
        "import sys; from rxrx_fast import Catalog; from rxrx_fast.viz.site import draw_site; "
        f"draw_site(Catalog.read({catalog.root!r}), {str(tmp_path / 'a.png')!r}); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("name", ["deepnoise-hard", "rcic-first-place"])
def test_augmented_sites_are_drawn(catalog, tmp_path, name):
    """The picture shows the site as it is and five augmented copies, which differ by seed."""
    paths = [draw_augmented(catalog, tmp_path / f"{seed}.png", name, seed=seed) for seed in (0, 1)]
    first, second = (pixels(path) for path in paths)
    assert first.shape == second.shape
    assert min(first.shape[:2]) > 1000
    height = first.shape[0]
    # The headline and the upper row, the site itself, don't depend on the seed.
    assert (first[: height // 7] == second[: height // 7]).all()
    assert (first[height // 6 :] != second[height // 6 :]).any(-1).mean() > 0.2
    with pytest.raises(UsageError, match="augment='strongest'"):
        draw_augmented(catalog, tmp_path / "a.png", "strongest")
