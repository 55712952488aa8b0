"""The race: the same work for all, an honest clock, and results that can be read by people and programs."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image

from rxrx_fast import bench
from rxrx_fast.bench import ours, peers, race, report, shares
from rxrx_fast.bench.work import DTYPES, JITTER, RoundTrip, Work
from rxrx_fast.catalog import Catalog
from rxrx_fast.errors import DataError, UsageError
from rxrx_fast.stats import PlateStats
from rxrx_fast.viz import figure as sheet

#: torch and DALI are there wherever rxrx_fast is; the other peers are not.
CONTESTANTS = ["Loader", "DatasetInTorch"]
CONTESTANTS += [
    pytest.param(name, marks=() if name.startswith(("torch", "dali")) else pytest.mark.integration)
    for name in peers.PEERS
]

# The package's attribute of this name is the function.
cli = import_module("rxrx_fast.cli.main")


def contestant(name):
    """A contestant's class; a test of one whose package is missing is skipped with the reason."""
    if hasattr(ours, name):
        return getattr(ours, name)
    try:
        return peers.load(name)
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def catalog(rxrx_root):
    return Catalog.read(rxrx_root).available()


@pytest.fixture(scope="module")
def stats(catalog):
    return PlateStats.fit(catalog, quiet=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CONTESTANTS)
def test_everyone_does_the_same_work(name, dtype, catalog, stats):
    """Without augmentation every contestant delivers the reference's pixels in order, pass after pass."""
    work = Work.of(catalog.take(range(5)), stats, batch_size=2, threads=1, dtype=dtype, augment=False)
    race.check(contestant(name), work)


@pytest.mark.parametrize("name", CONTESTANTS)
def test_everyone_augments(name, catalog, stats):
    """With augmentation, images are moved in all eight ways and the statistics jittered within their bounds."""
    work = Work.of(catalog, stats, batch_size=12, threads=1)
    made = contestant(name)(work)
    try:
        images = torch.cat([images.clone() for images in made.batches(4)]).numpy()
    finally:
        made.close()
    assert images.shape == (48, 6, 64, 64)
    assert images.dtype == np.float32
    seen, factors = set(), []
    for site, image in enumerate(images):
        stack = np.stack([np.asarray(Image.open(path)) for path in work.paths[site]]).astype(np.float64)
        moves = [np.rot90(flip, k, (1, 2)) for flip in (stack, stack[:, :, ::-1]) for k in range(4)]
        # A channel is an affine function of its pixels, whichever way they were moved: correlation 1.
        fits = [np.corrcoef(move[1].ravel(), image[1].ravel())[0, 1] for move in moves]
        move = int(np.argmax(fits))
        assert fits[move] > 0.9999
        seen.add(move)
        factors.append(moves[move][1].std() / image[1].std() / work.std[site, 1])
    # That 48 uniform draws of 8 leave two or more out has a probability of 3 in 10,000.
    assert len(seen) >= 7, seen
    assert np.ptp(factors) > JITTER
    assert min(factors) >= 1 - JITTER - 1e-3
    assert max(factors) <= 1 + JITTER + 1e-3


@pytest.mark.parametrize("name", CONTESTANTS)
def test_two_workers_share_the_sites_out(name, catalog, stats):
    """Each of two passes over a list of eight, by two workers or threads, has every site once, in whatever order."""
    work = Work.of(catalog.take(range(8)), stats, batch_size=2, threads=2, augment=False)
    made = contestant(name)(work)
    references = np.stack([work.reference(site) for site in range(8)])
    try:
        for _ in range(2):
            images = torch.cat([images.clone() for images in made.batches(4)]).numpy()
            sites = [int(np.abs(references - image).mean((1, 2, 3)).argmin()) for image in images]
            assert sorted(sites) == list(range(8))
            np.testing.assert_allclose(images, references[sites], 1e-4, 1e-4)
    finally:
        made.close()


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_more_workers_than_sites(name, catalog, stats):
    """The number of batches is right even where some workers have no site of their own."""
    made = contestant(name)(Work.of(catalog.take(range(2)), stats, batch_size=2, threads=3))
    try:
        assert sum(len(images) for images in made.batches(3)) == 6
    finally:
        made.close()


def test_the_check_refuses_other_work(catalog, stats):
    """Contestants that change pixels, exchange sites or deliver too few are found out."""
    work = Work.of(catalog.take(range(4)), stats, batch_size=2, threads=1, augment=False)

    def cheat(change):
        class Cheat(ours.Loader):
            name = "cheat"

            def batches(self, count):
                return change(list(super().batches(count)))

        return Cheat

    race.check(cheat(lambda batches: batches), work)
    for change in (lambda b: [x + 0.01 for x in b], lambda b: b[::-1], lambda b: [x.flip(3) for x in b]):
        with pytest.raises(DataError, match="cheat does not do the same work"):
            race.check(cheat(change), work)
    with pytest.raises(DataError, match="delivered"):
        race.check(cheat(lambda batches: batches[:0]), work)


