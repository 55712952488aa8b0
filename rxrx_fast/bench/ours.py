"""Our rows: rxrx_fast's loader, and its data set in torch's DataLoader."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from rxrx_fast.augment.policy import Policy
from rxrx_fast.bench import shares
from rxrx_fast.bench.peers.torch_loader import TorchLoader
from rxrx_fast.bench.work import JITTER, RoundTrip, Work
from rxrx_fast.dataset import Dataset
from rxrx_fast.loader import DataLoader

__all__ = ["DatasetInTorch", "Loader", "dataset_of"]

_POLICY = Policy(hflip=0.5, vflip=0.5, rot90=1.0, stats_jitter=JITTER)


def dataset_of(work: Work) -> Dataset:
    """The work as a data set of ours."""
    policy = _POLICY if work.augment else "none"
    return Dataset(work.catalog, normalize="plate", stats=work.stats, augment=policy, dtype=work.dtype)


class Loader:
    """``rxrx_fast.DataLoader``."""

    name = "rxrx_fast"

    def __init__(self, work: Work):
        self._sampler = RoundTrip(len(work))
        self._batch_size = work.batch_size
        self.loader = DataLoader(
            dataset_of(work), work.batch_size, sampler=self._sampler, num_threads=work.threads, device=work.device
        )

    def batches(self, count: int) -> Iterator[torch.Tensor]:
        self._sampler.count = count * self._batch_size
        for images, _, _ in self.loader:
            yield images

    def shares(self, batches: int) -> dict | None:
        """Where its threads' time goes, over one more pass; see :func:`rxrx_fast.bench.shares.measure`."""
        self._sampler.count = shares.observed(batches) * self._batch_size
        return shares.measure(self.loader)

    def close(self) -> None:
        self.loader = None


class DatasetInTorch(TorchLoader):
    """``rxrx_fast.Dataset`` as a map-style data set: what a change of the data set alone brings."""

    name = "rxrx_fast.Dataset in torch DataLoader"

    def __init__(self, work: Work):
        super().__init__(work, dataset_of(work))
