"""StoreTests: what every store must do. A store's test inherits the class and gives two fixtures.

    class TestMyStore(StoreTests):
        @pytest.fixture
        def store(self, tmp_path): ...        # at least four sites, whose files the test may damage

        @pytest.fixture
        def expected(self): ...               # (N, C, H, W): the pixels of all its sites, in the order of its channels

Overridable: ``open_with(store, channels)``, for stores that are not opened by ``open_store``; ``write_other(path)``,
which overwrites a file with a valid one of another size or depth; ``damaged``, by default cut, empty and overwritten.
"""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rxrx_fast.errors import SiteError
from rxrx_fast.runtime.meter import Meter
from rxrx_fast.stores import EncodedStore, Store, open_store

DAMAGES = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "overwritten": lambda data: b"no image at all " * (len(data) // 16 + 1),
}


def read(store, positions):
    """(pixels, faults) of a batch, through read_into; pixels that nobody wrote are 77."""
    out = np.full((len(positions), len(store.channels), *store.image_size), 77, store.dtype)
    return out, store.read_into(positions, out, Meter())


class StoreTests:
    """Inherited by the tests of each store."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError("a store's test gives this fixture")

    @pytest.fixture
    def expected(self) -> np.ndarray:
        raise NotImplementedError("a store's test gives this fixture")

    def open_with(self, store, channels):
        """The same sites with other channels."""
        return open_store(store._catalog, channels)

    def write_other(self, path):
        """Overwrite a file with a valid one that does not belong to the store; None if there is no such file."""
        pytest.skip("no other size or depth is given for this store")

    # What it holds

    def test_it_says_what_it_holds(self, store, expected):
        """Length, size, dtype and channels are those of the pixels."""
        assert isinstance(store, Store)
        assert len(store) == len(expected) >= 4
        assert (len(store.channels), *store.image_size) == expected.shape[1:]
        assert store.dtype == expected.dtype
        assert store.dtype in (np.uint8, np.uint16)

    def test_the_host_may_decode(self, store):
        """Decoders are known names, "host" among them; others than "host" need encoded files."""
        assert "host" in store.decoders
        assert set(store.decoders) <= {"host", "dali", "cuda"}
        assert isinstance(store, EncodedStore) or store.decoders == ("host",)

    def test_sites_have_names_and_files(self, store):
        """Names differ; each site has files, which exist."""
        everyone = range(len(store))
        names, paths = store.site_ids(everyone), store.paths(everyone)
        assert len(set(names)) == len(names) == len(paths) == len(store)
        assert all(isinstance(name, str) for name in names)
        assert all(len(files) > 0 and all(map(os.path.isfile, files)) for files in paths)

    # Pixels

    def test_pixels_are_those_stored(self, store, expected):
        """All sites in one batch, by read_into and by pixels, without a fault."""
        out, faults = read(store, range(len(store)))
        assert faults == [None] * len(store)
        np.testing.assert_array_equal(out, expected)
        found = store.pixels(range(len(store)))
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)

    def test_order_and_repeats_are_the_batchs(self, store, expected):
        """Positions in any order, repeated, as NumPy's integers or Python's."""
        positions = [2, 0, 2, len(store) - 1, 1, 0]
        for given in (positions, np.array(positions), tuple(positions)):
            np.testing.assert_array_equal(store.pixels(given), expected[positions])
        assert store.site_ids(positions) == [store.site_ids([p])[0] for p in positions]
        assert store.paths(positions) == [store.paths([p])[0] for p in positions]

    def test_an_empty_batch_is_one(self, store):
        """Every method takes no positions at all."""
        out, faults = read(store, [])
        assert faults == []
        assert out.shape[0] == 0
        assert store.pixels([]).shape == (0, len(store.channels), *store.image_size)
        assert store.paths([]) == store.site_ids([]) == store.in_memory([]) == []
        store.readahead([])

    def test_channels_come_in_the_order_asked_for(self, store, expected):
        """Reversed, and one alone."""
        count = len(store.channels)
        for chosen in (range(count)[::-1], [count - 1]):
            other = self.open_with(store, [store.channels[c] for c in chosen])
            np.testing.assert_array_equal(other.pixels([1, 3]), expected[[1, 3]][:, list(chosen)])

    def test_a_pickled_store_is_the_same(self, store, expected):
        """Before and after it was used; and small, because torch sends it to its workers."""
        fresh = pickle.loads(pickle.dumps(store))
        np.testing.assert_array_equal(fresh.pixels([3, 1]), expected[[3, 1]])
        used = pickle.loads(pickle.dumps(fresh))
        assert (used.image_size, used.dtype, used.decoders) == (store.image_size, store.dtype, store.decoders)
        np.testing.assert_array_equal(used.pixels([0]), expected[[0]])

    def test_threads_do_not_disturb_each_other(self, store, expected):
        """Four threads on one store that was not used before, 40 batches."""
        rng = np.random.default_rng(0)
        batches = [rng.integers(0, len(store), 3).tolist() for _ in range(40)]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(store.pixels, batches))
        assert len(found) == 40
        for positions, pixels in zip(batches, found):
            np.testing.assert_array_equal(pixels, expected[positions])

    def test_the_meter_has_the_stages(self, store):
        """Reading is counted, and decoding under one of its names."""
        meter = Meter()
        out = np.empty((2, len(store.channels), *store.image_size), store.dtype)
        assert store.read_into([0, 1], out, meter) == [None, None]
        spent = meter.seconds()
        assert spent["read"] > 0
        assert sum(spent.get(stage, 0) for stage in ("inflate", "unfilter", "decode")) > 0

    # Faults

    def check_faulty(self, store, expected, position, path):
        """One site is faulty, told in its place with its name, file and a reason; its batch is not spoiled."""
        positions = [0, position, 3, position]
        out, faults = read(store, positions)
        assert [fault is None for fault in faults] == [True, False, True, False]
        np.testing.assert_array_equal(out[[0, 2]], expected[[0, 3]])
        for fault in (faults[1], faults[3]):
            assert isinstance(fault, SiteError)
            assert fault.site_id == store.site_ids([position])[0]
            assert fault.path == path
            assert fault.reason
            assert "\n" not in str(fault)
        with pytest.raises(SiteError, match=r".+") as caught:
            store.pixels(positions)
        assert caught.value.path == path
        return faults[1]

    def test_a_missing_file_is_a_fault(self, store, expected):
        """A file that is gone: the site's fault names it."""
        _ = store.image_size
        path = store.paths([2])[0][-1]
        os.unlink(path)
        assert "missing" in self.check_faulty(store, expected, 2, path).reason

    def test_an_unreadable_file_is_a_fault(self, store, expected):
        """A folder in the place of a file."""
        _ = store.image_size
        path = store.paths([1])[0][0]
        os.unlink(path)
        os.mkdir(path)
        self.check_faulty(store, expected, 1, path)

    @pytest.mark.parametrize("damage", DAMAGES)
    def test_a_damaged_file_is_a_fault(self, store, expected, damage):
        """Cut, empty, or something else: never pixels."""
        _ = store.image_size
        path = store.paths([2])[0][-1]
        Path(path).write_bytes(DAMAGES[damage](Path(path).read_bytes()))
        self.check_faulty(store, expected, 2, path)

    def test_a_file_of_another_kind_is_a_fault(self, store, expected):
        """A whole file of another size or depth is not fitted to the others."""
        _ = store.image_size
        path = store.paths([2])[0][-1]
        self.write_other(path)
        self.check_faulty(store, expected, 2, path)

    def test_the_first_site_may_be_damaged(self, store, expected):
        """Size and dtype come from the first readable site."""
        path = store.paths([0])[0][0]
        Path(path).write_bytes(b"")
        assert store.image_size == expected.shape[2:]
        assert store.dtype == expected.dtype
        _, faults = read(store, [0, 1])
        assert faults[0] is not None
        assert faults[1] is None

    def test_where_nothing_is_readable_that_is_an_error(self, store):
        """Without one readable site the size is a SiteError of the first."""
        for files in store.paths(range(len(store))):
            for path in files:
                os.unlink(path)
        with pytest.raises(SiteError, match="missing") as caught:
            _ = store.image_size
        assert caught.value.site_id == store.site_ids([0])[0]

    # Readahead

    def test_what_was_read_is_in_memory(self, store):
        """A Boolean for each site, and readahead changes no pixel."""
        positions = [1, 0, 1]
        before = store.pixels(positions)
        assert store.in_memory(positions) == [True] * 3
        store.readahead(positions)
        np.testing.assert_array_equal(store.pixels(positions), before)

    def test_readahead_never_raises(self, store):
        """Nor does in_memory: missing files are reported when they are read."""
        for path in store.paths([1])[0]:
            os.unlink(path)
        store.readahead([0, 1, 2])
        assert len(store.in_memory([0, 1, 2])) == 3

    # Encoded files, where there are any

    def test_encoded_files_are_those_stored(self, store):
        """Checked or not, the bytes of the files, and all of them decode."""
        if not isinstance(store, EncodedStore):
            pytest.skip("the store has no encoded files")
        positions = [1, 0]
        for check in (True, False):
            found = store.read(positions, check)
            assert [len(files) for files in found] == [store.files_per_site] * 2
            for files, paths in zip(found, store.paths(positions)):
                assert [data.tobytes() for data in files] == [Path(path).read_bytes() for path in paths]
        assert store.faults(positions, found) == [None, None]

    def test_faults_of_encoded_files_have_their_place(self, store):
        """A missing file is a fault of read; a damaged one of the checks, or of the host's decoder."""
        if not isinstance(store, EncodedStore):
            pytest.skip("the store has no encoded files")
        _ = store.image_size
        (lost,), damaged = store.paths([1])[0][:1], store.paths([2])[0][0]
        os.unlink(lost)
        Path(damaged).write_bytes(b"no image")
        found = store.read([0, 1, 2], check=False)
        assert isinstance(found[1], SiteError)
        assert found[1].path == lost
        faults = store.faults([0, 2], [found[0], found[2]])
        assert faults[0] is None
        assert isinstance(faults[1], SiteError)
        assert faults[1].path == damaged
