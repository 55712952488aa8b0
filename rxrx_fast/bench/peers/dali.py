"""Plain DALI: six file readers in step, decoders, flips, normalisation, and DALI's iterator for PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.base_iterator import LastBatchPolicy
from nvidia.dali.plugin.pytorch import DALIGenericIterator

from rxrx_fast.bench.work import JITTER, RoundTrip, Work

__all__ = ["Peer"]


@pipeline_def(enable_conditionals=True)
def _pipeline(work: Work, statistics):
    # The readers walk lists of the same order, so their n-th files are one site's channels.
    files = [fn.readers.file(files=[paths[c] for paths in work.paths])[0] for c in range(len(work.paths[0]))]
    decoder = "mixed" if work.device == "cuda" else "cpu"
    image = fn.cat(*[fn.decoders.image(file, device=decoder, output_type=types.GRAY) for file in files], axis=2)
    mean, std = fn.external_source(statistics, num_outputs=2, dtype=types.FLOAT, ndim=1)
    mirror = False
    if work.augment:
        # Two mirrors, and a transposition in half of the cases, are the same draws as two mirrors and any turn.
        if fn.random.coin_flip(dtype=types.BOOL):
            image = fn.transpose(image, perm=[1, 0, 2], transpose_layout=False)
        image = fn.flip(image, horizontal=0, vertical=fn.random.coin_flip())
        mirror = fn.random.coin_flip()
    dtype = types.FLOAT16 if work.dtype == "float16" else types.FLOAT
    return fn.crop_mirror_normalize(image, mean=mean, std=std, mirror=mirror, dtype=dtype, output_layout="CHW")


class Peer:
    name = "DALI"

    def __init__(self, work: Work):
        self._work, self._order = work, RoundTrip(len(work))
        self._random = np.random.default_rng(0)
        self._rows = iter(())
        pipe = _pipeline(
            work,
            self._statistics,
            batch_size=work.batch_size,
            num_threads=work.threads,
            device_id=torch.cuda.current_device() if work.device == "cuda" else None,
            seed=0,
        )
        # The source of statistics ends an epoch. Starting the next loop resets the iterator; with auto_reset it would
        # do so, and ask the source for the next epoch, as soon as this one ends.
        self._iterator = DALIGenericIterator(
            [pipe], ["images"], last_batch_policy=LastBatchPolicy.PARTIAL, auto_reset=False, prepare_first_batch=False
        )

    def _statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """The next batch's means and deviations, jittered; StopIteration at the end of the epoch."""
        sites = [next(self._rows) for _ in range(self._work.batch_size)]
        mean, std = self._work.mean[sites], self._work.std[sites]
        if self._work.augment:
            mean = mean * (1 + JITTER * self._random.uniform(-1, 1, mean.shape)).astype(np.float32)
            std = std * (1 + JITTER * self._random.uniform(-1, 1, std.shape)).astype(np.float32)
        return mean, std

    def batches(self, count: int) -> Iterator[torch.Tensor]:
        self._order.count = count * self._work.batch_size
        self._rows = iter(self._order)
        for (batch,) in self._iterator:
            yield batch["images"]

    def close(self) -> None:
        self._iterator = None
