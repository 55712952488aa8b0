"""The catalog: one table for every layout, what the disk adds to it, and how it is narrowed."""

from __future__ import annotations

import os
import pickle
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loading import REAL

from rxrx_fast.catalog import COLUMNS, Catalog
from rxrx_fast.errors import DataError, UsageError


def touch(root: Path, names: list[str]) -> None:
    """Make empty files, and their folders."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def site(folder: str, well: str, number: int, channels: str = "123456") -> list[str]:
    """Names of a site's images."""
    return [f"{folder}/{well}_s{number}_w{channel}.png" for channel in channels]


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """A Kaggle root without images: two train plates and one test plate, with 3, 2 and 1 wells."""
    train = ["RPE-01_1_B03,RPE-01,1,B03,5", "RPE-01_1_B04,RPE-01,1,B04,6", "U2OS-01_2_B03,U2OS-01,2,B03,9"]
    controls = ["RPE-01_1_B02,RPE-01,1,B02,1138,negative_control", "U2OS-01_2_C03,U2OS-01,2,C03,1110,positive_control"]
    files = {
        "train.csv": ["id_code,experiment,plate,well,sirna", *train],
        "train_controls.csv": ["id_code,experiment,plate,well,sirna,well_type", *controls],
        "test.csv": ["id_code,experiment,plate,well", "RPE-08_1_B03,RPE-08,1,B03"],
    }
    for name, lines in files.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    return tmp_path


def frame(**columns: object) -> pd.DataFrame:
    """Two sites of one well of another screen; columns may be replaced, added, or left out with None."""
    given = {"experiment": ["A-1", "A-1"], "plate": [1, 1], "well": ["A01", "A01"], "site": [1, 2]} | columns
    return pd.DataFrame({name: values for name, values in given.items() if values is not None})


# ---------------------------------------------------------------------------------------------------- the table


def test_canonical_columns_and_their_types(kaggle):
    """The columns, their order and their types are as documented."""
    table = Catalog.read(kaggle).table
    assert tuple(table.columns) == COLUMNS
    assert table.index.name == "site_index"
    assert table.index.dtype == np.int64
    for name in ("plate", "site", "sirna_id", "group", "present"):
        assert table[name].dtype == np.int64, name
    for name in ("cell_type", "split", "experiment", "well", "well_type", "sirna"):
        assert isinstance(table[name].dtype, pd.CategoricalDtype), name
    assert table.iloc[0]["site_id"] == "RPE-01_1_B02_1"
    assert table.iloc[0]["well_id"] == "RPE-01_1_B02"


def test_values_of_a_row(kaggle):
    """Cell type, labels and well types come out of the CSV files as they should."""
    table = Catalog.read(kaggle).table.drop_duplicates("well_id").set_index("well_id")
    assert table["cell_type"].tolist() == ["RPE"] * 3 + ["U2OS"] * 2 + ["RPE"]
    assert table["sirna_id"].tolist() == [1138, 5, 6, 9, 1110, -1]
    assert table.loc["U2OS-01_2_C03", "well_type"] == "positive_control"


def test_labels_and_codes(kaggle):
    """Codes are int64 arrays whose names are in the categories."""
    catalog = Catalog.read(kaggle)
    codes = catalog.codes()
    assert list(codes) == ["site_index", "experiment", "plate", "well", "site", "cell_type", "well_type"]
    assert all(code.dtype == np.int64 and code.shape == (12,) for code in codes.values())
    for name in ("experiment", "well", "cell_type", "well_type"):
        assert [catalog.categories[name][c] for c in codes[name]] == catalog.table[name].tolist()
    assert catalog.labels.dtype == np.int64
    assert catalog.labels.tolist() == catalog.table["sirna_id"].tolist()
    assert catalog.categories["well_type"] == ["treatment", "positive_control", "negative_control"]


