"""MONAI: LoadImage and its random transforms in a Dataset without a cache, fetched by its ThreadDataLoader.

MONAI's way to speed is to keep what the deterministic transforms made, in memory (``CacheDataset``) or on disk
(``PersistentDataset``). That is decoded pixels, so decoding isn't timed any more: other work, which ``monai_cache``
shows in a row of its own. This row does the same work as everybody: decoding by MONAI's reader for pictures.
"""

from __future__ import annotations

import numpy as np
import torch
from monai.data import Dataset, PILReader, ThreadDataLoader, set_track_meta
from monai.transforms import Compose, Lambda, LoadImaged, MapTransform, RandFlipd, RandomizableTransform, RandRotate90d

from rxrx_fast.bench.peers.torch_loader import TorchLoader, settings
from rxrx_fast.bench.work import JITTER, RoundTrip, Work

__all__ = ["Peer"]


class _Standardised(RandomizableTransform, MapTransform):
    """Standardise each channel by the statistics in the sample, jittered."""

    def __init__(self, keys: str, jitter: float):
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self)
        self._jitter = jitter

    def __call__(self, data: dict) -> dict:
        factors = 1 + self._jitter * self.R.uniform(-1, 1, (2, len(data["mean"])))
        mean, std = torch.from_numpy((factors * (data["mean"], data["std"])).astype(np.float32))[..., None, None]
        return {**data, **{key: torch.sub(data[key], mean).mul_(1 / std) for key in self.keys}}


def transforms(work: Work) -> Compose:
    """The steps of W1; pixels are moved while they are one byte each."""
    moves = [
        RandFlipd("image", prob=0.5, spatial_axis=0),
        RandFlipd("image", prob=0.5, spatial_axis=1),
        # No turn in a quarter of the cases, and each of the three turns as often.
        RandRotate90d("image", prob=0.75, max_k=3),
    ]
    return Compose(
        [
            LoadImaged("image", reader=PILReader(reverse_indexing=False), dtype=np.uint8),
            *(moves if work.augment else ()),
            _Standardised("image", JITTER if work.augment else 0.0),
            Lambda(lambda sample: sample["image"].to(work.torch_dtype).contiguous()),
        ]
    )


class Peer(TorchLoader):
    name = "MONAI Dataset + ThreadDataLoader"

    def __init__(self, work: Work):
        # Meta data that follows each image through its transforms is nobody else's work.
        set_track_meta(False)
        self._sampler = RoundTrip(len(work))
        self._batch_size, self._cuda = work.batch_size, work.device == "cuda"
        samples = [{"image": list(p), "mean": m, "std": s} for p, m, s in zip(work.paths, work.mean, work.std)]
        self._loader = ThreadDataLoader(
            self.dataset(work, samples),
            batch_size=work.batch_size,
            sampler=self._sampler,
            **settings(work),
        )

    def dataset(self, work: Work, samples: list[dict]) -> Dataset:
        return Dataset(samples, transforms(work))
