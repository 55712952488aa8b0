"""Batches of positions, given out while the system already fetches the files of later ones from the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from rxrx_fast.runtime.threads import Pool
from rxrx_fast.stores.base import Store

__all__ = ["READAHEAD_SITES", "Readahead"]

#: Sites fetched but not read yet, rounded up to batches. Enough requests for a disk to work on in parallel; each takes
#: half a megabyte of page cache.
READAHEAD_SITES = 64


class Readahead:
    """Gives out batches in their order; a thread of its own calls ``store.readahead`` for the next ones.

    Threads that decode sleep while a file comes from the disk. A file fetched early enough is in the page cache when
    they read it. Where it is there already, a request costs time and gains nothing, so the first and the last site of
    a batch are probed: if both are in memory, nothing is requested.

    Parameters
    ----------
    store : Store
    batches : iterable of (B,) int64
        Positions in the store.
    batch_size : int
        The largest B.
    """

    def __init__(self, store: Store, batches: Iterable[np.ndarray], batch_size: int):
        self._store, self._batches = store, batches
        self._depth = -(-READAHEAD_SITES // batch_size)
        # One thread is enough: it waits for names and inodes only, not for the files' contents.
        self._thread = Pool(1, "rxrx_fast readahead")
        self._given = 0
        self._closed = False

    def __iter__(self) -> Iterator[np.ndarray]:
        waiting: deque[np.ndarray] = deque()
        for number, batch in enumerate(self._batches):
            waiting.append(batch)
            if len(batch):
                self._thread.submit(self._request, number, [int(p) for p in batch])
            if len(waiting) > self._depth:
                self._given += 1
                yield waiting.popleft()
        for batch in waiting:
            self._given += 1
            yield batch

    def _request(self, number: int, positions: list[int]) -> None:
        if all(self._store.in_memory([positions[0], positions[-1]])):
            return
        for position in positions:
            # A batch that was given out is being read: a request would come too late.
            if self._closed or self._given > number:
                return
            self._store.readahead([position])

    def close(self) -> None:
        """Request nothing more."""
        self._closed = True
        self._thread.shutdown(cancel_futures=True)
