"""LitData: the original PNG files in its optimised chunks, streamed from a local folder.

Before the clock starts, the sites are repacked into chunks in a temporary folder, in the race's order, by the writer
behind ``litdata.optimize``: that function would also empty the folders ``chunks`` and ``data`` beside ours, whosever
they are. A sample is a site: the bytes of its files as they are, and its number. ``StreamingDataset`` shares the
chunks out to the workers of torch's DataLoader: LitData's own begins each epoch at the top, and is no faster.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import litdata
import numpy as np
import torch
from litdata.streaming import Cache
from torch.utils.data import DataLoader

from rxrx_fast.bench.peers.finish import decode, finish
from rxrx_fast.bench.peers.stream import Passes, StreamLoader
from rxrx_fast.bench.peers.torch_loader import settings
from rxrx_fast.bench.work import Work

__all__ = ["Peer"]


def _write(work: Work, folder: str) -> None:
    """Write the chunks, with at least one sample a worker, for which a short list is gone round again."""
    chunks = Cache(folder, chunk_bytes="64MB")
    for i in range(max(len(work), work.threads)):
        site = i % len(work)
        files = {f"{c}.png": Path(path).read_bytes() for c, path in enumerate(work.paths[site])}
        chunks[i] = {"site": site, **files}
    chunks.done()
    chunks.merge()


def _finish(work: Work, sample: dict) -> torch.Tensor:
    site = sample["site"]
    stack = np.stack([decode(sample[f"{c}.png"]) for c in range(len(work.paths[site]))])
    return torch.from_numpy(finish(stack, work.mean[site], work.std[site], work.augment)).to(work.torch_dtype)


class Peer(StreamLoader):
    name = "LitData (chunks of the PNGs)"

    def samples(self, work: Work, folder: str) -> litdata.StreamingDataset:
        _write(work, folder)
        return litdata.StreamingDataset(folder, transform=partial(_finish, work))

    def loader(self, work: Work, passes: Passes) -> DataLoader:
        return DataLoader(passes, batch_size=work.batch_size, **settings(work))