def test_groups_are_connected_components(tmp_path):
    """Plates that share treatments, also by way of a third plate, are one group, numbered by smallest treatment."""
    carried = {1: [30, 31], 2: [31, 32], 3: [2, 3], 4: [32, 33], 5: [3, 40], 6: [-1, -1]}
    rows = [(plate, label) for plate, labels in carried.items() for label in labels]
    sites = pd.DataFrame(rows, columns=["plate", "label"]).assign(experiment="A", well=[f"A{n}" for n in range(12)])
    table = Catalog.from_frame(sites, "{plate}_{well}.tif", root=tmp_path).table
    assert table.drop_duplicates("plate")["group"].tolist() == [1, 1, 0, 1, 0, -1]


def test_controls_do_not_join_groups(tmp_path):
    """Controls are on every plate, so they say nothing of its group."""
    kinds = ["treatment", "positive_control"] * 2
    sites = frame(plate=[1, 1, 2, 2], well=["a", "b", "a", "b"], site=None, experiment=["A"] * 4, sirna_id=[7, 0, 3, 0])
    table = Catalog.from_frame(sites.assign(well_type=kinds), "{plate}{well}.tif", root=tmp_path).table
    assert table["group"].tolist() == [1, 1, 0, 0]


# ------------------------------------------------------------------------------------------------------- images


def test_without_image_folders_nothing_is_listed(kaggle):
    """Metadata alone reads, knows nothing of images, and says so when asked for them."""
    catalog = Catalog.read(kaggle)
    assert set(catalog.table["present"]) == {-1}
    assert "metadata only" in catalog.summary()
    for ask in (catalog.available, catalog.faults):
        with pytest.raises(DataError, match=f"no images were found under {re.escape(str(kaggle))}"):
            ask()


def test_list_images_false_reads_no_folder(kaggle):
    """Listing can be left out where it is not wanted."""
    touch(kaggle, site("train/RPE-01/Plate1", "B03", 1))
    assert set(Catalog.read(kaggle, list_images=False).table["present"]) == {-1}


def test_complete_incomplete_and_absent(kaggle):
    """Each site knows its channels; counts and names of the incomplete ones are in the summary and in faults."""
    touch(kaggle, site("train/RPE-01/Plate1", "B03", 1) + site("train/RPE-01/Plate1", "B03", 2, "124"))
    catalog = Catalog.read(kaggle)
    present = catalog.table.set_index("site_id")["present"]
    assert present["RPE-01_1_B03_1"] == 0b111111
    assert present["RPE-01_1_B03_2"] == 0b001011
    assert int((present == 0).sum()) == 10
    assert "images: complete 1, incomplete 1, absent 10 sites" in catalog.summary()
    assert "without channel 3,5,6: 1 (RPE-01_1_B03_2)" in catalog.summary()
    assert catalog.faults().to_dict("list") == {"site_id": ["RPE-01_1_B03_2"], "present": [11], "missing": ["3,5,6"]}


def test_available_keeps_what_has_the_channels(kaggle):
    """Only the requested channels have to be there."""
    touch(kaggle, site("train/RPE-01/Plate1", "B03", 1) + site("train/RPE-01/Plate1", "B03", 2, "124"))
    catalog = Catalog.read(kaggle)
    assert catalog.available().table["site_id"].tolist() == ["RPE-01_1_B03_1"]
    assert catalog.available(channels=(4, 1)).table["site"].tolist() == [1, 2]
    assert len(catalog.available(channels=[3])) == 1
    assert len(catalog.available().available()) == 1


def test_an_empty_image_folder_means_absent(kaggle):
    """An image folder that exists was looked into, so its sites are absent and not unknown."""
    (kaggle / "test").mkdir()
    assert set(Catalog.read(kaggle).table["present"]) == {0}


def test_a_third_site_on_disk_is_added_at_the_end(kaggle):
    """A site that only the disk knows joins its well, and the labels of the others stay."""
    before = Catalog.read(kaggle).table
    touch(kaggle, site("train/U2OS-01/Plate2", "B03", 3, "16"))
    catalog = Catalog.read(kaggle)
    assert catalog.table["site_id"].tolist() == [*before["site_id"], "U2OS-01_2_B03_3"]
    last = catalog.table.iloc[-1]
    assert (last.name, last["sirna_id"], last["site"], last["present"]) == (12, 9, 3, 0b100001)
    assert catalog.files([12], channels=[6])[0][0].endswith("train/U2OS-01/Plate2/B03_s3_w6.png")
    assert "sites found on the disk beside those that the CSV files tell: 1" in catalog.summary()