def test_the_check_knows_the_dtype(catalog, stats):
    """float16 may differ by its own rounding, but not by a coarser one, nor may another dtype be delivered."""
    half = Work.of(catalog.take(range(4)), stats, batch_size=2, threads=1, dtype="float16", augment=False)
    whole = replace(half, dtype="float32")

    def cheat(change):
        class Cheat(ours.Loader):
            name = "cheat"

            def batches(self, count):
                return map(change, super().batches(count))

        return Cheat

    race.check(cheat(lambda images: images), half)
    with pytest.raises(DataError, match="its pixels"):
        race.check(cheat(lambda images: images.bfloat16().half()), half)
    with pytest.raises(DataError, match="its pixels"):
        race.check(cheat(lambda images: images.half().float()), whole)
    for change, work in ((torch.Tensor.float, half), (torch.Tensor.half, whole)):
        with pytest.raises(DataError, match="cheat does not do the same work: it delivers torch.float"):
            race.check(cheat(change), work)


class Sleeper:
    """A contestant of a known rate."""

    def __init__(self, name, seconds, work, calls):
        self.name, self._seconds, self._work, self._calls = name, seconds, work, calls

    def batches(self, count):
        self._calls.append(self.name)
        for _ in range(count):
            time.sleep(self._seconds)
            yield torch.zeros(self._work.batch_size, 1)


def test_turns_alternate_and_rates_are_right(catalog, stats):
    """Two warm-ups each, then rounds that each begin with another; rates are delivered sites over time."""
    work, calls, ticks = Work.of(catalog, stats, batch_size=4, threads=1), [], []
    made = [Sleeper("slow", 0.02, work, calls), Sleeper("fast", 0.01, work, calls)]
    slow, fast = race.run(made, work, rounds=3, seconds=0.2, tick=ticks.append)
    turns = ["slow", "fast", "fast", "slow", "slow", "fast"]
    assert calls == ["slow", "slow", "fast", "fast", *turns]
    assert ticks == ["slow", "fast", *turns]
    assert len(slow.runs) == 3
    assert slow.sites_per_s == sorted(slow.runs)[1]
    # A sleep is never shorter than asked for, on a busy machine longer.
    assert 20 < slow.sites_per_s <= 200
    assert slow.sites_per_s < fast.sites_per_s <= 400


def test_a_contestant_that_delivers_less_is_disqualified(catalog, stats):
    """A rate over fewer sites than asked for is no result."""
    work = Work.of(catalog, stats, batch_size=4, threads=1)
    lazy = Sleeper("lazy", 0, work, [])
    lazy.batches = lambda count: iter(())
    with pytest.raises(DataError, match="lazy delivered 0 sites instead of"):
        race.run([lazy], work, rounds=1, seconds=0.1)


def test_a_round_trip_takes_up_where_it_stopped():
    """The sampler goes round the list over any number of passes."""
    sampler, seen = RoundTrip(5), []
    for sampler.count in (3, 4, 6):
        assert len(sampler) == sampler.count
        seen += sampler
    assert seen == [i % 5 for i in range(13)]


@pytest.fixture(scope="module")
def raced(rxrx_root, tmp_path_factory):
    """One small race with all peers: its folder, and what the command printed is not needed."""
    folder = tmp_path_factory.mktemp("race")
    arguments = ["bench", rxrx_root, "--peers", "--json", folder / "race.json", "--plot", folder / "race.png"]
    arguments += ["--seconds", "0.2", "--rounds", "3", "--batch-size", "4", "--threads", "1", "--sites", "10"]
    assert cli.main([str(argument) for argument in arguments]) == 0
    return folder


