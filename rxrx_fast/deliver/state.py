"""The state of a run: a few plain values that say where it is, and what it is a run of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from rxrx_fast.errors import UsageError
from rxrx_fast.order.epoch import VERSION

__all__ = ["check", "fingerprint", "state"]

#: What must be the same for a state to be taken up, and how an error calls it.
_SAME = {
    "version": "version of the order",
    "data": "fingerprint of the sites",
    "samples": "number of samples",
    "seed": "seed",
    "global_batch": "global batch (batch_size x world_size)",
    "order": "order",
}


def fingerprint(catalog) -> str:
    """Sixteen hexadecimal digits of a catalog's sites, in their order: ids, and the numbers that augmentation is
    keyed by.
    """
    found = hashlib.blake2b(digest_size=8)
    found.update("\n".join(catalog.table["site_id"].astype(str)).encode())
    found.update(catalog.table.index.to_numpy("int64").tobytes())
    return found.hexdigest()


def state(dataset, *, seed: int, global_batch: int, order: str) -> dict[str, int | str]:
    """What a state says of the run, apart from where it is."""
    return {
        "version": VERSION,
        "seed": seed,
        "samples": len(dataset),
        "global_batch": global_batch,
        "order": order,
        "data": fingerprint(dataset.catalog),
    }


def check(saved: Mapping, mine: Mapping) -> None:
    """Refuse a state of another run.

    Raises
    ------
    UsageError
        One line with everything that differs.
    """
    if not isinstance(saved, Mapping) or (missing := {"epoch", "step", *_SAME} - set(saved)):
        what = f"it lacks {', '.join(sorted(missing))}" if isinstance(saved, Mapping) else type(saved).__name__
        raise UsageError(f"not a state of rx.DataLoader: {what}")
    differs = [
        f"{words} {saved[name]!r} there and {mine[name]!r} here"
        for name, words in _SAME.items()
        if saved[name] != mine[name]
    ]
    if differs:
        raise UsageError(f"the saved state is not of this run: {'; '.join(differs)}")
