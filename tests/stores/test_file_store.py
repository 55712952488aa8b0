"""FileStore's conformance over every kind of file that it reads: tests/conformance/stores.py has the tests."""

import numpy as np
import pandas as pd
import pytest
import tifffile
from conformance.stores import StoreTests
from PIL import Image

from rxrx_fast.catalog import Catalog
from rxrx_fast.stores import open_store

SITES, SIZE = 5, (24, 32)
FRAME = pd.DataFrame({"experiment": "screen-1", "well": [f"A{i:02d}" for i in range(1, SITES + 1)]})


def pixels(dtype, channels=3):
    """(N, C, H, W) of random pixels."""
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (SITES, channels, *SIZE), dtype=dtype)


def open_files(root, template, write, stack):
    """A store over files that ``write(path, array)`` writes: one a channel, or one a site."""
    for well, site in zip(FRAME["well"], stack):
        if "{channel}" in template:
            for channel, plane in enumerate(site, start=1):
                write(root / template.format(well=well, channel=channel), plane)
        else:
            write(root / template.format(well=well), site)
    return open_store(Catalog.from_frame(FRAME, template, stack.shape[1], root=root))


def save(path, array):
    Image.fromarray(array).save(path)


class TestPng8(StoreTests):
    """RxRx1's own files: grayscale PNG of 8 bits, one a channel."""

    @pytest.fixture
    def expected(self):
        return pixels(np.uint8)

    @pytest.fixture
    def store(self, tmp_path, expected):
        return open_files(tmp_path, "{well}_w{channel}.png", save, expected)

    def write_other(self, path):
        save(path, pixels(np.uint16)[0, 0])

    def test_the_gpu_may_decode(self, store):
        """Host or GPU, the host first."""
        assert store.decoders == ("host", "cuda")


class TestPng8WithoutLibdeflate(TestPng8):
    """The same files where libdeflate is not installed."""

    @pytest.fixture(autouse=True)
    def _no_libdeflate(self, monkeypatch):
        monkeypatch.setattr("rxrx_kernels.deflate.libdeflate.available", lambda: False)

    def test_the_gpu_may_decode(self, store):
        """It may not: packing for it needs libdeflate's CRC-32."""
        assert store.decoders == ("dali", "host")


class TestPng16(StoreTests):
    """Grayscale PNG of 16 bits, one a channel."""

    @pytest.fixture
    def expected(self):
        return pixels(np.uint16)

    @pytest.fixture
    def store(self, tmp_path, expected):
        return open_files(tmp_path, "{well}_w{channel}.png", save, expected)

    def write_other(self, path):
        save(path, pixels(np.uint16)[0, 0, :20])


class TestTiff8(StoreTests):
    """TIFF of 8 bits, one a channel, which DALI decodes if it is installed."""

    @pytest.fixture
    def expected(self):
        return pixels(np.uint8)

    @pytest.fixture
    def store(self, tmp_path, expected):
        return open_files(tmp_path, "{well}_w{channel}.tif", save, expected)

    def write_other(self, path):
        save(path, pixels(np.uint16)[0, 0])


class TestTiff16(StoreTests):
    """TIFF of 16 bits, one a channel."""

    @pytest.fixture
    def expected(self):
        return pixels(np.uint16)

    @pytest.fixture
    def store(self, tmp_path, expected):
        return open_files(tmp_path, "{well}_w{channel}.tif", tifffile.imwrite, expected)

    def write_other(self, path):
        tifffile.imwrite(path, pixels(np.uint8)[0, 0])


class TestTiffOfAllChannels(StoreTests):
    """TIFF of 16 bits, one a site, a page a channel."""

    @pytest.fixture
    def expected(self):
        return pixels(np.uint16)

    @pytest.fixture
    def store(self, tmp_path, expected):
        def write(path, array):
            tifffile.imwrite(path, array, photometric="minisblack")

        return open_files(tmp_path, "{well}.tif", write, expected)

    def write_other(self, path):
        tifffile.imwrite(path, pixels(np.uint16, 4)[0], photometric="minisblack")


class TestWildsRgb(StoreTests):
    """WILDS packs three channels of a site into one RGB PNG."""

    @pytest.fixture
    def expected(self):
        return pixels(np.uint8)

    @pytest.fixture
    def store(self, tmp_path, expected):
        rows = FRAME.assign(plate=1, site=1, cell_type="HUVEC", dataset="train", sirna_id=1)
        rows.to_csv(tmp_path / "metadata.csv", index=False)
        for row, site in zip(rows.itertuples(), expected):
            path = tmp_path / "images/{experiment}/Plate{plate}/{well}_s{site}.png".format(
                experiment=row.experiment, plate=1, well=row.well, site=1
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            save(path, np.ascontiguousarray(site.transpose(1, 2, 0)))
        return open_store(Catalog.read(tmp_path))

    def write_other(self, path):
        save(path, pixels(np.uint8)[0, 0])
