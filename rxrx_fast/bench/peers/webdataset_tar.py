"""WebDataset: tar shards of the original PNG files, read in sequence by the workers of its WebLoader.

Before the clock starts, the sites are repacked into tar files in a temporary folder, in the race's order. A sample is
a site: its files as they are, and its statistics. Workers share the shards out among themselves, and each makes whole
batches, as its documentation recommends.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import webdataset as wds
from torch.utils.data import default_collate

from rxrx_fast.bench.peers.finish import decode, finish
from rxrx_fast.bench.peers.stream import Passes, StreamLoader
from rxrx_fast.bench.peers.torch_loader import settings
from rxrx_fast.bench.work import Work

__all__ = ["Peer"]

#: Tens of megabytes a shard, and still several shards a worker.
_SITES_A_SHARD = 32


def _write(work: Work, folder: str) -> list[str]:
    """Write the shards, at least one a worker, for which a short list is gone round again; returns their paths."""
    count = max(len(work), work.threads)
    size = min(_SITES_A_SHARD, count // work.threads)
    with wds.ShardWriter(f"{folder}/%06d.tar", maxcount=size, verbose=0) as shards:
        for i in range(count):
            site = i % len(work)
            files = {f"{c}.png": Path(path).read_bytes() for c, path in enumerate(work.paths[site])}
            shards.write({"__key__": f"{i:08d}", **files, "npy": np.stack([work.mean[site], work.std[site]])})
    return sorted(str(path) for path in Path(folder).glob("*.tar"))


class _Finish:
    def __init__(self, work: Work):
        self._channels, self._augment, self._dtype = len(work.paths[0]), work.augment, work.torch_dtype

    def __call__(self, sample: dict) -> torch.Tensor:
        stack = np.stack([decode(sample[f"{c}.png"]) for c in range(self._channels)])
        return torch.from_numpy(finish(stack, *sample["npy"], self._augment)).to(self._dtype)


class Peer(StreamLoader):
    name = "WebDataset (tar shards of the PNGs)"

    def samples(self, work: Work, folder: str) -> wds.WebDataset:
        return wds.WebDataset(_write(work, folder), shardshuffle=False).decode(only=["npy"]).map(_Finish(work))

    def loader(self, work: Work, passes: Passes) -> wds.WebLoader:
        # torch's collation stacks into shared memory at once. After another, the batch would be copied there.
        batches = wds.DataPipeline(passes, wds.batched(work.batch_size, collation_fn=default_collate))
        return wds.WebLoader(batches, batch_size=None, **settings(work))
