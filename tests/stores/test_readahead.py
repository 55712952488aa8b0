"""Readahead: the order stays, only cold files are requested, in time and not too many, and nothing raises."""

import os
import shutil
import threading
import time

import numpy as np
import pytest

from rxrx_fast import Catalog, DataLoader, Dataset
from rxrx_fast.stores import Store, open_store
from rxrx_fast.stores.readahead import READAHEAD_SITES, Readahead


class Recorder(Store):
    """Records what is requested; ``held`` are the sites in memory."""

    image_size, dtype = (1, 1), np.dtype(np.uint8)

    def __init__(self, held=()):
        self.held, self.requested, self.probed = set(held), [], []
        self.go_on = threading.Event()
        self.go_on.set()

    def paths(self, positions):
        raise AssertionError("readahead needs no paths")

    def read_into(self, positions, out, meter):
        raise AssertionError("readahead needs no pixels")

    def in_memory(self, positions):
        self.probed += positions
        return [position in self.held for position in positions]

    def readahead(self, positions):
        self.requested += positions
        self.go_on.wait(10)


def soon(condition):
    """Whether something becomes true within ten seconds."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    return condition()


@pytest.mark.parametrize("sizes", [[], [3], [2] * 200, [READAHEAD_SITES] * 5, [500, 1, 0, 500]])
def test_batches_come_as_they_are(sizes):
    """Every batch comes once, in order and unchanged, whatever is requested."""
    batches = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]) if sizes else []
    ahead = Readahead(Recorder(), iter(batches), max(sizes, default=1))
    given = list(ahead)
    ahead.close()
    assert [g.tolist() for g in given] == [b.tolist() for b in batches]


def test_cold_batches_are_requested_before_they_are_given():
    """With the first batch, the next READAHEAD_SITES sites were requested, and no more."""
    store, size = Recorder(), READAHEAD_SITES // 2
    ahead = Readahead(store, iter(np.arange(10 * size).reshape(10, size)), size)
    steps = iter(ahead)
    next(steps)
    # Once the first batch is given its own sites need no request; the two after it do.
    assert soon(lambda: store.requested[-2 * size :] == list(range(size, 3 * size)))
    assert max(store.probed) < 3 * size
    next(steps)
    assert soon(lambda: store.requested[-size:] == list(range(3 * size, 4 * size)))
    ahead.close()


def test_what_is_in_memory_is_not_requested():
    """A batch whose first and last sites are in memory costs two probes; with one of them cold it is requested."""
    store = Recorder(held=[0, 3, 4, 11])
    ahead = Readahead(store, iter(np.arange(12).reshape(3, 4)), 4)
    steps = iter(ahead)
    store.go_on.clear()
    # Nothing is given before the end of so short a list was seen.
    given = [next(steps)]
    store.go_on.set()
    assert soon(lambda: len(store.requested) == 8)
    ahead.close()
    assert given[0].tolist() == [0, 1, 2, 3]
    assert store.requested == list(range(4, 12))
    assert not {1, 2, 5, 6} & set(store.probed)


def test_late_requests_are_left_out():
    """Of a batch that has been given out, no more than the site in hand is requested."""
    store = Recorder()
    store.go_on.clear()
    ahead = Readahead(store, iter(np.arange(40).reshape(4, 10)), 10)
    steps = iter(ahead)
    for _ in range(3):
        next(steps)
    store.go_on.set()
    # Batches are requested in their order, so this one is the last.
    assert soon(lambda: store.requested[-10:] == list(range(30, 40)))
    assert store.requested[:-10] in ([], [0])
    ahead.close()


def test_closing_ends_the_requests():
    """Nothing is requested after the site in hand, however much was to come."""
    store = Recorder()
    store.go_on.clear()
    ahead = Readahead(store, iter(np.arange(40).reshape(4, 10)), 10)
    next(iter(ahead))
    assert soon(lambda: store.requested)
    closing = threading.Thread(target=ahead.close)
    closing.start()
    assert soon(lambda: ahead._closed)
    store.go_on.set()
    closing.join(10)
    assert not closing.is_alive()
    assert len(store.requested) == 1


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="only Linux tells what is in memory")
def test_requested_files_come_into_memory(rxrx_root, tmp_path):
    """A site whose files were evicted is not in memory; once requested, it soon is."""
    shutil.copytree(rxrx_root, tmp_path / "data")
    store = open_store(Catalog.read(tmp_path / "data"))
    store.pixels([0])
    assert store.in_memory([0])[0]
    for path in store.paths([0])[0]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    if store.in_memory([0])[0]:
        pytest.skip("the temporary folder is in memory itself")
    store.readahead([0])
    assert soon(lambda: store.in_memory([0])[0])


def test_missing_files_are_reported_when_they_are_read(rxrx_root, stats, tmp_path):
    """Neither probing nor requesting raises; the loader names the missing files."""
    shutil.copytree(rxrx_root, tmp_path / "data")
    dataset = Dataset(tmp_path / "data", stats=stats)
    for path in sum(dataset.store.paths([0, 7]), ()):
        os.unlink(path)
    assert dataset.store.in_memory([0])[0]
    dataset.store.readahead([0])
    loader = DataLoader(dataset, 4, device="cpu", num_threads=1, on_error="skip")
    assert sum(len(images) for images, _, _ in loader) == len(dataset)
    faults = {fault["site_id"] for fault in loader.report()["faults"]}
    assert faults == set(dataset.store.site_ids([0, 7]))
