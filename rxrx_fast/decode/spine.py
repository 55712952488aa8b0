"""The spine carries payloads in order, a few ahead: through DALI, or through a plain queue where DALI is missing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from typing import Any

from rxrx_fast.decode.base import Carried

__all__ = ["PAYLOADS_AHEAD", "QueueSpine", "Spine", "SpineError"]

#: Payloads that a spine takes before it gives back the first of them.
PAYLOADS_AHEAD = 2


class SpineError(RuntimeError):
    """The spine stopped, for a reason that is no SiteError; it can't go on."""


class Spine(ABC):
    """Takes payloads from a generator and gives them back, on the target's device, in the same order.

    Both spines take :data:`PAYLOADS_AHEAD` payloads at the first call, then one a call. An error of the generator is
    raised at once, before the payloads that it gave earlier are given back.
    """

    @abstractmethod
    def run(self) -> Carried:
        """Give back the oldest payload. Raises StopIteration behind the last one."""


class QueueSpine(Spine):
    """Carries payloads of one process as they are, without a copy; on the CPU only.

    Parameters
    ----------
    feed : iterator
        Of payloads, each one array.
    """

    def __init__(self, feed: Iterator[Any]):
        self._feed = feed
        self._ahead: deque[Any] = deque()
        self._started = self._ended = False

    def run(self) -> Carried:
        """Give back the oldest payload; see :meth:`Spine.run`."""
        for _ in range(1 if self._started else PAYLOADS_AHEAD):
            self._take()
        self._started = True
        if not self._ahead:
            raise StopIteration
        payload = self._ahead.popleft()
        return Carried(payload, payload)

    def _take(self) -> None:
        if self._ended:
            return
        try:
            self._ahead.append(next(self._feed))
        except StopIteration:
            self._ended = True