def test_the_json_has_what_a_reader_needs(raced, rxrx_root):
    """Work, machine, data, results and those not run, all plain values."""
    result = json.loads((raced / "race.json").read_text())
    assert result["work"]["name"] == "W1"
    assert result["work"]["batch_size"] == 4
    assert "jitter" in result["work"]["steps"]
    assert {"cpu", "cores", "memory_gib", "os", "python", "packages", "gpus"} <= set(result["machine"])
    assert result["data"]["sites"] == 10
    assert result["data"]["image_size"] == [64, 64]
    assert result["data"]["synthetic"]
    size = sum(path.stat().st_size for path in rxrx_root.rglob("*.png")) / 48
    assert 0.5 * size < result["data"]["bytes_a_site"] < 2 * size
    names = [row["name"] for row in result["results"]] + [row["name"] for row in result["not_run"]]
    assert names[:2] == ["rxrx_fast", "rxrx_fast.Dataset in torch DataLoader"]
    assert sorted(names[2:]) == sorted(name for name, _ in peers.PEERS.values())
    for row in result["results"]:
        assert len(row["runs"]) == 3
        assert min(row["runs"]) == row["min"] <= row["sites_per_s"] <= row["max"]
        assert row["min"] > 0
        assert row["sites_per_s"] == sorted(row["runs"])[1]
    assert result["date"].endswith("+00:00")
    assert result["command"].startswith("rxrx-fast")
    assert set(result["report"]["stages_s"]) <= {*shares.STAGES, "deliver"}
    found = result["report"]["threads_time"]
    assert found["explained"] == pytest.approx(sum(found["shares"].values()))
    assert found["threads"] == 1


def test_the_table_tells_the_ratio(raced):
    """A line a contestant with its median, its range and how many times as fast rxrx_fast is."""
    result = json.loads((raced / "race.json").read_text())
    text = report.table(result)
    first, second = result["results"][:2]
    line = next(line for line in text.splitlines() if line.startswith(second["name"]))
    assert f"{second['sites_per_s']:.1f}" in line
    assert f"{first['sites_per_s'] / second['sites_per_s']:.2f}x" in line
    assert "work checked" in text
    assert result["report"]["sentence"] in text
    assert shares.sentence(result["report"]["threads_time"]) in text.splitlines()
    result["report"]["threads_time"] = None
    assert "threads' time" not in report.table(result)


def test_the_chart_has_a_bar_for_everyone(raced, tmp_path):
    """The chart is a picture whose bars have the lengths of the rates."""
    result = json.loads((raced / "race.json").read_text())
    result["results"] = [
        {"name": name, "sites_per_s": rate, "min": rate, "max": rate, "runs": [rate]}
        for name, rate in (("rxrx_fast", 400.0), ("other", 100.0))
    ]
    image = np.asarray(Image.open(report.draw(result, tmp_path / "race.png")).convert("RGB")).astype(int)
    ours_wide = (np.abs(image - (0x0B, 0x7A, 0x75)).sum(-1) < 12).sum(1).max()
    theirs_wide = (np.abs(image - (0xB8, 0xBE, 0xC7)).sum(-1) < 12).sum(1).max()
    assert theirs_wide > 30
    assert 3.7 < ours_wide / theirs_wide < 4.3
    assert (raced / "race.png").stat().st_size > 10_000


def test_the_chart_names_the_dtype(raced, monkeypatch):
    """A picture of float16 batches can't be taken for one of float32."""
    drawn = []
    monkeypatch.setattr(sheet, "save", lambda figure, path: drawn.append(figure))
    result = json.loads((raced / "race.json").read_text())
    for dtype in DTYPES:
        report.draw({**result, "work": {**result["work"], "dtype": dtype}}, "unused.png")
    remarks = [" ".join(text.get_text() for text in figure.axes[0].texts) for figure in drawn]
    assert [[dtype in remark for dtype in DTYPES] for remark in remarks] == [[True, False], [False, True]]


def test_a_missing_package_is_listed(monkeypatch, rxrx_root):
    """A peer that can't be imported is in the result and the table with the reason; the others race."""
    real = peers.load

    def load(module):
        if module != "torch_pil":
            raise ImportError(f"No module named {module!r}; install it")
        return real(module)

    monkeypatch.setattr(bench, "load", load)
    result = bench.run(rxrx_root, peers=True, sites=4, batch_size=2, threads=1, rounds=1, seconds=0.05, quiet=True)
    assert [row["name"] for row in result["not_run"]] == [
        name for module, (name, _) in peers.PEERS.items() if module != "torch_pil"
    ]
    assert "not run: No module named 'dali'" in report.table(result)
    assert result["results"][-1]["name"] == "torch DataLoader + PIL"


@pytest.mark.parametrize(
    ("module", "package"),
    [("spdl_pipeline", "spdl"), ("webdataset_tar", "webdataset"), ("litdata_chunks", "litdata"),
     ("monai_loader", "monai"), ("monai_cache", "monai")],
)  # fmt: skip
def test_the_reason_says_what_to_install(monkeypatch, module, package):
    """Without its package, loading a peer is an ImportError that names the package and the extra."""
    hidden = [package, *(name for name in sys.modules if name.startswith(f"{package}."))]
    for name in hidden:
        monkeypatch.setitem(sys.modules, name, None)
    for name in peers.PEERS:
        monkeypatch.delitem(sys.modules, f"{peers.__name__}.{name}", raising=False)
    with pytest.raises(ImportError, match=rf"{package}.*; install rxrx-fast\[peers\]"):
        peers.load(module)


