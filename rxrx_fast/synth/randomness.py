"""Counter-based random generators that are named by what they are for."""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["generator"]


def generator(*identity: object) -> np.random.Generator:
    """Make a random generator that depends on ``identity`` alone.

    It is a Philox generator. Its key is the 128-bit BLAKE2 digest of the parts' ``str``, joined by ``/``. The same
    identity gives the same numbers in every process, on every machine and in any order of calls. Python's ``hash``
    would not.

    Parameters
    ----------
    *identity : object
        Such as ``"site", seed, experiment, plate``.

    Returns
    -------
    numpy.random.Generator
    """
    digest = hashlib.blake2b("/".join(map(str, identity)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
