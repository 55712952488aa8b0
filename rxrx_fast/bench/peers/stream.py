"""What the peers that repack and read in sequence share: the stream in passes, and the loader with its folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice
from tempfile import TemporaryDirectory

import cv2
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from rxrx_fast.bench.peers.torch_loader import TorchLoader
from rxrx_fast.bench.work import Work

__all__ = ["Passes", "StreamLoader"]


class Passes(IterableDataset):
    """Goes round a finite data set in passes; each takes up where the last one stopped.

    Formats that are read in sequence begin every epoch at the top. The race's passes are shorter than the list, so
    they would read its first sites over and over. A copy of this object lives in each worker, and keeps its place
    there from pass to pass. Between passes it reads nothing.

    Parameters
    ----------
    samples : iterable
        The data set, which shares its samples out to the workers by itself.
    """

    def __init__(self, samples: Iterable):
        self._samples, self._stream = samples, None
        # In shared memory, so that workers that are already running see the next pass's length.
        self._count = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def count(self) -> int:
        """Samples a pass, a multiple of the workers."""
        return int(self._count)

    @count.setter
    def count(self, count: int) -> None:
        self._count.fill_(count)

    def __iter__(self) -> Iterator:
        self._stream = self._stream or self._endless()
        return islice(self._stream, self.count // get_worker_info().num_workers)

    def _endless(self) -> Iterator:
        while True:
            sample = None
            for sample in self._samples:
                yield sample
            if sample is None:
                raise RuntimeError("this worker has no samples: make more shards or chunks, or take fewer workers")


class StreamLoader(TorchLoader, ABC):
    """A temporary folder for what was repacked, and the loader that reads it."""

    def __init__(self, work: Work):
        # One thread a worker process, or OpenCV's own threads would fight over the cores.
        cv2.setNumThreads(0)
        self._batch_size, self._cuda = work.batch_size, work.device == "cuda"
        self._folder = TemporaryDirectory(prefix="rxrx-fast-peer-")
        try:
            self._sampler = Passes(self.samples(work, self._folder.name))
            self._loader = self.loader(work, self._sampler)
        except BaseException:
            self._folder.cleanup()
            raise

    @abstractmethod
    def samples(self, work: Work, folder: str) -> Iterable[torch.Tensor]:
        """Repack the sites of the work into a folder; returns the data set that reads them back, finished."""

    @abstractmethod
    def loader(self, work: Work, passes: Passes) -> DataLoader:
        """The loader of batches, by ``work.threads`` workers that stay."""

    def close(self) -> None:
        # The workers end with their loader, before the files that they read.
        super().close()
        self._folder.cleanup()