def test_strangers_are_counted(kaggle):
    """Images of unknown wells, plates and channels are counted; other files are nobody's business."""
    plate = "train/RPE-01/Plate1"
    strangers = [*site(plate, "Z09", 1, "12"), *site("test/HUVEC-99/Plate1", "B03", 1, "1"), f"{plate}/B03_s1_w7.png"]
    touch(kaggle, [*strangers, f"{plate}/Thumbs.db", f"{plate}/._B03_s1_w1.png", f"{plate}/B03_s01_w1.png"])
    catalog = Catalog.read(kaggle)
    assert "images that belong to no row of the CSV files: 4 (the first is" in catalog.summary()
    assert len(catalog) == 12


def test_a_site_beyond_metadata_is_a_stranger(tmp_path):
    """Where the CSV lists sites, another site on the disk is not added but counted."""
    (tmp_path / "metadata.csv").write_text(
        "cell_type,dataset,experiment,plate,well,site,sirna_id\nRPE,train,RPE-01,1,B03,1,4\n"
    )
    touch(tmp_path, site("images/RPE-01/Plate1", "B03", 1) + site("images/RPE-01/Plate1", "B03", 2, "1"))
    catalog = Catalog.read(tmp_path)
    assert catalog.table["present"].tolist() == [63]
    assert "images that belong to no row of the CSV files: 1 " in catalog.summary()


def test_one_wilds_file_brings_all_channels(tmp_path):
    """In WILDS one file is a whole site, so a site is complete or absent."""
    (tmp_path / "metadata.csv").write_text(
        "cell_type,dataset,experiment,plate,well,site,sirna_id\nRPE,train,RPE-01,1,B03,1,4\nRPE,val,RPE-01,1,B03,2,4\n"
    )
    touch(tmp_path, ["images/RPE-01/Plate1/B03_s2.png"])
    catalog = Catalog.read(tmp_path)
    assert catalog.table["present"].tolist() == [0, 0b111]
    assert catalog.files([1], channels=[2]) == [(str(tmp_path / "images/RPE-01/Plate1/B03_s2.png"),)]


def test_no_file_is_looked_at(kaggle, monkeypatch):
    """Listing costs a look a folder and none a file."""
    touch(kaggle, site("train/RPE-01/Plate1", "B03", 1))
    looked: list[str] = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, *args, **kw: looked.append(str(path)) or stat(path, *args, **kw))
    assert len(Catalog.read(kaggle).available()) == 1
    assert not [path for path in looked if path.endswith(".png")]


# ----------------------------------------------------------------------------------------------------- narrowing


def test_where_takes_values_and_lists(kaggle):
    """A value, a list, and several columns at once; the index labels stay."""
    catalog = Catalog.read(kaggle)
    part = catalog.split("train").where(cell_type="RPE", well=["B02", "B04"])
    assert part.table["well_id"].unique().tolist() == ["RPE-01_1_B02", "RPE-01_1_B04"]
    assert part.table.index.tolist() == [0, 1, 4, 5]
    assert part.codes()["site_index"].tolist() == [0, 1, 4, 5]


def test_codes_are_stable_under_filtering(kaggle):
    """A code or a plate number of a part means what it means in the whole."""
    catalog = Catalog.read(kaggle)
    part = catalog.where(experiment="U2OS-01")
    assert part.categories == catalog.categories
    for name, code in catalog.codes().items():
        assert np.array_equal(part.codes()[name], code[part.table.index]), name
    for level in ("global", "cell_type", "experiment", "plate", "site"):
        codes, names = catalog.group_keys(level)
        part_codes, part_names = part.group_keys(level)
        assert part_codes.dtype == np.int64
        assert np.array_equal(part_codes, codes[part.table.index]), level
        assert [part_names[c] for c in part_codes] == [names[c] for c in part_codes]


