"""Where the threads' time goes: the sums come out for known clocks, and a real run is explained."""

import pytest

from rxrx_fast import DataLoader
from rxrx_fast.bench import shares
from rxrx_fast.bench.shares import Clocks, between, measure, observed, sentence

BEFORE = Clocks(100.0, {"finish": 1.0, "deliver": 5.0, "read": 2.0}, {11: (1.0, 0.5), 12: (2.0, 0.0)})


def test_known_clocks():
    """Ten seconds of two threads, divided by hand; what was before does not count, nor the thread that delivers."""
    stages = {"finish": 5.0, "deliver": 8.0, "read": 3.0, "unfilter": 2.0, "inflate": 9.0}
    found = between(BEFORE, Clocks(110.0, stages, {11: (9.0, 1.0), 12: (10.0, 0.5)}), 2)
    # 4 + 1 + 2 + 9 of 20 s at work; 8 + 8 s on a core and 0.5 + 0.5 s without one leave 3 s asleep.
    assert found["shares"] == pytest.approx(
        {"reading": 0.05, "inflating": 0.45, "unfiltering": 0.1, "fusing": 0.2, "waiting": 0.15}
    )
    assert found["explained"] == pytest.approx(0.95)
    assert found["no_core"] == pytest.approx(0.05)
    assert found["delivering"] == pytest.approx(0.3)
    assert (found["wall_s"], found["threads"]) == (10.0, 2)


def test_the_order_is_the_pipelines():
    """Whichever stages the meter has, they are told from the file to the batch; unknown ones before the waiting."""
    for stages, order in (
        (["finish", "decode", "read"], ["reading", "decoding", "fusing", "waiting"]),
        (["unfilter", "new", "finish", "inflate", "read"],
         ["reading", "inflating", "unfiltering", "fusing", "new", "waiting"]),
    ):  # fmt: skip
        found = between(Clocks(0.0, {}, {}), Clocks(1.0, dict.fromkeys(stages, 0.1), {1: (0.5, 0.0)}), 1)
        assert list(found["shares"]) == order
        assert found["shares"]["waiting"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("at_work", "remark"), [(6.0, "busy outside of the stages"), (7.2, None), (8.8, None), (10.0, "counts twice")]
)
def test_sums_that_are_off_are_said(at_work, remark):
    """Between 90% and 110% the sentence gives the sum; beyond, it says what the clocks have counted twice or not."""
    text = sentence(between(Clocks(0.0, {}, {}), Clocks(5.0, {"read": at_work}, {1: (4.0, 0.0), 2: (4.0, 0.0)}), 2))
    assert f"reading {at_work / 10:.0%}, waiting 20%; together {at_work / 10 + 0.2:.0%} of 2 threads x 5.0 s" in text
    assert ("not to be trusted" in text) is (remark is not None)
    assert (remark or "") in text


def test_a_real_run_is_explained(dataset):
    """The clocks of a small run add up to about the time of its threads; every stage has a part in it."""
    if shares.thread_clock() == (0.0, 0.0):
        pytest.skip("this system keeps no clocks of threads")
    loader = DataLoader(dataset, device="cpu", num_threads=2, sampler=list(range(48)) * 40, batch_size=8)
    list(loader)
    found = measure(loader)
    assert {"reading", "fusing", "waiting"} < set(found["shares"])
    assert all(share > 0 for name, share in found["shares"].items() if name != "waiting")
    # Images this small leave much to Python, and a busy machine stops threads anywhere.
    assert 0.5 < found["explained"] < 1.6
    assert found["threads"] == 2
    assert found["wall_s"] > 0.05


def test_a_pass_is_as_long_as_is_needed(dataset):
    """A pass of the least length has both of the batches between which the clocks are read."""
    loader = DataLoader(dataset, device="cpu", num_threads=1, sampler=[0] * observed(0), batch_size=1)
    assert len(loader) == observed(0)
    assert measure(loader)["wall_s"] > 0


def test_without_clocks_of_threads(dataset, monkeypatch):
    """A system that keeps none gives no shares, rather than wrong ones."""
    monkeypatch.setattr(shares, "thread_clock", lambda native_id="self": (0.0, 0.0))
    assert measure(DataLoader(dataset, device="cpu", num_threads=1)) is None