def test_names_in_the_list_are_the_contestants():
    """A peer has the same name whether it ran or not, and other work is marked by names that exist."""
    names = {name for name, _ in peers.PEERS.values()}
    assert set(peers.OTHER_WORK) <= names
    for module, (name, _) in peers.PEERS.items():
        try:
            assert peers.load(module).name == name
        except ImportError:
            continue


def test_other_work_is_marked(raced):
    """A row that had less to do says so in its line, and the table says why."""
    result = json.loads((raced / "race.json").read_text())
    name, reason = next(iter(peers.OTHER_WORK.items()))
    result["results"] = [*result["results"][:2], {**result["results"][1], "name": name}]
    lines = report.table(result).splitlines()
    assert [line.split("  ")[0] for line in lines if line.endswith("  other work")] == [name]
    assert f"other work, {name}: {reason}" in lines


def test_repacked_files_are_removed(catalog, stats, monkeypatch, tmp_path):
    """Peers that repack leave nothing in the temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("webdataset_tar", "litdata_chunks"):
        made = contestant(name)(Work.of(catalog.take(range(4)), stats, batch_size=2, threads=1))
        assert list(tmp_path.iterdir())
        made.close()
        assert not list(tmp_path.iterdir()), name


_ENDLESS = """
import sys
import time
from pathlib import Path

from torch.utils.data import DataLoader

from rxrx_fast import bench
from rxrx_fast.bench.peers.stream import StreamLoader


class Peer(StreamLoader):
    name = "a peer that repacks"

    def samples(self, work, folder):
        (Path(folder) / "packed").touch()
        return [work.reference(i) for i in range(len(work))]

    def loader(self, work, passes):
        return DataLoader(passes, batch_size=work.batch_size, num_workers=1, persistent_workers=True)


def race(made, work, **settings):
    print(sum(len(images) for images in made[-1].batches(2)), flush=True)
    time.sleep(600)


bench.PEERS, bench.load = {"peer": (Peer.name, "")}, lambda module: Peer
bench.race.check, bench.race.run = lambda contestant, work: None, race
bench.run(sys.argv[1], peers=True, sites=4, batch_size=2, threads=1, quiet=True)
"""


def test_a_race_that_is_ended_leaves_nothing(rxrx_root, tmp_path):
    """Asked to end, as by a batch system whose time is over, a race removes what its peers repacked."""
    command = [sys.executable, "-c", _ENDLESS, str(rxrx_root)]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"4\n"
            assert list(tmp_path.glob("rxrx-fast-peer-*/packed"))
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 128 + signal.SIGTERM
        finally:
            process.kill()
    assert not list(tmp_path.glob("rxrx-fast-peer-*"))


def test_without_peers_only_our_rows_run(rxrx_root, tmp_path):
    """Every row's name begins with rxrx_fast; the dtype asked for is in the JSON and in the table."""
    arguments = ["bench", str(rxrx_root), "--json", str(tmp_path / "half.json"), "--dtype", "float16", "--quiet"]
    assert (
        cli.main(
            [*arguments, "--sites", "4", "--batch-size", "2", "--threads", "1", "--rounds", "1", "--seconds", "0.05"]
        )
        == 0
    )
    result = json.loads((tmp_path / "half.json").read_text())
    assert result["work"]["dtype"] == "float16"
    assert "float16 on the CPU" in report.table(result)
    assert len(result["results"]) == 2
    assert not result["not_run"]
    assert all(row["name"].startswith("rxrx_fast") for row in result["results"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_missing_is_said(rxrx_root):
    """--device cuda without a GPU is a usage error with the reason."""
    with pytest.raises(UsageError, match="device='cuda'.*torch"):
        bench.run(rxrx_root, device="cuda", quiet=True)


def test_a_dtype_that_nobody_races_in_is_said(rxrx_root):
    """Raw pixels are other work than W1."""
    with pytest.raises(UsageError, match="dtype='uint8': must be 'float32' or 'float16'"):
        bench.run(rxrx_root, dtype="uint8", quiet=True)


def test_results_that_cannot_be_written_are_an_error(raced, tmp_path):
    """The message names the file."""
    with pytest.raises(DataError, match=r"nowhere.*can't be written"):
        report.write_json({}, tmp_path / "nowhere" / "a.json")
