"""The parts of the recipes, each by itself: splits, networks, heads, predictions, metrics, the log."""

import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import rxrx_fast as rx
from rxrx_fast.errors import DataError, UsageError
from rxrx_fast.recipes import backbones, metrics
from rxrx_fast.recipes.heads import ArcFace, Classifier, Linear
from rxrx_fast.recipes.predict import Predictions, adapted, predict, turns
from rxrx_fast.recipes.runlog import RunLog
from rxrx_fast.recipes.splits import divide


def test_splits_never_share_an_experiment(rxrx_root):
    """What is held out is of other experiments, by the official split and by name, and only treatments are measured."""
    catalog = rx.Catalog.read(rxrx_root)
    for arguments in (("official",), ("experiments", ["HUVEC-01"]), ("experiments",)):
        parts = divide(catalog, *arguments)
        (held_out,) = parts.held_out.values()
        assert not set(parts.train.table["experiment"]) & set(held_out.table["experiment"])
        assert set(held_out.table["well_type"]) == {"treatment"}
        assert set(parts.train.table["well_type"]) > {"treatment"}
    assert set(divide(catalog, "experiments").held_out["held_out"].table["experiment"]) == {"HUVEC-17"}
    assert len(divide(catalog, wells="all").held_out["test"]) == 24


def test_wilds_parts(tmp_path):
    """A WILDS data set has three held-out parts; the training part and id_test share experiments, and no sites."""
    from PIL import Image

    rows = [("train", 1, 1), ("id_test", 1, 2), ("val", 2, 1), ("test", 3, 1)]
    table = pd.DataFrame(
        [
            {"site_id": f"HUVEC-0{e}_1_B03_{s}", "well_id": f"HUVEC-0{e}_1_B03", "cell_type": "HUVEC", "dataset": name,
             "experiment": f"HUVEC-0{e}", "plate": 1, "well": "B03", "site": s, "well_type": "treatment",
             "sirna": "s1", "sirna_id": 5}
            for name, e, s in rows
        ]
    )  # fmt: skip
    for row in table.itertuples():
        folder = tmp_path / "images" / row.experiment / "Plate1"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16)).save(folder / f"B03_s{row.site}.png")
    table.to_csv(tmp_path / "metadata.csv", index=False)
    catalog = rx.Catalog.read(tmp_path)
    if "val" not in catalog.categories["split"]:
        pytest.fail(f"not read as WILDS: {catalog.categories['split']}")
    parts = divide(catalog, "wilds")
    assert {name: len(part) for name, part in parts.held_out.items()} == {"val": 1, "test": 1, "id_test": 1}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("random",), "must be one of official"),
        (("wilds",), "has no part 'val'"),
        (("official", ["HUVEC-01"]), "goes with --split experiments"),
        (("experiments", ["RPE-01"]), "no such experiment; choose from HUVEC-01"),
    ],
)
def test_splits_that_do_not_exist(rxrx_root, arguments, words):
    """A split that the data set can't give is one line that says why."""
    with pytest.raises(UsageError, match=words):
        divide(rx.Catalog.read(rxrx_root), *arguments)


def test_a_stem_of_six_channels_sees_a_grey_picture_as_three_do():
    """Spread over six channels, RGB weights answer to a grey picture as before."""
    torch.manual_seed(0)
    stem = torch.nn.Conv2d(3, 4, 3, bias=False)
    grey = torch.randn(2, 1, 8, 8)
    wide = backbones.stem_from_rgb(stem, 6, fresh=False)
    torch.testing.assert_close(wide(grey.expand(-1, 6, -1, -1)), stem(grey.expand(-1, 3, -1, -1)))
    assert wide.weight.shape == (4, 6, 3, 3)
    assert not torch.equal(backbones.stem_from_rgb(stem, 6, fresh=True).weight, wide.weight)


@pytest.mark.parametrize(("name", "package"), [("resnet50", "torchvision"), ("timm:resnet18", "timm")])
def test_a_library_that_is_not_there_is_named(monkeypatch, name, package):
    """Without torchvision or timm, or with one for another torch, a backbone of theirs says what to install."""

    def broken(name):
        raise RuntimeError("undefined symbol: _ZN3c10\nand more")

    monkeypatch.setattr(backbones.importlib, "import_module", broken)
    with pytest.raises(UsageError, match=f"needs {package}, .*undefined symbol.*--backbone small") as caught:
        backbones.backbone(name)
    assert "\n" not in str(caught.value)


