"""CudaDecoder: 8-bit PNG files cross the bus compressed, and the GPU decodes them behind the spine."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from rxrx_fast.decode.base import Batch, Carried, Decoded, Decoder, Settle, Setup
from rxrx_fast.decode.cuda_png import Launch, Packed, PngLauncher
from rxrx_fast.errors import SiteError
from rxrx_fast.runtime.gpu_memory import explained
from rxrx_fast.stores.base import EncodedStore

__all__ = ["CudaDecoder"]

# Each site's encoded files while they are read; packed once they are all there.
Content = list[list[np.ndarray]] | Packed


class _Launched(NamedTuple):
    batch: Batch[Content]
    carried: Carried
    launch: Launch


class CudaDecoder(Decoder[Content]):
    """Decodes grayscale 8-bit PNG files on a GPU; see :mod:`rxrx_fast.decode.cuda_png`.

    The GPU decodes several batches while the host waits for the first of them. Sites that it refuses are decoded, or
    replaced, by the host.

    Parameters
    ----------
    setup : Setup
        The store must be an EncodedStore.
    """

    samples, ndim, dtype = 1, 1, np.dtype(np.uint8)
    _store: EncodedStore

    def __init__(self, setup: Setup):
        super().__init__(setup)
        device_id, stream = setup.target
        self._launcher = PngLauncher(
            device_id or 0,
            stream or 0,
            self._store.image_size,
            len(self._store.channels),
            setup.buffers,
            batch=setup.batch_size,
        )
        self._launched: deque[_Launched] = deque()

    def _place(self, count: int) -> Content:
        return [[] for _ in range(count)]

    def reread(self, positions: Sequence[int], content: Content, samples: Sequence[int]) -> list[SiteError | None]:
        """Read the sites' files, unchecked: packing checks them."""
        assert isinstance(content, list)
        faults: list[SiteError | None] = []
        for i, found in zip(samples, self._meter.timed("read", self._store.read, positions, False)):
            if isinstance(found, SiteError):
                faults.append(found)
            else:
                content[i] = found
                faults.append(None)
        return faults

    def gather(self, content: Content, kept: list[int]) -> Content:
        """Pack the files of these samples into one buffer."""
        assert isinstance(content, list)
        return self._meter.timed("decode", self._launcher.pack, [content[i] for i in kept], self._pool)

    def payload(self, batch: Batch[Content]) -> list[np.ndarray]:
        """Give the packed buffer."""
        assert isinstance(batch.content, Packed)
        return [batch.content.buffer]

    def finish(self, batch: Batch[Content], carried: Carried, settle: Settle) -> Iterator[Decoded]:
        """Launch this batch, and settle the oldest once enough are launched to fill the card."""
        assert isinstance(batch.content, Packed)
        with explained(self._setup.target.device_id, self._setup.batch_size, "decoding"):
            launch = self._launcher.launch(carried.array[0], batch.content)
        self._launched.append(_Launched(batch, carried, launch))
        if len(self._launched) >= self._launcher.depth:
            yield from self._settle_oldest(settle)

    def flush(self, settle: Settle) -> Iterator[Decoded]:
        """Settle all that are launched."""
        while self._launched:
            yield from self._settle_oldest(settle)

    def _settle_oldest(self, settle: Settle) -> Iterator[Decoded]:
        batch, carried, launch = self._launched.popleft()
        tried, left_out = list(batch.tried), []
        for i in self._launcher.settle(launch):
            stack = np.empty((1, len(self._store.channels), *self._store.image_size), np.uint8)

            def decode(position: int, stack: np.ndarray = stack) -> SiteError | None:
                return self._store.read_into([position], stack, self._meter)[0]

            found = settle(tried[i], lambda i=i, decode=decode: decode(tried[i][-1]), decode)  # type: ignore[misc]
            if found is None:
                left_out.append(i)
            else:
                tried[i] = found
                self._launcher.replace(launch, i, stack[0])
        whole = launch.stack
        if left_out:
            kept = [i for i in range(len(tried)) if i not in left_out]
            tried, whole = [tried[i] for i in kept], self._launcher.keep(launch, kept)
        if tried:
            positions = np.array([one[-1] for one in tried], np.int64)
            yield Decoded(positions, whole, (carried.owner, batch.content, launch))
