"""Counter-based random numbers: pure functions of integer keys, the same in any order and any thread.

The mixer is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014; constants of Stafford's variant 13), which maps the 64-bit integers onto themselves one to one. A key is
folded word by word, so (seed, epoch, site, view) and (epoch, seed, site, view) give unrelated numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["fold", "mix", "uniform"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def mix(words: ArrayLike) -> np.ndarray:
    """Scramble uint64 words one to one."""
    with np.errstate(over="ignore"):
        z = np.asarray(words, np.uint64) + _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _FIRST
        z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


def _word(value: ArrayLike) -> Any:
    # Two's complement, so that negative seeds work.
    if isinstance(value, (int, np.integer)):
        return np.uint64(int(value) & 0xFFFFFFFFFFFFFFFF)
    return np.asarray(value).astype(np.int64).astype(np.uint64)


def fold(*key: ArrayLike) -> np.ndarray:
    """Fold integers (or integer arrays that broadcast) into one uint64 word each."""
    state: Any = np.uint64(0)
    for part in key:
        state = mix(state ^ mix(_word(part)))
    return state


def uniform(*key: ArrayLike) -> np.ndarray:
    """Return uniform float64 numbers in [0, 1) for a key of integers or of integer arrays that broadcast.

    The 53 high bits of the folded key, so every value is a multiple of 2^-53.
    """
    return (fold(*key) >> np.uint64(11)) * 2.0**-53
