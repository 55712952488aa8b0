"""Logits and embeddings of a part: several views from one decode, adaptive batch normalisation, means over wells."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import torch
from torch import distributed, nn

from rxrx_fast import progress
from rxrx_fast.dataset import Dataset
from rxrx_fast.loader import DataLoader
from rxrx_fast.policy import Policy

__all__ = ["Predictions", "adapted", "predict", "turns"]


def turns(count: int) -> list[Policy]:
    """The views of test-time augmentation: the picture itself (1), its mirrors (4), its quarter turns as well (8).

    Each is a policy that always draws the same, so the loader makes all of them from one decode.
    """
    every = [Policy(hflip=float(h), vflip=float(v), transpose=float(t)) for t, v, h in product((0, 1), (0, 1), (0, 1))]
    return every[:count]


@dataclass(frozen=True)
class Predictions:
    """What a network says of N samples: sites, or the wells that they come from.

    table : DataFrame
        N rows; of a catalog's table, or the first site's of each well.
    logits : (N, classes) float32
    embeddings : (N, features) float32
    sentence : str
        The loader's verdict on who waited.
    """

    table: pd.DataFrame
    logits: np.ndarray
    embeddings: np.ndarray
    sentence: str = ""

    def wells(self) -> Predictions:
        """Means over the sites of each well, in the order of the wells' first sites. A well may have one site."""
        _, first, well = np.unique(self.table["well_id"].astype(str), return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        place, count = rank[well], np.bincount(well)[order]

        def mean(values: np.ndarray) -> np.ndarray:
            sums = np.zeros((len(order), values.shape[1]), np.float64)
            np.add.at(sums, place, values)
            return (sums / count[:, None]).astype(np.float32)

        table = self.table.iloc[first[order]]
        return Predictions(table, mean(self.logits), mean(self.embeddings), self.sentence)


@torch.no_grad()
def predict(
    model: nn.Module,
    dataset: Dataset,
    *,
    batch_size: int,
    group_by: str | None = None,
    amp: str = "none",
    threads: int | None = None,
    device: str | torch.device = "auto",
    channels_last: bool = False,
    quiet: bool = False,
    name: str = "predicting",
) -> Predictions:
    """Run a network over every sample of a data set; logits and embeddings are means over its views.

    Parameters
    ----------
    model : Module
        Images to (logits, embedding).
    dataset : Dataset
        With ``views=turns(n)`` for test-time augmentation.
    batch_size : int
    group_by : {None, "plate", "experiment"}
        Batch normalisation takes the statistics of each whole group (AdaBN), see :func:`adapted`. All batches of a
        group are in memory at once: with 8 views of a plate of RxRx1, 31 GB in float32, so choose fewer.
    amp, threads, device, channels_last, quiet
        As for the trainer and the loader.

    Notes
    -----
    Under torch.distributed every process takes its share and gets all results; with ``group_by`` each process goes
    through everything, because a group's statistics are of all its batches.
    """
    alone = {"rank": 0, "world_size": 1} if group_by else {}
    loader = DataLoader(
        dataset, batch_size, group_by=group_by, whole_groups=group_by is not None, num_threads=threads, device=device,
        channels_last=channels_last, **alone,
    )  # fmt: skip
    was_training, found = model.training, []
    model.eval()
    waiting: list = []
    with progress.bar(len(dataset), name, quiet=quiet) as bar:
        for images, labels, meta in loader:
            views = images if isinstance(images, tuple) else (images,)
            waiting.append((views, meta))
            bar.update(len(labels))
            if group_by and int(meta["group_batches_left"][0]):
                continue
            with torch.autocast(loader.device.type, torch.bfloat16, enabled=amp == "bf16"):
                forward = [view.to(loader.device) for views, _ in waiting for view in views]
                with adapted(model, forward) if group_by else contextlib.nullcontext():
                    outputs = iter([tuple(part.float().cpu() for part in model(view)) for view in forward])
            for views, meta in waiting:
                logits, embeddings = (sum(parts) / len(views) for parts in zip(*(next(outputs) for _ in views)))
                mine = meta.get("repeated", torch.zeros(len(logits), dtype=torch.int64)) == 0
                found.append(tuple(x[mine].numpy() for x in (meta["site_index"], logits, embeddings)))
            waiting = []
    model.train(was_training)
    if distributed.is_initialized() and not alone:
        every: list = [None] * distributed.get_world_size()
        distributed.all_gather_object(every, found)
        found = [part for parts in every for part in parts]
    index, logits, embeddings = (np.concatenate(parts) for parts in zip(*found))
    order = np.argsort(index, kind="stable")
    table = dataset.catalog.table.loc[index[order]]
    return Predictions(table, logits[order], embeddings[order], loader.report()["sentence"])


@contextlib.contextmanager
def adapted(model: nn.Module, batches: list[torch.Tensor]):
    """Within it, batch normalisation has the statistics of these batches instead of those of training.

    AdaBN (Li et al., "Revisiting batch normalization for practical domain adaptation", 2016): the network is run once
    with every layer normalising by the batch and averaging what it finds; the averages then serve all batches. They
    are exact for one batch; of several, each counts alike, however short.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    before = [({k: v.clone() for k, v in layer.state_dict().items()}, layer.momentum) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    try:
        for batch in batches:
            model(batch)
        for layer in layers:
            layer.eval()
        yield
    finally:
        for layer, (state, momentum) in zip(layers, before):
            layer.load_state_dict(state)
            layer.momentum = momentum
            layer.eval()
