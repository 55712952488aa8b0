"""The real CSV files of both Kaggle editions, and a sample of real images."""

from __future__ import annotations

import os

import pytest
from loading import REAL

from rxrx_fast.catalog import Catalog


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
