"""States through the hooks of other people's training loops: torchdata, Lightning, Accelerate. Skipped without them."""

import json

import pytest
import torch
from loading import told

import rxrx_fast as rx

pytestmark = pytest.mark.integration


@pytest.fixture
def make(dataset):
    """A fresh loader of the same run."""
    return lambda **arguments: rx.DataLoader(dataset, **{"batch_size": 10, "shuffle": True, "seed": 3, **arguments})


def epochs(loader, count):
    return [[told(batch) for batch in loader] for _ in range(count)]


def test_a_state_taken_anywhere_resumes_as_torchdatas(rxrx_root, make):
    """Before the first batch, after each, after the last and after the end of an epoch, the batches of the two epochs
    that follow are as many as StatefulDataLoader's, and the same samples.
    """
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
    dataset = rx.Dataset(rxrx_root, dtype="uint8")

    def theirs():
        return stateful.StatefulDataLoader(dataset, batch_size=10)

    def mine():
        return rx.DataLoader(dataset, batch_size=10)

    for taken in (0, 1, 4, 5, "end"):
        rests = []
        for build in (theirs, mine):
            first, second = build(), build()
            iterator = iter(first)
            for _ in iterator if taken == "end" else range(taken):
                if taken != "end":
                    next(iterator)
            second.load_state_dict(json.loads(json.dumps(first.state_dict())) if build is mine else first.state_dict())
            rests.append([[meta["site_index"].tolist() for _, _, meta in second] for _ in range(2)])
        assert rests[0] == rests[1], taken


def test_lightning_resumes_in_the_middle_of_an_epoch(make, tmp_path):
    """Trainer.fit is stopped in epoch 1, and goes on from its checkpoint with the batches that are left."""
    pl = pytest.importorskip("pytorch_lightning", reason="pytorch_lightning is not installed")

    class Module(pl.LightningModule):
        def __init__(self, stop_at=None):
            super().__init__()
            self.weight, self.seen, self.stop_at = torch.nn.Parameter(torch.zeros(6)), [], stop_at

        def training_step(self, batch, _):
            self.seen.append((self.current_epoch, told(batch)))
            return (self.weight * batch[0].mean((0, 2, 3))).sum()

        def on_train_batch_end(self, *_):
            if self.global_step == self.stop_at:
                self.trainer.save_checkpoint(tmp_path / "last.ckpt")
                raise Stop

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    class Stop(Exception):
        pass

    def trainer():
        return pl.Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )

    whole = Module()
    trainer().fit(whole, make())
    assert len(whole.seen) == 15
    first = Module(stop_at=7)
    with pytest.raises(Stop):
        trainer().fit(first, make())
    second = Module()
    trainer().fit(second, make(num_threads=1), ckpt_path=tmp_path / "last.ckpt")
    assert first.seen + second.seen == whole.seen


def test_accelerate_saves_and_loads_the_loader(make, tmp_path):
    """Prepare leaves the loader alone; save_state and load_state carry its place as any registered object's."""
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    expected = epochs(make(), 2)

    def run(folder=None):
        accelerator = accelerate.Accelerator(cpu=True)
        loader = make()
        _model, prepared = accelerator.prepare(torch.nn.Linear(2, 2), loader)
        assert prepared is loader
        accelerator.register_for_checkpointing(loader)
        if folder is not None:
            accelerator.load_state(folder)
        return accelerator, loader

    accelerator, loader = run()
    seen = []
    for batch in loader:
        seen.append(told(batch))
        if len(seen) == 2:
            break
    accelerator.save_state(tmp_path / "state")
    _, loader = run(tmp_path / "state")
    assert [seen + [told(batch) for batch in loader], *epochs(loader, 1)] == expected
