"""What the peers on torch's DataLoader share: the data set and the loader's settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from rxrx_fast.bench.peers.finish import finish
from rxrx_fast.bench.work import RoundTrip, Work

__all__ = ["PlateImages", "TorchLoader", "settings"]


def settings(work: Work) -> dict:
    """Torch's documented settings for speed, which all of its loaders and those made from them take."""
    return {
        "num_workers": work.threads,
        "persistent_workers": True,
        "prefetch_factor": 4,
        "pin_memory": work.device == "cuda",
    }


class PlateImages(Dataset):
    """Reads six files, moves uint8 pixels as views, makes float32 from them in two passes, and halves if asked to."""

    def __init__(self, work: Work, read: Callable[[str], np.ndarray]):
        self.paths, self.mean, self.std, self.augment, self.read = work.paths, work.mean, work.std, work.augment, read
        self.dtype = work.torch_dtype

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        stack = np.stack([self.read(path) for path in self.paths[index]])
        return torch.from_numpy(finish(stack, self.mean[index], self.std[index], self.augment)).to(self.dtype)


class TorchLoader:
    """torch's DataLoader with its documented settings for speed: persistent workers that work ahead."""

    def __init__(self, work: Work, dataset: Dataset):
        self._sampler = RoundTrip(len(work))
        self._batch_size, self._cuda = work.batch_size, work.device == "cuda"
        self._loader = DataLoader(dataset, batch_size=work.batch_size, sampler=self._sampler, **settings(work))

    def batches(self, count: int) -> Iterator[torch.Tensor]:
        self._sampler.count = count * self._batch_size
        for batch in self._loader:
            images = batch if isinstance(batch, torch.Tensor) else batch[0]
            yield images.to("cuda", non_blocking=True) if self._cuda else images

    def close(self) -> None:
        # The workers end with their iterator.
        self._loader = None
