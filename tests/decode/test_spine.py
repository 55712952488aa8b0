"""Both spines, DALI's pipeline and the plain queue, carry the same: order, pixels, states and faults."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from loading import POLICY, assert_no_threads
from PIL import Image

import rxrx_fast as rx
from rxrx_fast.decode import choice
from rxrx_fast.decode.host import HostDecoder
from rxrx_fast.decode.pipeline import BATCHES_IN_FLIGHT, SitePipeline
from rxrx_fast.decode.spine import PAYLOADS_AHEAD, QueueSpine
from rxrx_fast.errors import SiteError, UsageError
from rxrx_fast.stores import open_store

pytest.importorskip("nvidia.dali")
SPINES = ("dali", "queue")


def tiff_screen(root, dtype):
    """A catalog of twelve sites of two TIFF channels."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"experiment": "screen-1", "well": [f"A{i:02d}" for i in range(1, 13)], "label": range(12)})
    for well in frame["well"]:
        for channel in (1, 2):
            plane = rng.integers(0, np.iinfo(dtype).max, (20, 28), dtype=dtype)
            Image.fromarray(plane).save(root / f"{well}_w{channel}.tif")
    return rx.Catalog.from_frame(frame, "{well}_w{channel}.tif", 2, root=root)


@pytest.fixture(params=["png", "tiff, 8 bits", "tiff, 16 bits"])
def catalog(request, copy, tmp_path):
    """Files for our own kernels, for DALI's decoder, and for tifffile, to be damaged."""
    if request.param == "png":
        return rx.Catalog.read(copy)
    folder = tmp_path / "screen"
    folder.mkdir()
    return tiff_screen(folder, np.uint8 if "8" in request.param else np.uint16)


def over(spine, monkeypatch, function):
    """A function's result with this spine."""
    with monkeypatch.context() as patch:
        patch.setenv("RXRX_FAST_SPINE", spine)
        return function()


def epoch(loader, most=None):
    """Sites, labels and pixels of the batches that are left of an epoch, at most so many."""
    found = []
    for images, labels, meta in loader:
        found.append((meta["site_index"].tolist(), labels.tolist(), images.clone()))
        if len(found) == most:
            break
    return found


def assert_equal(found, wanted):
    assert len(found) == len(wanted) > 0
    for (sites, labels, images), (their_sites, their_labels, their_images) in zip(found, wanted):
        assert sites == their_sites
        assert labels == their_labels
        assert images.equal(their_images)


def test_batches_are_the_same(catalog, monkeypatch):
    """Shuffled, raw, over two epochs: order, labels and pixels."""
    raw = rx.Dataset(catalog, dtype=f"uint{8 * open_store(catalog).dtype.itemsize}")

    def two_epochs():
        loader = rx.DataLoader(raw, 5, shuffle=True, seed=3, device="cpu")
        return epoch(loader) + epoch(loader)

    dali, queue = (over(spine, monkeypatch, two_epochs) for spine in SPINES)
    assert_equal(queue, dali)


def test_augmented_batches_are_the_same(dataset, monkeypatch):
    """Every augmentation, normalised by plate."""
    assert len(dataset.policies) == 1
    assert dataset.policies[0] == POLICY

    def one_epoch():
        return epoch(rx.DataLoader(dataset, 7, shuffle=True, seed=1, device="cpu"))

    dali, queue = (over(spine, monkeypatch, one_epoch) for spine in SPINES)
    assert_equal(queue, dali)