def test_plate_keys(kaggle):
    """Plates are numbered densely over the table first read."""
    codes, names = Catalog.read(kaggle).plate_keys()
    assert names == ["RPE-01/1", "RPE-08/1", "U2OS-01/2"]
    assert codes.tolist() == [0] * 6 + [2] * 4 + [1] * 2


@pytest.mark.parametrize(
    ("conditions", "choices"),
    [
        ({"cell": "RPE"}, "no column 'cell'; choose from site_id, well_id, cell_type"),
        ({"cell_type": "HELA"}, "no cell_type 'HELA'; choose from RPE, U2OS"),
        ({"cell_type": ["RPE", None]}, "no cell_type None"),
        ({"plate": 3}, "no plate 3; choose from 1, 2"),
        ({"plate": True}, "no plate True"),
        ({"plate": [[1]]}, "no plate [1]"),
        ({"split": "val"}, "no split 'val'; choose from train, test"),
    ],
)
def test_where_lists_the_choices(kaggle, conditions, choices):
    """A column or a value that does not exist is answered with those that do."""
    with pytest.raises(UsageError, match=re.escape(choices)):
        Catalog.read(kaggle).where(**conditions)


def test_a_known_value_may_match_nothing(kaggle):
    """A value of the whole that a part lacks gives an empty catalog, which still works."""
    empty = Catalog.read(kaggle).split("test").where(plate=2)
    assert len(empty) == 0
    assert empty.labels.shape == (0,)
    assert empty.group_keys("plate")[0].shape == (0,)
    assert empty.files([]) == []
    assert empty.summary().startswith("kaggle-2019")


def test_take_orders_and_refuses_masks(kaggle):
    """Positions are taken in the order given; a boolean mask is not mistaken for positions 0 and 1."""
    catalog = Catalog.read(kaggle)
    assert catalog.take([3, 0]).table.index.tolist() == [3, 0]
    assert catalog.take([3, 0]).take([1]).table.index.tolist() == [0]
    with pytest.raises(UsageError, match="whole numbers"):
        catalog.take(np.ones(12, dtype=bool))


def test_unknown_level(kaggle):
    """A level that does not exist is answered with those that do."""
    with pytest.raises(UsageError, match="choose from global, cell_type, experiment, plate, site"):
        Catalog.read(kaggle).group_keys("well")


def test_repr_is_one_line(kaggle):
    """The short form names layout, folder and number of sites."""
    text = repr(Catalog.read(kaggle))
    assert re.fullmatch(r"<Catalog kaggle-2019 at .*: 12 sites, images not listed>", text)


def test_methods_leave_the_table_alone(kaggle):
    """Nothing that a catalog does changes its table."""
    touch(kaggle, site("train/RPE-01/Plate1", "B03", 1, "12"))
    catalog = Catalog.read(kaggle)
    before = catalog.table.copy(deep=True)
    catalog.where(plate=1).available([1])
    catalog.faults(), catalog.summary(), catalog.files([0]), catalog.group_keys("site")
    pd.testing.assert_frame_equal(catalog.table, before)


def test_pickle_is_small_and_the_same(kaggle):
    """A catalog travels to a worker without its file names, which are made again there."""
    catalog = Catalog.read(kaggle)
    size = len(pickle.dumps(catalog))
    files = catalog.files(range(12))
    copy = pickle.loads(pickle.dumps(catalog))
    assert len(pickle.dumps(catalog)) == size
    pd.testing.assert_frame_equal(copy.table, catalog.table)
    assert copy.files(range(12)) == files
    assert copy.plate_keys()[1] == catalog.plate_keys()[1]


# --------------------------------------------------------------------------------------------------------- files


def test_files_are_absolute_and_in_order(kaggle, monkeypatch):
    """Paths start at the absolute root, also if the root was given relative, and follow rows and channels."""
    monkeypatch.chdir(kaggle.parent)
    catalog = Catalog.read(kaggle.name)
    assert catalog.root == str(kaggle)
    plate = kaggle / "train" / "RPE-01" / "Plate1"
    assert catalog.files([2, 0], channels=(6, 1)) == [
        (str(plate / "B03_s1_w6.png"), str(plate / "B03_s1_w1.png")),
        (str(plate / "B02_s1_w6.png"), str(plate / "B02_s1_w1.png")),
    ]
    assert [len(files) for files in catalog.files(np.array([0, 11]))] == [6, 6]
    assert catalog.split("test").files([1])[0][0] == str(kaggle / "test/RPE-08/Plate1/B03_s2_w1.png")