def test_torchvision_for_cuda_is_imported_beside_a_torch_without(monkeypatch):
    """Where the import fails for want of detection operators, they are declared and it is tried once more."""
    calls = []

    def importing(module):
        calls.append(module)
        if len(calls) == 1:
            raise RuntimeError("operator torchvision::nms does not exist")
        return "the module"

    monkeypatch.setattr(backbones.importlib, "import_module", importing)
    monkeypatch.setattr(backbones, "_declare_operators", lambda: calls.append("declared"))
    assert backbones.library("torchvision.models") == "the module"
    assert calls == ["torchvision.models", "declared", "torchvision.models"]


def imported(module):
    """A kept library, or a skip with the reason."""
    try:
        return backbones.library(module)
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"{module} can't be imported: {error}")


@pytest.mark.integration
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet161"])
def test_torchvisions_networks(name, tmp_path):
    """Each gives embeddings of six channels, with weights of its RGB twin where a file is given."""
    models = imported("torchvision.models")
    twin = models.get_model(name, weights=None).eval()
    torch.save(twin.state_dict(), tmp_path / "w.pt")
    network = backbones.backbone(name, 6, tmp_path / "w.pt").eval()
    grey = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        embedding = network(grey.expand(-1, 6, -1, -1))
        head = twin.classifier if name.startswith("dense") else twin.fc
        torch.testing.assert_close(head(embedding), twin(grey.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4)
    assert embedding.shape == (1, network.features)
    (tmp_path / "w.pt").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a state dict"):
        backbones.backbone(name, 6, tmp_path / "w.pt")


# A plain stem, one that pads as it runs, one that standardises its weights, and a head with a layer before it.
@pytest.mark.integration
@pytest.mark.parametrize("name", ["resnet18", "tf_mobilenetv3_small_075", "resnetv2_18", "convnext_atto"])
@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_timms_networks(name, kind, tmp_path):
    """Any of timm's does as its RGB twin does to a grey picture, with the twin's weights from either kind of file."""
    timm = imported("timm")
    torch.manual_seed(3)
    twin = timm.create_model(name, num_classes=11).eval()
    path = tmp_path / f"w.{kind}"
    if kind == "pt":
        torch.save(twin.state_dict(), path)
    else:
        pytest.importorskip("safetensors.torch").save_file(twin.state_dict(), path)
    network = backbones.backbone(f"timm:{name}", 6, path).eval()
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        embedding = network(grey.expand(-1, 6, -1, -1))
        wanted = twin.forward_head(twin.forward_features(grey.expand(-1, 3, -1, -1)), pre_logits=True).flatten(1)
        torch.testing.assert_close(embedding, wanted, rtol=1e-3, atol=1e-4)
    assert embedding.shape == (2, network.features)


@pytest.mark.integration
def test_what_timm_can_not_give(tmp_path):
    """Unknown names and weights of another network are one line; a name that would be fetched is unknown."""
    timm = imported("timm")
    for name in ("timm:resnet19", "timm:hf-hub:someone/resnet18", "timm:"):
        with pytest.raises(UsageError, match="has no such network"):
            backbones.backbone(name)
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "w.pt")
    with pytest.raises(DataError, match="not a state dict of timm:resnet26"):
        backbones.backbone("timm:resnet26", 6, tmp_path / "w.pt")
    with pytest.raises(UsageError, match="comes with the normalisation"):
        backbones.backbone("timm:resnet18", norm="group")
    with pytest.raises(UsageError, match="must be one of small, .*or timm:NAME"):
        backbones.backbone("resnet19")


def test_the_margin_of_arcface():
    """The right class's cosine is that of the angle plus the margin; others and unlabelled samples are untouched."""
    torch.manual_seed(0)
    head = ArcFace(16, 5, scale=30, margin=0.1)
    x, labels = torch.randn(6, 16), torch.tensor([0, 1, 2, 3, 4, -1])
    plain, harder = head(x), head(x, labels)
    angle = torch.acos(plain / 30)
    for i, label in enumerate(labels.tolist()):
        for k in range(5):
            want = 30 * torch.cos(angle[i, k] + 0.1) if k == label else plain[i, k]
            torch.testing.assert_close(harder[i, k], want, rtol=1e-4, atol=1e-4)
    # The right direction itself has a gradient, where the sine's slope is infinite.
    exact = head.weight.detach()[:1].clone().requires_grad_()
    head(exact, torch.tensor([0])).sum().backward()
    assert torch.isfinite(exact.grad).all()


def test_test_time_views_are_the_eight_turns():
    """The eight policies give the eight symmetries of the square, each once, the first the picture itself."""
    from rxrx_fast.augment.policy import Policy

    codes = [int(p.draw(7, 3, np.array([11]), 0, 6).codes[0]) for p in turns(8)]
    again = [int(p.draw(8, 1, np.array([5]), 2, 6).codes[0]) for p in turns(8)]
    assert codes == again
    assert sorted(codes) == list(range(8))
    assert codes[0] == 0
    assert turns(4) == turns(8)[:4]
    assert not any(p.transpose for p in turns(4))
    assert turns(1) == [Policy()]


