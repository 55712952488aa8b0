"""Who waited for whom: with delays that are known, and in sentences that a researcher understands."""

import json
import time

import pytest
from loading import assert_no_threads

import rxrx_fast as rx
from rxrx_fast.runtime.meter import Meter
from rxrx_fast.stores.files import FileStore


def slow_reads(monkeypatch, seconds, stage="read"):
    """Every site takes so long in a stage, besides what it takes; returns a list of how long each took in fact."""
    take, took = FileStore.read_into, []

    def slow(self, positions, out, meter):
        start = time.perf_counter()
        meter.timed(stage, time.sleep, seconds)
        found = take(self, positions, out, meter)
        took.append(time.perf_counter() - start)
        return found

    monkeypatch.setattr(FileStore, "read_into", slow)
    return took


@pytest.mark.slow(10)  # the system's clock on a busy machine decides
@pytest.mark.parametrize(("model_s", "share"), [(0.05, 0.5), (0.02, 0.8), (0.15, 0.0)])
def test_the_share_of_waiting_is_right(dataset, monkeypatch, model_s, share):
    """4 sites at 50 ms each in two threads make 0.1 s a batch; a model that takes a part of that waits for the rest,
    and one that takes more for the first batch only. Within 5 points of a clock outside, and of the arithmetic with
    what the delays took in fact: a busy machine sleeps longer than it is told to.
    """
    took = slow_reads(monkeypatch, 0.05)
    loader = rx.DataLoader(dataset, batch_size=4, num_threads=2, sampler=[k % 48 for k in range(160)])
    waited = worked = 0.0
    iterator = iter(loader)
    while True:
        asked = time.perf_counter()
        if next(iterator, None) is None:
            break
        got = time.perf_counter()
        time.sleep(model_s)
        waited, worked = waited + got - asked, worked + time.perf_counter() - got
    report = loader.report()
    assert report["batches"] == 40
    assert abs(report["waiting_share"] - waited / (waited + worked)) < 0.05
    first = 0.0 if share else report["waited_for_first_s"]
    expected = max(0.0, 1 - worked / (sum(took) / 2))
    assert abs((report["waited_s"] - first) / (report["waited_s"] + report["worked_s"]) - expected) < 0.05
    assert abs(expected - share) < 0.1
    assert report["sentence"].startswith("IO-bound: the model waited" if share else "Not IO-bound: the model waited")


@pytest.mark.parametrize(
    ("stage", "words", "advice"),
    [
        ("read", "reading the files is the limit", "faster disk"),
        ("decode", "decoding is the limit", "smaller size"),
        ("inflate", "decoding is the limit", "smaller size"),
        ("unfilter", "decoding is the limit", "smaller size"),
        ("finish", "the fused kernel is the limit", "fewer views"),
        ("unpack", "the stage 'unpack' is the limit", "use more "),
    ],
)
def test_the_sentence_names_the_limit_and_what_helps(dataset, monkeypatch, stage, words, advice):
    """The stage that is slow in fact, by whatever name it has, and what to do."""
    slow_reads(monkeypatch, 0.01, stage)
    loader = rx.DataLoader(dataset, batch_size=4, num_threads=2)
    for _ in loader:
        pass
    sentence = loader.report()["sentence"]
    assert sentence.startswith("IO-bound: the model waited ")
    assert "\n" not in sentence
    assert f"% of the time; {words}; " in sentence
    assert advice in sentence


def test_parts_of_decoding_count_together():
    """Inflating and unfiltering are less than reading each, and more together."""
    meter = Meter()
    for stage, seconds in {"read": 1.0, "inflate": 0.8, "unfilter": 0.4, "finish": 0.5, "deliver": 9.0}.items():
        meter.add(stage, seconds)
    assert meter.limit() == ("decoding", "use more threads or a smaller size")
    full = Meter("cores")
    full.add("read", 1.0)
    assert full.limit() == ("reading the files", "use more cores or a faster disk")
    assert Meter().limit() is None
    assert Meter().sentence() == "No batch was delivered yet."


def test_the_start_of_an_epoch_is_told_apart():
    """Where all of the waiting is for first batches, no stage is blamed; where it is not, one is."""
    meter, clock = Meter(), time.perf_counter
    meter.add("read", 1.0)
    for _ in range(3):
        meter.delivered(clock() - 0.5, 8)
        meter.delivered(meter.asked(1) - 0.001, 8)
        meter.worked += 1.0
        meter.paused()
    assert meter.sentence().startswith(
        "Not IO-bound: the model waited 33% of the time, for the first batch of an epoch"
    )
    assert meter.waited_for_first == pytest.approx(1.5, abs=0.05)
    meter.delivered(clock(), 8)
    meter.delivered(meter.asked(1) - 1.0, 8)
    assert "reading the files is the limit" in meter.sentence()


def test_a_model_that_never_waits_is_told_so(dataset):
    """Not IO-bound, a full queue, and the delivering thread as the one that waits."""
    loader = rx.DataLoader(dataset, batch_size=8, prefetch_factor=2)
    for _ in range(2):
        for _ in loader:
            time.sleep(0.15)
    report = loader.report()
    assert report["queue_depth"]["p50"] == 2
    assert report["wait_s"]["p50"] < 0.02
    assert report["stages_s"]["deliver"] > report["stages_s"]["read"]


def test_scalars_are_flat_numbers(dataset, tmp_path):
    """A dictionary of floats, as every logger takes it; the same figures as the report's, also after JSON."""
    loader = rx.DataLoader(dataset, batch_size=8)
    assert loader.scalars()["batches"] == 0
    for _ in loader:
        pass
    scalars, report = loader.scalars(), loader.report()
    assert {type(value) for value in scalars.values()} == {float}
    assert json.loads(json.dumps(scalars)) == scalars
    assert scalars["sites"] == 48
    assert scalars["batches"] == 6
    assert scalars["faults"] == 0
    assert scalars["epoch"] == 0
    assert scalars["waiting_share"] == report["waiting_share"]
    for name in ("queue_depth", "wait_s"):
        for quantile in ("p50", "p90", "p99"):
            assert scalars[f"{name}_{quantile}"] == report[name][quantile]
    assert scalars["stage_read_sites_per_s"] == pytest.approx(48 / report["stages_s"]["read"])
    assert json.loads(json.dumps(report)) == report


def test_progress_is_one_line(dataset):
    """Where the loader is, how fast, and who waits for whom."""
    loader = rx.DataLoader(dataset, batch_size=8)
    assert loader.progress().startswith("epoch 0, batch 0 of 6, 0 sites/s, waited for data 0% of the time, ")
    iterator = iter(loader)
    next(iterator), next(iterator)
    line = loader.progress()
    assert line.startswith("epoch 0, batch 2 of 6, ")
    assert "of 2 batches ready, 0 faults" in line
    assert "\n" not in line
    iterator.close()
    assert_no_threads()


def test_the_meter_does_not_grow():
    """Quantiles are of the last batches: a run of weeks takes no more memory than one of an hour."""
    meter = Meter()
    for k in range(10_000):
        meter.delivered(meter.asked(k), 1)
    assert len(meter._waits) == len(meter._depths) < 10_000
    assert meter.depths()["p50"] > 10_000 - 4096
    assert meter.batches == 10_000


def test_more_threads_are_advised_only_where_there_are_cores(dataset, monkeypatch):
    """One thread on four cores: more threads; as many as cores: more cores."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    for threads, words in ((1, "use more threads"), (4, "use more cores")):
        loader = rx.DataLoader(dataset, batch_size=4, num_threads=threads)
        for _ in loader:
            pass
        assert words in loader.report()["sentence"]
