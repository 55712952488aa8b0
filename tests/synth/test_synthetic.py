"""The generated data set: real structure, real files, the same bytes by every route, and refusals."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import signal
import struct
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from loading import interruptible
from PIL import Image

from rxrx_fast.errors import DataError, UsageError
from rxrx_fast.synth import writer as synthetic
from rxrx_fast.synth.design import CONTROL_WELLS, REAL_EXPERIMENTS, Parameters, experiment_names, plan
from rxrx_fast.synth.phenotypes import CELL_TYPES
from rxrx_fast.synth.writer import generate

SMALL = dict(experiments=["RPE-01", "RPE-08"], plates=1, wells=4, sites=2, size=32, quiet=True)


def digests(root: str) -> dict[str, str]:
    """Hash the bytes of every file below a folder."""
    paths = sorted(p for p in Path(root).rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def parameters(**changes) -> Parameters:
    return Parameters(
        **{
            **dict(
                layout="rxrx",
                experiments=("HUVEC-01", "HUVEC-02", "RPE-01"),
                plates=4,
                wells=308,
                sites=2,
                size=512,
                seed=0,
            ),
            **changes,
        }
    )


def by_plate(wells) -> dict:
    plates = defaultdict(dict)
    for well in wells:
        plates[well.experiment, well.plate][well.well] = well.sirna
    return plates


def test_a_whole_plate_has_the_real_structure():
    """Plates have 308 wells with the real positions, and four disjoint groups make up all treatments."""
    plates = by_plate(plan(parameters()))
    assert len(plates) == 12
    groups = defaultdict(set)
    for (experiment, _), wells in plates.items():
        assert sorted(wells) == [f"{row}{column:02d}" for row in "BCDEFGHIJKLMNO" for column in range(2, 24)]
        assert wells["B02"] == 1138
        assert sorted(wells[well] for well in CONTROL_WELLS) == list(range(1108, 1138))
        treatments = frozenset(sirna for sirna in wells.values() if sirna < 1108)
        assert len(treatments) == 277
        groups[experiment].add(treatments)
    assert set(groups["HUVEC-01"]) == set(groups["HUVEC-02"]) == set(groups["RPE-01"])
    assert frozenset.union(*groups["RPE-01"]) == frozenset(range(1108))


def test_positions_and_group_order_vary():
    """A siRNA's well and its group's plate change from experiment to experiment."""
    plates = by_plate(plan(parameters(experiments=tuple(experiment_names(20)))))
    places, carriers = defaultdict(set), defaultdict(set)
    for (_, plate), wells in plates.items():
        for well, sirna in wells.items():
            places[sirna].add(well)
            carriers[sirna].add(plate)
    assert all(len(places[sirna]) > 8 for sirna in range(1138))
    assert all(len(carriers[sirna]) > 1 for sirna in range(1108))


@pytest.mark.parametrize("wells", [3, 8, 40, 307])
@pytest.mark.parametrize("plates", [1, 2, 4])
def test_fewer_wells_keep_labels_that_recur(wells, plates):
    """A small plate has its untreated well, controls and treatments, and every experiment has the same labels."""
    table = by_plate(plan(parameters(wells=wells, plates=plates)))
    labels = defaultdict(Counter)
    for (experiment, _), positions in table.items():
        assert len(positions) == wells
        assert positions["B02"] == 1138
        kinds = Counter("control" if 1108 <= s < 1138 else "treatment" for s in positions.values() if s != 1138)
        assert kinds["control"] >= 1
        assert kinds["treatment"] >= 1
        labels[experiment].update(positions.values())
    assert labels["HUVEC-01"] == labels["HUVEC-02"] == labels["RPE-01"]


def test_the_plan_of_an_experiment_does_not_depend_on_the_others():
    """Leaving experiments out, or changing the layout, does not change the rest of the plan."""
    both = [w for w in plan(parameters()) if w.experiment == "RPE-01"]
    assert both == plan(parameters(experiments=("RPE-01",), layout="kaggle"))
    assert both != plan(parameters(experiments=("RPE-01",), seed=1))


def test_experiment_names_follow_the_real_numbering():
    """Counts from 2 have both splits, from 4 all cell types, and 51 gives exactly the real experiments."""
    real = {f"{t}-{n:02d}" for t, (train, test) in REAL_EXPERIMENTS.items() for n in range(1, train + test + 1)}
    for count in range(1, 52):
        names = experiment_names(count)
        assert len(names) == count
        assert len(set(names)) == count
        assert set(names) <= real
        splits = {well.dataset for name in names for well in plan(parameters(experiments=(name,), wells=3, plates=1))}
        assert count == 1 or splits == {"train", "test"}
        assert count < 4 or {name.split("-")[0] for name in names} == set(CELL_TYPES)
    assert experiment_names(2) == ["HUVEC-01", "HUVEC-17"]


def test_experiments_of_some_cell_types():
    """Experiments of the named cell types alone, in both splits, and no more than RxRx1 has."""
    assert experiment_names(24, ["HUVEC"]) == [f"HUVEC-{n:02d}" for n in range(1, 25)]
    assert experiment_names(4, ["RPE", "U2OS"]) == ["RPE-01", "RPE-08", "U2OS-01", "U2OS-04"]
    with pytest.raises(UsageError, match="experiments must be an integer from 1 to 5"):
        experiment_names(6, ["U2OS"])
    with pytest.raises(UsageError, match=r"cell type 'HELA': must be among .*HUVEC"):
        experiment_names(2, ["HELA"])


def test_effects_can_be_chosen(tmp_path):
    """The default factors give the older bytes; others give other images and another data set."""
    before = generate(tmp_path / "before", workers=1, **SMALL)
    manifest = Path(before) / "synthetic.json"
    found = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({k: v for k, v in found.items() if k not in ("strength", "plate_effect")}))
    generate(before, workers=1, strength=1, plate_effect=1.0, **SMALL)
    with pytest.raises(UsageError, match=r"holds a data set with plate_effect 1\.0, not 3"):
        generate(before, workers=1, plate_effect=3, **SMALL)
    with pytest.raises(UsageError, match="strength must be a number from 0 to 10, got -1"):
        generate(tmp_path / "bad", workers=1, strength=-1, **SMALL)
    others = [generate(tmp_path / name, workers=1, **SMALL, **{name: 2.0}) for name in ("strength", "plate_effect")]
    images = [{k: v for k, v in digests(root).items() if k.endswith("png")} for root in (before, *others)]
    for other in images[1:]:
        changed = [name for name in other if other[name] != images[0][name]]
        assert other.keys() == images[0].keys()
        assert len(changed) > len(other) / 2


def test_rxrx_layout(tmp_path):
    """The rxrx.ai layout: images/ and a metadata.csv with one row per site, whose images all exist."""
    root = generate(tmp_path / "out", workers=1, **SMALL)
    table = pd.read_csv(os.path.join(root, "metadata.csv"), keep_default_na=False)
    assert list(table.columns) == [
        "site_id",
        "well_id",
        "cell_type",
        "dataset",
        "experiment",
        "plate",
        "well",
        "site",
        "well_type",
        "sirna",
        "sirna_id",
    ]
    assert len(table) == 2 * 4 * 2
    first = table.iloc[0]
    assert (first.site_id, first.well_id, first.dataset) == ("RPE-01_1_B02_1", "RPE-01_1_B02", "train")
    assert (first.sirna, first.sirna_id, first.well_type) == ("EMPTY", 1138, "negative_control")
    assert set(table.dataset) == {"train", "test"}
    assert set(table.site) == {1, 2}
    named = {
        f"images/{r.experiment}/Plate{r.plate}/{r.well}_s{r.site}_w{c}.png"
        for r in table.itertuples()
        for c in range(1, 7)
    }
    assert named | {"metadata.csv", "synthetic.json"} == set(digests(root))


def test_kaggle_layout(tmp_path):
    """The 2019 layout: train/, test/ and four CSVs with one row per well, without test labels."""
    root = generate(tmp_path / "out", layout="kaggle", workers=1, **SMALL)
    read = {
        name: pd.read_csv(os.path.join(root, f"{name}.csv"))
        for name in ("train", "test", "train_controls", "test_controls")
    }
    columns = ["id_code", "experiment", "plate", "well", "sirna"]
    assert list(read["train"].columns) == columns
    assert list(read["test"].columns) == columns[:-1]
    assert list(read["train_controls"].columns) == list(read["test_controls"].columns) == [*columns, "well_type"]
    assert (read["train"].sirna < 1108).all()
    assert (read["test_controls"].sirna >= 1108).all()
    assert read["train"].id_code[0] == f"RPE-01_1_{read['train'].well[0]}"
    assert sum(map(len, read.values())) == 2 * 4
    files = set(digests(root))
    assert "train/RPE-01/Plate1/B02_s1_w1.png" in files
    assert "test/RPE-08/Plate1/B02_s2_w6.png" in files


def test_files_are_what_pillow_writes(tmp_path):
    """Each PNG is 8-bit gray, has only IHDR, IDAT and IEND, and is byte for byte what Pillow saves."""
    root = generate(tmp_path / "out", workers=1, **{**SMALL, "size": 64, "wells": 3, "sites": 1})
    for path in Path(root).rglob("*.png"):
        data = path.read_bytes()
        image = Image.open(io.BytesIO(data))
        assert image.mode == "L"
        assert image.size == (64, 64)
        copy = io.BytesIO()
        Image.fromarray(np.asarray(image)).save(copy, "PNG", compress_level=9)
        assert copy.getvalue() == data
        chunks, at = [], 8
        while at < len(data):
            length, kind = struct.unpack(">I4s", data[at : at + 8])
            if kind == b"IDAT" and not chunks.count(kind):
                assert data[at + 8 : at + 10] == b"\x78\xda"
            chunks.append(kind)
            at += 12 + length
        assert chunks[0] == b"IHDR"
        assert chunks[-1] == b"IEND"
        assert set(chunks[1:-1]) == {b"IDAT"}


def test_workers_layout_and_company_do_not_change_a_byte(tmp_path):
    """One process or two, either layout, alone or with another experiment: the same images."""
    alone = digests(generate(tmp_path / "alone", workers=1, **{**SMALL, "experiments": ["RPE-08"]}))
    pooled = digests(generate(tmp_path / "pooled", workers=2, layout="kaggle", **SMALL))
    pictures = {path.removeprefix("images/"): digest for path, digest in alone.items() if path.endswith("png")}
    assert len(pictures) == 4 * 2 * 6
    assert all(pooled["test/" + path] == digest for path, digest in pictures.items())
    assert len(set(pictures.values())) == len(pictures)


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    """A stopped run leaves only whole files; called again, it draws what is missing."""
    whole = digests(generate(tmp_path / "whole", workers=1, **SMALL))
    saves = []
    save = Image.Image.save

    def failing(self, path, *rest, **settings):
        saves.append(path)
        save(self, path, *rest, **settings)
        if len(saves) == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", failing)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "part", workers=1, **SMALL)
    left = digests(str(tmp_path / "part"))
    assert len(left) == 19 + 1
    assert all(whole[path] == digest for path, digest in left.items())
    saves.extend([""] * 100)
    before = len(saves)
    assert digests(generate(tmp_path / "part", workers=1, **SMALL)) == whole
    assert len(saves) - before == (16 - 3) * 6  # three of sixteen sites were whole
    before = len(saves)
    generate(tmp_path / "part", workers=1, **SMALL)
    assert len(saves) == before


def group_is_alive(group: int) -> bool:
    """Tell whether a process of this group exists."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(os.name != "posix", reason="signals of a process group are POSIX")
