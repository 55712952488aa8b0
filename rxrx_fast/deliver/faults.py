"""Sites that can't be read: what is done about them, who takes their place, and the list of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np

from rxrx_fast.errors import DataError, SiteError, UsageError
from rxrx_fast.order.epoch import Permutation

__all__ = ["Faults", "stand_in"]

_log = logging.getLogger("rxrx_fast")


class Faults:
    """Decides about each fault, counts it, and lists it.

    Parameters
    ----------
    on_error : {"raise", "skip"}
    max_errors : int
        With "skip": more faults than this in an epoch, on one rank, are an error after all.

    Attributes
    ----------
    count : int
        Faults so far.
    """

    def __init__(self, on_error: str, max_errors: int):
        if on_error not in ("raise", "skip"):
            raise UsageError(f"on_error={on_error!r}: must be 'raise' or 'skip'")
        self.skips, self._max_errors = on_error == "skip", int(max_errors)
        self.count = self._in_epoch = 0
        # By file and reason: a bad file of a long run is met in every epoch, and is one line all the same.
        self._listed: dict[tuple[str, str, str], dict] = {}

    def start_epoch(self) -> None:
        """Count towards ``max_errors`` from nothing."""
        self._in_epoch = 0

    def listed(self) -> list[dict]:
        """What could not be read: site_id, path, reason, the epoch that it was first met in, and how many times."""
        return [dict(met) for met in list(self._listed.values())]

    def meet(self, fault: SiteError, epoch: int) -> None:
        """List a fault and log it in one line; return only if the site is to be skipped.

        Raises
        ------
        SiteError
            The fault itself, with ``on_error="raise"``.
        DataError
            Past ``max_errors``.
        """
        met = {"site_id": fault.site_id, "path": fault.path, "reason": fault.reason}
        self._listed.setdefault(tuple(met.values()), {**met, "epoch": epoch, "times": 0})["times"] += 1
        self.count += 1
        self._in_epoch += 1
        if not self.skips:
            raise fault
        if self._in_epoch > self._max_errors:
            raise DataError(
                f"{self._in_epoch} sites could not be read in this epoch, and max_errors={self._max_errors}; "
                f"the last: {fault}"
            )
        # The text and not the error, which holds the frames that it came through, and they hold the batch.
        _log.warning("%s", f"{fault}; another site takes its place")


def stand_in(tried: tuple[int, ...], pools: Iterable[np.ndarray], *key: int) -> int | None:
    """The sample that takes the place of one that can't be read.

    A pure function of its arguments, so the same one on every rank and in every resumed run, however many other
    faults there were.

    Parameters
    ----------
    tried : tuple of int
        The sample that was wanted, then those that already took its place in vain.
    pools : iterable of int64 arrays
        Samples to choose from: all of the first in random order, then all of the next.
    *key : int
        Of the random order, such as (seed, epoch, site).

    Returns
    -------
    int or None
        None where all have been tried.
    """
    attempt = len(tried) - 1
    for pool in pools:
        others = pool[pool != tried[0]]
        if attempt < len(others):
            return int(others[int(Permutation(len(others), *key)(attempt))])
        attempt -= len(others)
    return None
