"""Random numbers with a name: a generator that depends on the words that identify a thing, and on nothing else."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["generator"]


def generator(*identity: object) -> np.random.Generator:
    """A Philox generator keyed by the 128-bit BLAKE2 digest of ``identity``, the parts' ``str`` joined by ``/``.

    The same identity gives the same numbers in every process, on every machine and in any order of calls (Python's
    ``hash`` would not).
    """
    digest = hashlib.blake2b("/".join(map(str, identity)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