def test_control_c_stops_the_pool(tmp_path):
    """An interrupt ends all processes, and leaves neither a partial file nor metadata."""
    code = (
        "from rxrx_fast.synth.writer import generate\n"
        f"generate({str(tmp_path / 'out')!r}, experiments=['RPE-01'], size=64, workers=2, quiet=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        start_new_session=True,
        preexec_fn=interruptible,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        deadline = time.time() + 50
        while not list((tmp_path / "out").rglob("*.png")):
            assert time.time() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=15)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in process.stderr.read()
    deadline = time.time() + 10
    while (alive := group_is_alive(process.pid)) and time.time() < deadline:
        time.sleep(0.1)
    assert not alive
    names = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert "metadata.csv" not in names
    assert not [name for name in names if name.endswith(".part")]
    for path in (tmp_path / "out").rglob("*.png"):
        Image.open(path).load()


def test_small_jobs_take_no_pool(tmp_path, monkeypatch):
    """By default, a job of a second or two runs in this process."""
    monkeypatch.setattr(synthetic.concurrent.futures, "ProcessPoolExecutor", None)
    generate(tmp_path / "out", **SMALL)
    assert (tmp_path / "out" / "metadata.csv").exists()
    assert list((tmp_path / "out").rglob("*.png"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "wilds"}, "layout must be one of rxrx, kaggle, got 'wilds'"),
        ({"experiments": 0}, "experiments must be an integer from 1 to 51, got 0"),
        ({"experiments": []}, "experiments must be one or more different names"),
        ({"experiments": ["RPE-01", "RPE-01"]}, "experiments must be one or more different names"),
        ({"experiments": ["RPE-1"]}, "an experiment is named like HUVEC-01"),
        ({"experiments": ["HELA-01"]}, "got 'HELA-01'"),
        ({"plates": 5}, "plates must be an integer from 1 to 4, got 5"),
        ({"wells": 2}, "wells must be an integer from 3 to 308, got 2"),
        ({"sites": 0}, "sites must be an integer from 1 to 9, got 0"),
        ({"size": 64.0}, "size must be an integer from 16 to 4096, got 64.0"),
        ({"seed": -1}, "seed must be an integer from 0"),
        ({"workers": 0}, "workers must be an integer from 1 to 1024, got 0"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, change, message):
    """A bad argument is refused in one line with its name and value, before anything is written."""
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        generate(tmp_path / "out", **{**SMALL, **change})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_is_refused(tmp_path):
    """A folder with other contents, and a file, are refused."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other things"):
        generate(tmp_path, workers=1, **SMALL)
    with pytest.raises(UsageError, match="is not a folder"):
        generate(tmp_path / "notes.txt", workers=1, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_other_parameters_in_the_same_folder_are_refused(tmp_path):
    """Other parameters in the same folder are refused; the message says what differs."""
    generate(tmp_path / "out", workers=1, **SMALL)
    with pytest.raises(UsageError, match="holds a data set with seed 0, not 1"):
        generate(tmp_path / "out", workers=1, seed=1, **SMALL)
    manifest = tmp_path / "out" / "synthetic.json"
    assert json.loads(manifest.read_text())["experiments"] == ["RPE-01", "RPE-08"]
    manifest.write_text("{")
    with pytest.raises(DataError, match=r"synthetic\.json does not describe"):
        generate(tmp_path / "out", workers=1, **SMALL)


def test_what_cannot_be_written_is_one_line(tmp_path):
    """A path that can't be written is named with its reason, also when a worker process found it."""
    generate(tmp_path / "out", workers=1, **SMALL)
    (tmp_path / "out" / "metadata.csv").unlink()
    plate = tmp_path / "out" / "images" / "RPE-08" / "Plate1"
    for path in plate.iterdir():
        path.unlink()
    plate.rmdir()
    plate.write_text("a file where a folder belongs")
    with pytest.raises(DataError, match=r"can't write .*Plate1: .*run the same command again") as caught:
        generate(tmp_path / "out", workers=1, **SMALL)
    assert "\n" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert not (tmp_path / "out" / "metadata.csv").exists()