def test_a_state_goes_from_one_to_the_other(catalog, monkeypatch):
    """States are equal, and an epoch begun over one spine goes on over the other."""
    dataset = rx.Dataset(catalog, normalize="none")

    def begin():
        loader = rx.DataLoader(dataset, 4, shuffle=True, seed=2, device="cpu")
        return epoch(loader, 2), loader.state_dict()

    def go_on(state):
        loader = rx.DataLoader(dataset, 4, shuffle=True, seed=2, device="cpu")
        loader.load_state_dict(state)
        return epoch(loader)

    (first, state), (other_first, other_state) = (over(spine, monkeypatch, begin) for spine in SPINES)
    assert state == other_state
    assert_equal(other_first, first)
    rest = [over(spine, monkeypatch, lambda: go_on(state)) for spine in SPINES]
    assert_equal(rest[1], rest[0])


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_faults_are_the_same(catalog, monkeypatch, damage):
    """Skipped: the same substitutes and reports. Raised: the same error after the same batches."""
    for position in (1, 7):
        path = catalog.files([position])[0][1]
        if damage == "missing":
            os.unlink(path)
        else:
            os.truncate(path, os.path.getsize(path) // 2)
    dataset = rx.Dataset(catalog, normalize="none")

    def skip():
        loader = rx.DataLoader(dataset, 3, on_error="skip", seed=5, shuffle=True, device="cpu")
        found = epoch(loader)
        faults = loader.report()["faults"]
        return found, sorted((fault["site_id"], fault["path"], fault["times"]) for fault in faults)

    def fail():
        found, stream = [], iter(rx.DataLoader(dataset, 3, device="cpu"))
        try:
            found.extend(meta["site_index"].tolist() for _, _, meta in stream)
        except SiteError as error:
            return found, error.site_id, error.path
        return found, None, None

    (found, faults), (others, other_faults) = (over(spine, monkeypatch, skip) for spine in SPINES)
    assert_equal(others, found)
    assert faults == other_faults
    assert len(faults) == 2
    dali, queue = (over(spine, monkeypatch, fail) for spine in SPINES)
    assert dali == queue
    assert dali[1] is not None
    assert_no_threads()


def test_the_queue_is_as_deep_as_dali():
    """Two payloads are taken at the first call and one at each other, in order, and an error comes at once."""
    taken = []

    def feed():
        for k in range(5):
            taken.append(k)
            yield np.full(1, k)

    spine = QueueSpine(feed())
    for k in range(5):
        assert spine.run().array.tolist() == [k]
        assert len(taken) == min(5, k + PAYLOADS_AHEAD)
    for _ in range(2):
        with pytest.raises(StopIteration):
            spine.run()
    assert BATCHES_IN_FLIGHT == 5

    def broken():
        yield np.zeros(1)
        raise SiteError("site", "path", "reason")

    with pytest.raises(SiteError, match="reason"):
        QueueSpine(broken()).run()


def test_the_queue_copies_nothing(rxrx_root, monkeypatch):
    """The stack that comes out is the memory that the threads decoded into."""
    monkeypatch.setenv("RXRX_FAST_SPINE", "queue")
    store = open_store(rx.Catalog.read(rxrx_root))
    submitted = []
    submit = HostDecoder.submit
    monkeypatch.setattr(
        HostDecoder, "submit", lambda self, positions: submitted.append(submit(self, positions)) or submitted[-1]
    )
    with ThreadPoolExecutor(2) as pool:
        stages = SitePipeline(store, [np.arange(3), np.arange(3)], batch_size=3, pool=pool, num_threads=2)
        with closing(stages):
            stacks = [decoded.stack for decoded in stages]
    assert len(stacks) == 2
    for stack, one in zip(stacks, submitted):
        assert np.shares_memory(stack, one.content)


def test_which_spine(monkeypatch):
    """DALI where it is installed; a wish is granted or refused in one line; a GPU needs DALI."""
    monkeypatch.delenv("RXRX_FAST_SPINE", raising=False)
    assert choice.choose_spine(None) == choice.choose_spine(0) == "dali"
    for spine in SPINES:
        monkeypatch.setenv("RXRX_FAST_SPINE", spine)
        assert choice.choose_spine(None) == spine
    with pytest.raises(UsageError, match="a GPU needs DALI"):
        choice.choose_spine(0)
    monkeypatch.setenv("RXRX_FAST_SPINE", "rope")
    with pytest.raises(UsageError, match="RXRX_FAST_SPINE='rope'"):
        choice.choose_spine(None)
    monkeypatch.setitem(sys.modules, "nvidia", None)
    monkeypatch.delenv("RXRX_FAST_SPINE")
    assert choice.choose_spine(None) == "queue"
    with pytest.raises(UsageError, match=r"NVIDIA DALI can't be imported .* pip install"):
        choice.choose_spine(0)
    monkeypatch.setenv("RXRX_FAST_SPINE", "dali")
    with pytest.raises(UsageError, match="NVIDIA DALI can't be imported"):
        choice.choose_spine(None)


WITHOUT_DALI = """
import sys
sys.modules["nvidia.dali"] = None
import numpy as np
import rxrx_fast as rx

dataset = rx.Dataset(sys.argv[1], dtype="uint8")
loader = rx.DataLoader(dataset, 5, shuffle=True, num_threads=2)
count = 0
for images, labels, meta in loader:
    for image, site in zip(images, meta["site_index"].tolist()):
        assert image.equal(dataset[site][0])
        count += 1
assert count == len(dataset) > 0
assert not any(name.startswith("nvidia.dali") for name, module in sys.modules.items() if module is not None)
print("streamed", count)
"""


def test_without_dali_a_loader_streams(rxrx_root):
    """In a process that can't import DALI, the loader and the data set give the same pixels on the CPU."""
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_DALI, rxrx_root], capture_output=True, text=True, timeout=250, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "streamed 48\n"