def test_files_of_every_site_differ(kaggle):
    """No file belongs to two sites, and each is what the template says."""
    catalog = Catalog.read(kaggle)
    files = [file for files in catalog.files(range(len(catalog))) for file in files]
    assert len(set(files)) == 12 * 6
    rows = catalog.table.to_dict("records")
    assert files == [str(kaggle / catalog.layout.path.format(**row, channel=c)) for row in rows for c in range(1, 7)]


@pytest.mark.parametrize("channels", [(), (0,), (7,), (1.5,), (True,), ("1",)])
def test_channels_out_of_range(kaggle, channels):
    """A channel that does not exist is a mistake in the call."""
    with pytest.raises(UsageError, match="choose from 1 to 6"):
        Catalog.read(kaggle).files([0], channels=channels)


# ---------------------------------------------------------------------------------------------------- from_frame


def test_from_frame_fills_what_is_missing(tmp_path):
    """The columns of the template are enough; the others get their defaults and extra columns stay."""
    catalog = Catalog.from_frame(frame(dose=[0.5, 1.0], edge=[True, False]), root=tmp_path)
    assert catalog.layout.name == "custom"
    assert tuple(catalog.table.columns) == (*COLUMNS, "dose", "edge")
    assert catalog.where(edge=True).table["dose"].tolist() == [0.5]
    row = catalog.table.iloc[1]
    assert (row["site_id"], row["cell_type"], row["well_type"]) == ("A-1_1_A01_2", "A", "treatment")
    assert (row["sirna_id"], row["group"], row["present"], row["dose"]) == (-1, -1, -1, 1.0)


def test_from_frame_lists_images(tmp_path):
    """Images are found whatever the template looks like, with the channel in the folder too."""
    touch(tmp_path, ["c01/A01-1.tif", "c02/A01-1.tif", "c02/A01-2.tif", "c02/other.tif"])
    catalog = Catalog.from_frame(frame(), "c{channel:02d}/{well}-{site}.tif", channels=2, root=tmp_path)
    assert catalog.table["present"].tolist() == [0b11, 0b10]
    assert catalog.files([1]) == [(str(tmp_path / "c01/A01-2.tif"), str(tmp_path / "c02/A01-2.tif"))]
    assert "belong to no row" not in catalog.summary()


def test_from_frame_uses_columns_of_its_own(tmp_path):
    """A template may use any column, and numbers keep their type for a format."""
    sites = frame(barcode=["BR7", "BR7"], row=[1, 2], site=None, site_id=["x", "y"])
    catalog = Catalog.from_frame(sites, "{barcode}/r{row:02d}.tif", channels=5, root=tmp_path)
    assert catalog.layout.files_per_site == 1
    assert catalog.files([0, 1]) == [(str(tmp_path / "BR7/r01.tif"),), (str(tmp_path / "BR7/r02.tif"),)]
    assert catalog.table["site_id"].tolist() == ["x", "y"]
    assert catalog.where(row=2).table["barcode"].tolist() == ["BR7"]


def test_from_frame_reads_labels(tmp_path):
    """Labels come from ``sirna_id`` or ``label``, with gaps as -1, and need not be those of RxRx1."""
    catalog = Catalog.from_frame(frame(label=[4000.0, np.nan], well_type=["dmso", ""]), root=tmp_path)
    assert catalog.labels.tolist() == [4000, -1]
    assert catalog.table["well_type"].tolist() == ["dmso", "treatment"]


def test_from_frame_takes_numbers_for_names(tmp_path):
    """An experiment or a well that is a number becomes its text."""
    catalog = Catalog.from_frame(frame(experiment=[20, 20], well=[7, 8]), root=tmp_path)
    assert catalog.table["site_id"].tolist() == ["20_1_7_1", "20_1_8_2"]
    assert catalog.categories["experiment"] == ["20"]


