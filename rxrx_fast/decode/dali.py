"""DaliDecoder: the store reads and checks encoded files, and DALI decodes them inside the spine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from rxrx_fast.decode.base import Batch, Carried, Decoded, Decoder, Settle, Setup
from rxrx_fast.errors import SiteError
from rxrx_fast.stores.base import EncodedStore

__all__ = ["DaliDecoder"]

Files = list[list[np.ndarray]]


class DaliDecoder(Decoder[Files]):
    """Decodes 8-bit files of any format by DALI's image decoder; the content is each site's encoded files.

    All files of a batch leave DALI as one dense tensor, so that stacking a site's channels is a view.

    Parameters
    ----------
    setup : Setup
        The store must be an EncodedStore.
    """

    ndim, dtype = 1, np.dtype(np.uint8)
    carrying = "decoding"
    _store: EncodedStore

    def __init__(self, setup: Setup):
        super().__init__(setup)
        self.samples = setup.batch_size * self._store.files_per_site

    def _place(self, count: int) -> Files:
        return [[] for _ in range(count)]

    def reread(self, positions: Sequence[int], content: Files, samples: Sequence[int]) -> list[SiteError | None]:
        """Read and check the sites' files."""
        faults: list[SiteError | None] = []
        for i, found in zip(samples, self._meter.timed("read", self._store.read, positions)):
            if isinstance(found, SiteError):
                faults.append(found)
            else:
                content[i] = found
                faults.append(None)
        return faults

    def gather(self, content: Files, kept: list[int]) -> Files:
        """Keep the files of these samples."""
        return [content[i] for i in kept]

    def payload(self, batch: Batch[Files]) -> list[np.ndarray]:
        """All files of the batch, in a row."""
        return [data for files in batch.content for data in files]

    def operator(self, dali: Any, source: Any) -> Any:
        """Decode the files, on a GPU by CPU and GPU together."""
        color = dali.types.GRAY if self._store.channels_per_file == 1 else dali.types.RGB
        device = "cpu" if self._setup.target.device_id is None else "mixed"
        return dali.fn.decoders.image(source, device=device, output_type=color)

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Count the wait as work of DALI's threads, which DALI itself does not measure; reading is not theirs."""
        start, read = time.perf_counter(), self._meter.stages["read"]
        yield
        threads = self._setup.num_threads
        waited = time.perf_counter() - start - (self._meter.stages["read"] - read) / threads
        self._meter.add("decode", max(waited, 0.0) * threads)

    def finish(self, batch: Batch[Files], carried: Carried, settle: Settle) -> Iterator[Decoded]:
        """Stack the channels and select those wanted."""
        stack = self._stacked(carried.array, len(batch.tried))
        yield Decoded(np.array(batch.positions, np.int64), stack, (carried.owner, batch.content))

    def _stacked(self, array: Any, sites: int) -> Any:
        height, width = self._store.image_size
        per_file = self._store.channels_per_file
        # (files, H, W, channels a file) -> (B, files a site, H, W, channels a file) -> (B, C, H, W), all views.
        array = array.reshape(sites, -1, height, width, per_file)
        if per_file == 1:
            return self._store.select(array[..., 0])
        array = array[:, 0]
        # Selecting channels copies, so on a GPU it is work on the stream.
        with self._setup.target.on_stream():
            on_cpu = self._setup.target.device_id is None
            return self._store.select(array.transpose(0, 3, 1, 2) if on_cpu else array.permute(0, 3, 1, 2))

    def diagnose(self, batch: Batch[Files]) -> list[SiteError | None]:
        """Find the sites whose files the host can't decode either: DALI does not say which file stopped it."""
        return self._store.faults(batch.positions, batch.content)