@pytest.fixture
def model():
    """An untrained classifier, in evaluation."""
    torch.manual_seed(1)
    body = backbones.Small(6, 16)
    return Classifier(body, Linear(body.features, 7)).eval()


def test_predictions_are_means_over_views(rxrx_root, stats, model):
    """Each site's logits are the mean over the turned copies, in the order of the table, however it is batched."""
    catalog = rx.Catalog.read(rxrx_root).split("test")
    said = predict(model, rx.Dataset(catalog, stats=stats, views=turns(8)), batch_size=5, device="cpu", quiet=True)
    assert said.table.index.tolist() == catalog.table.index.tolist()
    plain = rx.Dataset(catalog, stats=stats)
    for i in (0, 7, 23):
        image = plain[i][0]
        copies = [v.rot90(k, (1, 2)) for v in (image, image.flip(2)) for k in range(4)]
        with torch.no_grad():
            logits, embedding = (part.mean(0) for part in model(torch.stack(copies)))
        np.testing.assert_allclose(said.logits[i], logits, atol=1e-4)
        np.testing.assert_allclose(said.embeddings[i], embedding, atol=1e-4)


def test_wells_are_means_of_their_sites():
    """A well of two sites is their mean, one of a single site is that site; the order is that of first sites."""
    table = pd.DataFrame({"well_id": ["z", "a", "z"], "sirna_id": [1, 2, 1]})
    wells = Predictions(table, np.array([[1.0], [5], [3]]), np.array([[2.0, 0], [1, 1], [4, 2]])).wells()
    assert wells.table["well_id"].tolist() == ["z", "a"]
    assert wells.logits.tolist() == [[2.0], [5.0]]
    assert wells.embeddings.tolist() == [[3.0, 1.0], [1.0, 1.0]]


