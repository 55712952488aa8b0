"""HostDecoder: the store decodes, in the pool's threads, straight into the batch that the spine carries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rxrx_fast.decode.base import Batch, Carried, Decoded, Decoder, Settle, Setup
from rxrx_fast.errors import SiteError

__all__ = ["HostDecoder"]


class HostDecoder(Decoder[np.ndarray]):
    """Decodes any store's sites by :meth:`Store.read_into`; the content is the stack, (B, C, H, W).

    Parameters
    ----------
    setup : Setup
    """

    ndim = 3

    def __init__(self, setup: Setup):
        super().__init__(setup)
        self.samples, self.dtype = setup.batch_size, self._store.dtype
        self._shape = (len(self._store.channels), *self._store.image_size)

    def _place(self, count: int) -> np.ndarray:
        return self._setup.buffers.take((count, *self._shape), self.dtype)

    def reread(self, positions: Sequence[int], content: np.ndarray, samples: Sequence[int]) -> list[SiteError | None]:
        """Decode sites into these samples of the stack."""
        return [
            fault
            for position, i in zip(positions, samples)
            for fault in self._store.read_into([position], content[i : i + 1], self._meter)
        ]

    def gather(self, content: np.ndarray, kept: list[int]) -> np.ndarray:
        """Copy the kept samples, unless all are kept."""
        return content if len(kept) == len(content) else content[kept]

    def payload(self, batch: Batch[np.ndarray]) -> np.ndarray:
        """Give the stack itself, which is a sequence of (C, H, W) arrays."""
        return batch.content

    def finish(self, batch: Batch[np.ndarray], carried: Carried, settle: Settle) -> Iterator[Decoded]:
        """Give the carried stack."""
        yield Decoded(np.array(batch.positions, np.int64), carried.array, (carried.owner, batch.content))
