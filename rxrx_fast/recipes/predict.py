"""Logits and embeddings of a part: several views from one decode, adaptive batch normalisation, means over wells."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, product

import numpy as np
import pandas as pd
import torch
from torch import distributed, nn

from rxrx_fast.augment.policy import Policy
from rxrx_fast.dataset import Dataset
from rxrx_fast.loader import DataLoader
from rxrx_fast.runtime import progress

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
        Batch normalisation takes the statistics of each whole group (AdaBN), see :func:`adapted`. A group comes twice
        in a row, once for its statistics and once to be predicted: to decode it again is cheaper than to keep it (31 GB
        for 8 views of a plate of RxRx1 in float32).
    amp, threads, device, channels_last, quiet
        As for the trainer and the loader.

    Notes
    -----
    Under torch.distributed every process takes its share, of samples or of whole groups, and gets all results.
    """
    loader, groups = _loader(
        dataset, batch_size, group_by, num_threads=threads, device=device, channels_last=channels_last
    )
    was_training, found = model.training, []
    model.eval()
    batches = iter(loader) if len(loader) else iter(())
    with progress.bar(sum(groups), name, "batch", quiet) as bar:

        def coming(count: int):
            """The next batches of the loader, as ((views of images on the device), meta)."""
            for images, _, meta in islice(batches, count):
                views = images if isinstance(images, tuple) else (images,)
                yield tuple(view.to(loader.device) for view in views), meta
                bar.update(1)

        with torch.autocast(loader.device.type, torch.bfloat16, enabled=amp == "bf16"):
            for count in groups:
                own = contextlib.nullcontext()
                if group_by:
                    count //= 2
                    own = adapted(model, (view for views, _ in coming(count) for view in views))
                with own:
                    for views, meta in coming(count):
                        sums = [sum(parts) for parts in zip(*([x.float() for x in model(view)] for view in views))]
                        logits, embeddings = ((part / len(views)).cpu() for part in sums)
                        mine = meta.get("repeated", torch.zeros(len(logits), dtype=torch.int64)) == 0
                        found.append(tuple(x[mine].numpy() for x in (meta["site_index"], logits, embeddings)))
        # Only at its end does a loader close an epoch.
        next(batches, None)
    model.train(was_training)
    if distributed.is_initialized():
        every: list = [None] * distributed.get_world_size()
        distributed.all_gather_object(every, found)
        found = [part for parts in every for part in parts]
    index, logits, embeddings = (np.concatenate(parts) for parts in zip(*found))
    order = np.argsort(index, kind="stable")
    table = dataset.catalog.table.loc[index[order]]
    return Predictions(table, logits[order], embeddings[order], loader.report()["sentence"])


def _loader(dataset: Dataset, batch_size: int, group_by: str | None, **others) -> tuple[DataLoader, list[int]]:
    """A loader, and how many of its batches make one group; without groups, all of them.

    Of groups, this process takes every world-size'th, and each group's batches come twice in a row.
    """
    if group_by is None:
        loader = DataLoader(dataset, batch_size, **others)
        return loader, [len(loader)]
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    codes = dataset.catalog.group_keys(group_by)[0]
    batches, groups = [], []
    for group in np.unique(codes)[rank::world]:
        members = np.flatnonzero(codes == group)
        cut = [members[start : start + batch_size] for start in range(0, len(members), batch_size)]
        batches += 2 * cut
        groups.append(2 * len(cut))
    return DataLoader(dataset, batch_size, batch_sampler=batches, rank=0, world_size=1, **others), groups


@contextlib.contextmanager
def adapted(model: nn.Module, batches: Iterable[torch.Tensor]):
    """Within it, batch normalisation has the statistics of these batches instead of those of training.

    AdaBN (Li et al., "Revisiting batch normalization for practical domain adaptation", 2016). The network is run once
    over the batches, each of which is taken from the iterable when the one before is done. In this run every layer
    normalises by the batch, as in training, and what comes into it is pooled: the mean and variance of all samples of
    all batches at once, so that a batch counts by its samples. Of the first layer they are thus the group's own,
    however it is cut; a later layer's depend on the cut as far as the layers before normalised by the batch.

    Layers that synchronise statistics over processes don't here: every process may have another group.
    """
    every = (layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm))
    # One that keeps no statistics always takes the batch's.
    layers = [layer for layer in every if layer.running_mean is not None]
    before = [({k: v.clone() for k, v in layer.state_dict().items()}, layer.momentum) for layer in layers]
    pooled, samples = [None] * len(layers), 0
    for layer in layers:
        # The running statistics are then those of the last batch.
        layer.momentum = 1.0
        layer.train()
        if isinstance(layer, nn.SyncBatchNorm):
            layer.forward = functools.partial(nn.modules.batchnorm._BatchNorm.forward, layer)
    try:
        for batch in batches:
            model(batch)
            samples += len(batch)
            for place, layer in enumerate(layers):
                mean, variance = layer.running_mean.double(), layer.running_var.double()
                new = len(batch) * torch.stack([mean, variance + mean.square()])
                pooled[place] = new if pooled[place] is None else pooled[place] + new
        for layer, sums in zip(layers, pooled if samples else ()):
            mean, square = sums / samples
            layer.running_mean.copy_(mean)
            layer.running_var.copy_((square - mean.square()).clamp_min(0))
            layer.eval()
        yield
    finally:
        for layer, (state, momentum) in zip(layers, before):
            layer.__dict__.pop("forward", None)
            layer.load_state_dict(state)
            layer.momentum = momentum
            layer.eval()
