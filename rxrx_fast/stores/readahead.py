"""Batches, given out while the system already fetches the files of later ones from the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from rxrx_fast.runtime.threads import Pool

__all__ = ["SITES_AHEAD", "Ahead"]

#: Sites that the system is asked for and nobody reads yet, rounded up to batches. Enough requests on their way for a
#: disk to work on in parallel; half a megabyte of page cache each.
SITES_AHEAD = 64


class Ahead:
    """Gives out batches of sites in the order given; a thread of its own asks for the files of the next ones.

    The threads that decode sleep while a file comes from the disk. Asked for early enough, it is in the page cache
    when they read it. Where it is already, asking costs time and gains nothing, so the first and the last site of a
    batch are probed: if both are in memory, nothing is asked.

    Parameters
    ----------
    store : FileStore
        Asked by its ``in_memory`` and ``ask``, which never raise.
    batches : iterable of (B,) int64
        Positions in the store.
    batch_size : int
        The largest B.
    """

    def __init__(self, store, batches: Iterable[np.ndarray], batch_size: int):
        self._store, self._batches = store, batches
        self._depth = -(-SITES_AHEAD // batch_size)
        # One thread: it waits for names and inodes alone, and asks for the rest without waiting.
        self._thread = Pool(1, "rxrx_fast ahead")
        self._given = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        waiting: deque = deque()
        for number, batch in enumerate(self._batches):
            waiting.append(batch)
            if len(batch):
                self._thread.submit(self._ask, number, [int(p) for p in batch])
            if len(waiting) > self._depth:
                self._given += 1
                yield waiting.popleft()
        for batch in waiting:
            self._given += 1
            yield batch

    def _ask(self, number: int, positions: list[int]) -> None:
        if self._store.in_memory(positions[0]) and self._store.in_memory(positions[-1]):
            return
        for position in positions:
            # A batch that has been given out is being read: asking comes too late.
            if self._given > number:
                return
            self._store.ask(position)

    def close(self) -> None:
        """Ask for nothing more."""
        self._given = float("inf")
        self._thread.shutdown(cancel_futures=True)