def test_from_frame_takes_a_catalogs_table(kaggle):
    """A table that a catalog gave makes the same catalog again."""
    catalog = Catalog.read(kaggle)
    again = Catalog.from_frame(catalog.table, catalog.layout.path, root=kaggle)
    pd.testing.assert_frame_equal(again.table, catalog.table, check_categorical=False)
    assert again.files([5]) == catalog.files([5])


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/data/{well}_{site}.tif", "below the root"),
        ("../{well}_{site}.tif", "below the root"),
        ("a/../../{well}_{site}.tif", "below the root"),
        ("C:/{well}_{site}.tif", "below the root"),
        ("{well}\\{site}.tif", "below the root"),
        ("{well}_{field}.tif", "no column 'field'"),
        ("{well.__class__}_{site}.tif", "no column"),
        ("{}_{site}.tif", "no column ''"),
        ("{0}.tif", "no column '0'"),
        ("{well!r}.tif", "no column"),
        ("{well.tif", "write columns as in"),
        ("{well:02d}_{site}.tif", "does not suit"),
        ("", "path of a file"),
        ("{well}/{site}/", "path of a file"),
    ],
)
def test_faulty_templates(tmp_path, path, what):
    """A template that leaves the root, or is none, is a mistake in the call."""
    with pytest.raises(UsageError, match=re.escape(what)):
        Catalog.from_frame(frame(), path, root=tmp_path)


def test_a_format_cannot_climb_out_of_the_root(tmp_path):
    """Two harmless values that a format cuts down to two dots are refused."""
    sites = frame(a=[".x", ".y"], b=[".x", ".y"])
    with pytest.raises(UsageError, match="leave the root"):
        Catalog.from_frame(sites, "{a:.1}{b:.1}/{site}.tif", root=tmp_path)


@pytest.mark.parametrize("channels", [0, 63, 2.5, True, "6"])
def test_faulty_number_of_channels(tmp_path, channels):
    """Channels are bits of an int64, so there are 1 to 62 of them."""
    with pytest.raises(UsageError, match="1 to 62"):
        Catalog.from_frame(frame(), channels=channels, root=tmp_path)


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"well": ["A01", "../A01"]}, "frame row 1: well '../A01' would leave the root"),
        ({"experiment": ["A", None]}, "frame row 1: experiment '' is empty"),
        ({"plate": ["1", "BR7"]}, "frame row 1: plate 'BR7' is not a whole number"),
        ({"site": [1, 1]}, "frame row 1: site A-1_1_A01_1 is already at frame row 0"),
    ],
)
def test_faulty_rows_of_a_frame(tmp_path, columns, what):
    """A faulty value is refused with the row that it is in."""
    with pytest.raises(DataError, match=re.escape(what)):
        Catalog.from_frame(frame(**columns), root=tmp_path)


def test_columns_of_its_own_are_checked_too(tmp_path):
    """A column that only the template knows can't leave the root either."""
    with pytest.raises(DataError, match=re.escape("frame row 0: folder '..' would leave the root")):
        Catalog.from_frame(frame(folder=["..", "x"]), "{folder}/{site}.tif", root=tmp_path)


def test_two_sites_cannot_share_a_file(tmp_path):
    """A template that gives two sites one file is refused."""
    with pytest.raises(DataError, match="another site's file"):
        Catalog.from_frame(frame(), "{experiment}/{well}.tif", root=tmp_path)


