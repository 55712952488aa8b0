"""SPDL: a pipeline of threads, without processes and so without a copy between them.

As its guide advises: reading and decoding are stages of their own, the work in threads is done by functions that let
go of the GIL (OpenCV and NumPy), and a batch is decoded as one item into one array, so that nothing is stacked after.
Its own decoders need FFmpeg's libraries, which pip doesn't install; OpenCV is what its documentation names beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from spdl.pipeline import PipelineBuilder

from rxrx_fast.bench.peers.finish import decode, finish
from rxrx_fast.bench.work import RoundTrip, Work

__all__ = ["Peer"]


class Peer:
    name = "SPDL (threads, cv2)"

    def __init__(self, work: Work):
        # One thread a task, or OpenCV's own threads would fight over the cores.
        cv2.setNumThreads(0)
        self._work, self._order = work, RoundTrip(len(work))

    def _read(self, sites: list[int]) -> list[tuple[int, list[bytes]]]:
        return [(site, [Path(path).read_bytes() for path in self._work.paths[site]]) for site in sites]

    def _make(self, batch: list[tuple[int, list[bytes]]]) -> torch.Tensor:
        work, images = self._work, None
        for i, (site, files) in enumerate(batch):
            stack = np.stack([decode(data) for data in files])
            if images is None:
                images = torch.empty(
                    (len(batch), *stack.shape), dtype=work.torch_dtype, pin_memory=work.device == "cuda"
                )
            # float16 is rounded from float32 as it is copied into the batch.
            out = images[i].numpy() if work.dtype == "float32" else None
            image = finish(stack, work.mean[site], work.std[site], work.augment, out)
            if out is None:
                images[i] = torch.from_numpy(image)
        return images

    def batches(self, count: int) -> Iterator[torch.Tensor]:
        work = self._work
        self._order.count = count * work.batch_size
        # A pipeline is for one pass; to build one takes a millisecond, as SPDL's own DataLoader does each epoch.
        pipeline = (
            PipelineBuilder()
            .add_source(self._order)
            .aggregate(work.batch_size)
            .pipe(self._read)
            .pipe(self._make, concurrency=work.threads)
            .add_sink(buffer_size=4)
            # A thread for each task of a stage; the one that reads waits for the disk.
            .build(num_threads=work.threads + 1)
        )
        # One thread a task for torch too, which rounds to float16.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with pipeline.auto_stop():
                for images in pipeline:
                    yield images.to("cuda", non_blocking=True) if work.device == "cuda" else images
        finally:
            torch.set_num_threads(threads)

    def close(self) -> None:
        # The threads ended with the last pass.
        pass
