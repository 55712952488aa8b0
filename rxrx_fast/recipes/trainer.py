"""The training loop that the recipes share: mixed precision, accumulation, several processes, exact resume."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed, nn

from rxrx_fast.errors import DataError, UsageError
from rxrx_fast.loader import DataLoader
from rxrx_fast.recipes.runlog import RunLog
from rxrx_fast.runtime import progress

__all__ = ["Trainer", "cosine", "is_first", "mean_over_processes", "processes", "share_buffers", "write_json"]

CHECKPOINT = "checkpoint.pt"


class Trainer:
    """Trains a module over the epochs of a loader, and goes on where its last checkpoint was taken.

    Nothing in the loop draws random numbers: order and augmentation are the loader's, keyed by (seed, epoch, site). So
    weights, optimiser and the loader's state are all there is to save, and a resumed run takes the same steps.

    Parameters
    ----------
    folder : path
        Of ``checkpoint.pt`` and ``log.csv``.
    model : Module
        What ``loss`` trains. Under torch.distributed it is wrapped in DistributedDataParallel, and batch normalisation
        takes its statistics over all processes where they have GPUs (torch has no such layer for CPUs).
    loader : DataLoader
    loss : callable
        ``loss(model, images, labels, meta)`` gives the mean loss of the batch and a dict of floats or tensors to log.
    optimizer : callable
        Parameters to an Optimizer.
    rate : callable
        Learning rate at an epoch, a float such as 1.5 for the middle of the second.
    epochs : int
    accumulate : int
        Batches whose gradients make one step; at an epoch's end there may be fewer.
    amp : {"none", "bf16"}
        "bf16" runs the forward pass under autocast to bfloat16, whose range needs no loss scaling.
    compile : bool
        ``torch.compile`` the model.
    settings : dict
        What makes this run; a checkpoint of another run is refused, with what differs.
    more : dict
        Further modules or objects with ``state_dict`` and ``load_state_dict`` that belong in the checkpoint.
    before_epoch, after_step : callable, optional
        Called with the epoch, and with (epoch, step).
    log_every, save_every : int
        Steps between rows of the log, and between checkpoints besides those at the end of each epoch.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        model: nn.Module,
        loader: DataLoader,
        loss: Callable,
        *,
        optimizer: Callable,
        rate: Callable[[float], float],
        epochs: int,
        accumulate: int = 1,
        amp: str = "none",
        compile: bool = False,
        settings: dict | None = None,
        more: dict | None = None,
        before_epoch: Callable[[int], None] | None = None,
        after_step: Callable[[int, int], None] | None = None,
        log_every: int = 20,
        save_every: int = 500,
        quiet: bool = False,
        name: str = "training",
    ):
        self.folder, self.loader, self.loss, self.rate, self.epochs = Path(folder), loader, loss, rate, epochs
        self.accumulate, self.amp, self.settings, self.more = accumulate, amp, settings or {}, more or {}
        self._before_epoch, self._after_step = before_epoch, after_step
        self._log_every, self._save_every, self._quiet, self._name = log_every, save_every, quiet, name
        self.device = loader.device
        if distributed.is_initialized() and self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model = model.to(self.device)
        self.optimizer = optimizer(self.model.parameters())
        self.step, self._sums, self._batches = 0, {}, 0
        self._resume()
        # The model itself stays as it is, to be copied and saved.
        self._wrapped = torch.compile(self.model) if compile else self.model
        if distributed.is_initialized():
            self._wrapped = nn.parallel.DistributedDataParallel(self._wrapped)

    # ------------------------------------------------------------------------------------------------------ checkpoints

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise DataError(f"{path} can't be read ({reason}): move it away to begin anew") from None
        before = json.loads(state["settings"])
        now = json.loads(json.dumps(self.settings))
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                raise UsageError(
                    f"{self.folder} holds a run with {key}={before.get(key)!r}, and this one has {now.get(key)!r}: "
                    "take another --out, or the same options to go on"
                )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loader.load_state_dict(state["loader"])
        for key, holder in self.more.items():
            holder.load_state_dict(state["more"][key])
        self.step, self._sums, self._batches = state["step"], state["sums"], state["batches"]

    def save(self) -> None:
        """Write the checkpoint, in one replacement, from the first process."""
        if not is_first():
            return
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "loader": self.loader.state_dict(),
            "more": {key: holder.state_dict() for key, holder in self.more.items()},
            "settings": json.dumps(self.settings),
            "step": self.step,
            "sums": self._sums,
            "batches": self._batches,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"{CHECKPOINT}.part"
        torch.save(state, temporary)
        os.replace(temporary, self.folder / CHECKPOINT)

    # ------------------------------------------------------------------------------------------------------------- loop

    def fit(self) -> nn.Module:
        """Train to the last epoch; at once, where a checkpoint says that it was reached."""
        if is_first():
            self.folder.mkdir(parents=True, exist_ok=True)
        self._log = RunLog(self.folder, self.step, is_first())
        try:
            for epoch in range(self.loader.state_dict()["epoch"], self.epochs):
                self._epoch(epoch)
        finally:
            self._log.close()
        share_buffers(self.model)
        return self.model

    def _epoch(self, epoch: int) -> None:
        self.loader.set_epoch(epoch)
        done, length = self.loader.state_dict()["step"], len(self.loader)
        if self._before_epoch is not None:
            self._before_epoch(epoch)
        self.model.train()
        quiet = self._quiet or not is_first()
        with progress.bar(length, f"{self._name}, epoch {epoch + 1} of {self.epochs}", "batch", quiet) as bar:
            bar.update(done)
            for number, (images, labels, meta) in enumerate(self.loader, done):
                group = min(self.accumulate, length - number + number % self.accumulate)
                last = number % self.accumulate == group - 1
                self._batch(images, labels, meta, group, last)
                bar.update(1)
                if last:
                    self._advance(epoch, (number + 1) / length)
                    if self.step % self._save_every == 0 and number + 1 < length:
                        self.save()
        self._write_row(epoch)
        self.save()

    def _batch(self, images, labels, meta, group: int, last: bool) -> None:
        views = images if isinstance(images, tuple) else (images,)
        views = tuple(view.to(self.device, non_blocking=True) for view in views)
        # Gradients of several processes are added up once a step, not once a batch.
        wait = contextlib.nullcontext() if last or not distributed.is_initialized() else self._wrapped.no_sync()
        with wait:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp == "bf16"):
                loss, told = self.loss(
                    self._wrapped, views if len(views) > 1 else views[0], labels.to(self.device), meta
                )
            (loss / group).backward()
        for name, value in {"loss": loss, **told}.items():
            value = value.detach().float() if isinstance(value, torch.Tensor) else torch.tensor(float(value))
            self._sums[name] = self._sums.get(name, 0) + value.to(self.device)
        self._batches += 1

    def _advance(self, epoch: int, share: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(epoch + share)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if self._after_step is not None:
            self._after_step(epoch, self.step)
        if self.step % self._log_every == 0:
            self._write_row(epoch)

    def _write_row(self, epoch: int) -> None:
        """Means over the batches of all processes since the last row."""
        if not self._batches:
            return
        names = sorted(self._sums)
        values = torch.stack([self._sums[name] for name in names]) / self._batches
        if distributed.is_initialized():
            distributed.all_reduce(values)
            values = values / distributed.get_world_size()
        means = dict(zip(names, values.tolist()))
        if not math.isfinite(means["loss"]):
            raise DataError(
                f"the loss became {means['loss']} at step {self.step} of epoch {epoch + 1}: lower --lr, or look at "
                f"{self.folder / 'log.csv'}; the last checkpoint is from before"
            )
        told = self.loader.scalars()
        rates = {name: float(told[name]) for name in ("sites_per_s", "waiting_share")}
        self._log.add(self.step, epoch=epoch + 1, lr=float(self.optimizer.param_groups[0]["lr"]), **means, **rates)
        self._sums, self._batches = {}, 0


def cosine(peak: float, epochs: int, warm_up: float = 0.1) -> Callable[[float], float]:
    """A rate that rises linearly over the first share of the run and falls along a cosine to nothing."""

    def rate(epoch: float) -> float:
        share = min(epoch / epochs, 1.0)
        if share < warm_up:
            return peak * share / warm_up
        return peak * 0.5 * (1 + math.cos(math.pi * (share - warm_up) / (1 - warm_up)))

    return rate


# -------------------------------------------------------------------------------------------------- several processes


@contextlib.contextmanager
def processes():
    """Within it, torch.distributed is up if torchrun started this process: NCCL with GPUs, else gloo."""
    if "RANK" not in os.environ or distributed.is_initialized():
        yield
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def mean_over_processes(losses: torch.Tensor) -> torch.Tensor:
    """Mean of the losses of some samples, of which each process has another number, (n,) to (); 0 where nobody has any.

    The mean over processes of what they get, which is what gradients come to, is the mean over all samples.
    """
    if not distributed.is_initialized():
        return losses.sum() / max(len(losses), 1)
    count = torch.tensor(float(len(losses)), device=losses.device)
    distributed.all_reduce(count)
    return losses.sum() * distributed.get_world_size() / count.clamp_min(1)


def share_buffers(module: nn.Module) -> None:
    """Give every process the first one's buffers.

    Running statistics are a process's own where no layer synchronises them, as on CPUs: each would predict otherwise.
    """
    if distributed.is_initialized():
        for buffer in module.buffers():
            distributed.broadcast(buffer, 0)


def is_first() -> bool:
    """Whether this process writes files and prints."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def write_json(path: str | os.PathLike, values: dict) -> Path:
    """Write a dictionary in one replacement."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path