def test_a_frame_without_rows_or_root(tmp_path):
    """No rows, or a folder that does not exist, is told in one line."""
    with pytest.raises(DataError, match="no rows"):
        Catalog.from_frame(frame().iloc[:0], root=tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        Catalog.from_frame(frame(), root=tmp_path / "nowhere")


@given(value=st.text(max_size=8) | st.text(alphabet="./\\\0:a", max_size=4))
def test_no_accepted_folder_leaves_the_root(tmp_path_factory, value):
    """Whatever a column of the template holds, it is refused or stays one folder below the root."""
    root = tmp_path_factory.getbasetemp()
    try:
        catalog = Catalog.from_frame(frame(folder=[value, value]), "{folder}/{site}.tif", root=root, list_images=False)
    except DataError as error:
        assert "frame row 0: folder" in str(error)
        return
    for (file,) in catalog.files([0, 1]):
        assert os.path.dirname(os.path.dirname(os.path.normpath(file))) == str(root)


# ---------------------------------------------------------------------------------------------------- real files


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real RxRx1 files in {REAL}")
class TestReal:
    """The CSV files of both Kaggle editions, and a sample of images."""

    @pytest.mark.parametrize(
        ("edition", "wells", "train", "test"), [("2019", 62_755, 81_224, 44_286), ("2023", 62_759, 81_228, 44_290)]
    )
    def test_counts(self, edition, wells, train, test):
        """Both editions have their wells, 51 experiments, 204 plates and two sites a well."""
        catalog = Catalog.read(REAL / f"rxrx1-kaggle-{edition}", list_images=False)
        assert catalog.layout.name == f"kaggle-{edition}"
        assert catalog.table["well_id"].nunique() == wells
        assert len(catalog.categories["experiment"]) == 51
        assert len(catalog.plate_keys()[1]) == 204
        assert (len(catalog.split("train")), len(catalog.split("test"))) == (train, test)

    def test_the_four_wells_of_2023(self):
        """But for the sites of four wells, the 2023 edition has those of 2019: 81,224 and 44,286."""
        tables = [Catalog.read(REAL / f"rxrx1-kaggle-{e}", list_images=False).table for e in ("2019", "2023")]
        wells = [set(table["well_id"]) for table in tables]
        assert wells[0] < wells[1]
        assert wells[1] - wells[0] == {"HUVEC-06_1_B18", "RPE-04_3_E04", "HUVEC-18_3_D23", "RPE-09_2_J16"}

    def test_editions_agree_but_for_the_numbers(self):
        """Labels of the two editions are a bijection that keeps treatments, controls and untreated wells apart."""
        tables = [Catalog.read(REAL / f"rxrx1-kaggle-{e}", list_images=False).table for e in ("2019", "2023")]
        both = tables[0].merge(tables[1], on="site_id", suffixes=("_2019", "_2023"))
        pairs = both[["sirna_id_2019", "sirna_id_2023"]].drop_duplicates()
        pairs = pairs[pairs["sirna_id_2019"] >= 0]
        assert len(pairs) == pairs["sirna_id_2019"].nunique() == pairs["sirna_id_2023"].nunique() == 1139
        assert (both["well_type_2019"].astype(str) == both["well_type_2023"].astype(str)).all()

    @pytest.mark.parametrize("edition", ["2019", "2023"])
    def test_groups(self, edition):
        """Each experiment carries the four groups of 277 treatments, one a plate."""
        table = Catalog.read(REAL / f"rxrx1-kaggle-{edition}", list_images=False).split("train").table
        treated = table[table["well_type"] == "treatment"]
        assert treated.groupby("group")["sirna_id"].nunique().tolist() == [277] * 4
        plates = table.drop_duplicates(["experiment", "plate"])
        assert (plates.groupby("experiment", observed=True)["group"].nunique() == 4).all()

    def test_the_sample_of_images(self):
        """The sample's 120 files are 12 complete sites and 12 without channels 5 and 6."""
        catalog = Catalog.read(REAL / "rxrx1-kaggle-2023")
        assert "images: complete 12, incomplete 12, absent 125,494 sites" in catalog.summary()
        assert catalog.faults()["missing"].tolist() == ["5,6"] * 12
        available = catalog.available()
        assert (len(available), set(available.table["site"]), set(available.table["well"])) == (12, {1}, {"B02"})
        assert len(catalog.available(channels=(1, 2, 3, 4))) == 24
        assert all(os.path.exists(file) for files in available.files(range(12)) for file in files)

    def test_reading_takes_less_than_two_seconds(self):
        """The whole 2023 catalog without images reads in under 2 s of CPU time, which a busy machine does not lengthen."""
        times = []
        for _ in range(3):
            start = time.process_time()
            Catalog.read(REAL / "rxrx1-kaggle-2023", list_images=False)
            times.append(time.process_time() - start)
        assert min(times) < 2