def test_adapted_normalises_by_the_group(model):
    """Within, evaluation gives what the batch's own statistics give; outside, all is as before."""
    x = 3 + 2 * torch.randn(24, 6, 64, 64)
    before, state = model(x)[0], {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad(), adapted(model, [x]):
        inside = model(x)[0]
    assert not model.training
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    torch.testing.assert_close(model(x)[0], before)
    model.train()
    # Training normalises by the biased variance, evaluation by the unbiased one.
    torch.testing.assert_close(inside, model(x)[0], rtol=0.05, atol=0.02)


@pytest.mark.parametrize("convert", [lambda model: model, torch.nn.SyncBatchNorm.convert_sync_batchnorm])
def test_adapted_pools_all_samples(convert):
    """However a group is cut, the first layer's mean and variance are those of all its samples, and stay in it."""
    torch.manual_seed(5)
    group = (
        torch.randn(23, 4, 9, 9) * torch.arange(1.0, 24)[:, None, None, None] + torch.arange(23.0)[:, None, None, None]
    )
    layer = convert(torch.nn.Sequential(torch.nn.BatchNorm2d(4))).eval()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    for cut in ([23], [10, 10, 3], [1] * 23):
        with torch.no_grad(), adapted(layer, iter(group.split(cut))):
            torch.testing.assert_close(layer[0].running_mean, group.mean((0, 2, 3)))
            # torch's running variances are the unbiased ones of each batch: 81 / 80 too large for a single picture.
            torch.testing.assert_close(layer[0].running_var, group.var((0, 2, 3)), rtol=0.02, atol=0)
            normalised = layer(group)
        assert abs(float(normalised.mean())) < 1e-4
        assert float(normalised.std()) == pytest.approx(1, rel=0.01)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_adapting_keeps_no_group_in_memory(rxrx_root, stats, model):
    """Every batch of a group comes twice, and of a dozen batches no more than a few are there at any time."""
    seen, most = [], 0

    def watch(module, inputs):
        nonlocal most
        seen.append(weakref.ref(inputs[0]))
        most = max(most, sum(ref() is not None for ref in seen))

    model.register_forward_pre_hook(watch)
    dataset = rx.Dataset(rx.Catalog.read(rxrx_root).split("test"), stats=stats, views=turns(4))
    predict(model, dataset, batch_size=2, group_by="experiment", device="cpu", quiet=True)
    assert len(seen) == 2 * 12 * 4
    # The views of one batch, and of the one that comes after it.
    assert most <= 2 * 4


def test_a_plate_predicts_alike_in_any_company(rxrx_root, stats, model):
    """With the group's own statistics, a plate's embeddings do not depend on which other plates are predicted."""
    catalog = rx.Catalog.read(rxrx_root).split("test")
    options = {"batch_size": 16, "group_by": "plate", "device": "cpu", "quiet": True}
    both = predict(model, rx.Dataset(catalog, stats=stats), **options)
    one = predict(model, rx.Dataset(catalog.where(plate=2), stats=stats), **options)
    mine = (both.table["plate"] == 2).to_numpy()
    np.testing.assert_allclose(both.logits[mine], one.logits, atol=1e-5)
    other = predict(model, rx.Dataset(catalog, stats=stats), batch_size=16, device="cpu", quiet=True)
    assert abs(other.logits[mine] - one.logits).max() > 1e-3


def test_scores_by_hand():
    """Accuracy, top-5, groups; unlabelled samples don't count, unknown labels are wrong, and a tie is no hit."""
    table = pd.DataFrame({"sirna_id": [3, 3, 9, 4, -1, 8], "cell_type": list("aabbbb"), "experiment": list("xyxyxy")})
    classes = np.array([1, 3, 4, 5, 6, 7, 9])
    target = metrics.targets(table, classes)
    assert target.tolist() == [1, 1, 6, 2, -1, -2]
    logits = np.zeros((6, 7))
    logits[0, 1] = 1  # right
    logits[1, :5] = [5, 1, 4, 3, 2]  # fifth
    logits[2] = 0  # all alike
    logits[3, :3] = [1, 0, 2]  # right
    found = metrics.scores(logits, target, table)
    assert (found["samples"], found["accuracy"], found["top5"]) == (5, 0.4, 0.6)
    assert found["by_cell_type"]["a"] == {"samples": 2, "accuracy": 0.5, "top5": 1.0}
    assert found["by_experiment"]["y"]["samples"] == 3
    empty = metrics.scores(logits[4:5], target[4:5], table.iloc[4:5])
    assert empty["accuracy"] is None
    assert empty["samples"] == 0


def test_retrieval_by_hand():
    """Neighbours by angle: the share of matches, mean average precision, and what chance would give."""
    gallery, labels = np.array([[1.0, 0], [0, 2], [-1, 0], [1, 0.1]]), np.array([1, 2, 3, 2])
    found = metrics.retrieval(np.array([[9.0, 0], [0, 1.0], [1, 1]]), np.array([1, 2, -1]), gallery, labels, depth=2)
    assert found["queries"] == 2
    assert found["at_1"] == 1.0
    assert found["at_2"] == 1.0
    assert found["map"] == 1.0
    assert found["chance_at_1"] == pytest.approx((0.25 + 0.5) / 2)
    assert metrics.retrieval(gallery, np.full(4, 7), gallery, labels)["at_1"] is None


def test_the_log_forgets_what_came_after_the_checkpoint(tmp_path):
    """Taken up at step 2, the log has rows to step 2; a new column is added to all."""
    log = RunLog(tmp_path)
    for step in (1, 2, 3):
        log.add(step, loss=1 / step)
    log.close()
    log = RunLog(tmp_path, step=2)
    log.add(3, loss=9.0, accuracy=0.5)
    log.close()
    rows = RunLog.read(tmp_path / "log.csv")
    assert [(row["step"], row["loss"], row["accuracy"]) for row in rows] == [
        ("1", "1", ""),
        ("2", "0.5", ""),
        ("3", "9", "0.5"),
    ]
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column 'step'"):
        RunLog(tmp_path)


def test_tensorboard_gets_the_same_numbers(tmp_path, monkeypatch):
    """Where TensorBoard is installed, every number of the log goes there too, and what came after a checkpoint goes."""
    told = []

    class Writer:
        def __init__(self, folder, purge_step=None):
            told.append(("begin", folder, purge_step))

        def add_scalar(self, *row):
            told.append(row)

        def close(self):
            told.append(("end",))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    log = RunLog(tmp_path, step=4)
    log.add(5, loss=0.25, kind="words")
    log.close()
    assert told == [("begin", str(tmp_path), 5), ("loss", 0.25, 5), ("end",)]
    RunLog(tmp_path / "elsewhere", write=False).add(1, loss=1.0)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.integration
def test_tensorboard_reads_the_log_back(tmp_path):
    """With the real TensorBoard, where it is installed: its reader finds the numbers of the CSV file."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = RunLog(tmp_path)
    for step in (1, 2, 3):
        log.add(step, loss=1 / step, accuracy=step / 4)
    log.close()
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    for name in ("loss", "accuracy"):
        rows = [(int(row["step"]), pytest.approx(float(row[name]))) for row in RunLog.read(tmp_path / "log.csv")]
        assert [(event.step, event.value) for event in events.Scalars(name)] == rows


def test_a_loss_that_is_no_number_stops_the_run(settings):
    """A run that diverges says so in one line instead of going on."""
    from dataclasses import replace

    from rxrx_fast.recipes import classify

    with pytest.raises(DataError, match="the loss became (nan|inf).*lower --lr"):
        classify.run(replace(settings, lr=1e30, epochs=3))
