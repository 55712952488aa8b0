"""The order of an epoch as arithmetic: the n-th sample is a pure function of (seed, epoch, n).

Nothing here holds the order of a whole epoch. :class:`Permutation` is a keyed one-to-one map of 0..n-1 onto itself,
so a run resumes from a number, and a rank's shard is a slice of the one global order:

    global batch k = positions k*G .. (k+1)*G - 1, G = batch_size * world_size
    rank r's part  = places r*batch_size .. (r+1)*batch_size - 1 of it

A short last global batch (``drop_last=False``) is dealt out in equal parts; when it does not divide by the number of
ranks, its first samples are repeated at its end, so that all ranks take the same number of steps.
"""

from __future__ import annotations

import numpy as np

from rxrx_fast.errors import UsageError
from rxrx_fast.keyed import fold, mix

__all__ = ["EpochOrder", "GivenOrder", "Permutation", "rank_part"]

_ROUNDS = 6


class Permutation:
    """A keyed permutation of 0..n-1 that is computed, not stored.

    A balanced Feistel network over the smallest even number of bits that holds n, with cycle walking back into the
    range (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). The network's domain is less than
    4n, so a position walks fewer than four times on average.

    Parameters
    ----------
    n : int
        Number of elements, at least 1.
    *key : int
        Any integers; other keys give unrelated permutations.
    """

    def __init__(self, n: int, *key: int):
        if n < 1:
            raise UsageError(f"a permutation needs at least one element, got {n}")
        self.n = int(n)
        half = max(1, -(-(self.n - 1).bit_length() // 2))
        self._half, self._mask = np.uint64(half), np.uint64((1 << half) - 1)
        self._keys = [fold(*key, round_) for round_ in range(_ROUNDS)]

    def _network(self, words):
        left, right = words >> self._half, words & self._mask
        for key in self._keys:
            left, right = right, left ^ (mix(right ^ key) & self._mask)
        return (left << self._half) | right

    def __call__(self, positions) -> np.ndarray:
        """Map positions, an int64 array of values 0..n-1, to an int64 array of the same shape."""
        words = self._network(np.atleast_1d(np.asarray(positions, np.int64)).astype(np.uint64))
        outside = np.flatnonzero(words >= self.n)
        while outside.size:
            words[outside] = self._network(words[outside])
            outside = outside[words[outside] >= self.n]
        return words.astype(np.int64).reshape(np.shape(positions))


class EpochOrder:
    """The global batches of one epoch.

    Parameters
    ----------
    n : int
        Number of samples.
    batch : int
        Global batch: batch size times number of ranks.
    seed, epoch : int
        Key of the shuffle.
    shuffle : bool
        Without it, samples come in their own order (with groups: group by group).
    drop_last : bool
        Leave out a short last batch; with groups, each group's.
    groups : (n,) int64, optional
        A code a sample. Every batch then comes from one group, and batches of all groups are shuffled.
    """

    def __init__(self, n, batch, *, seed=0, epoch=0, shuffle=False, drop_last=False, groups=None):
        self.n, self.batch_size = int(n), int(batch)
        self._shuffle, self._key = shuffle, (int(seed), int(epoch))
        if groups is None:
            sizes = np.array([self.n], np.int64)
            self._members = None
        else:
            _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
            self._members = np.argsort(codes, kind="stable")
        self._sizes = sizes
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        steps = sizes // self.batch_size if drop_last else -(-sizes // self.batch_size)
        self._first_step = np.concatenate([[0], np.cumsum(steps)])

    def __len__(self) -> int:
        return int(self._first_step[-1])

    def __getitem__(self, step: int) -> np.ndarray:
        """Sample numbers of global batch ``step``: int64, at most ``batch`` of them."""
        if not 0 <= step < len(self):
            raise IndexError(step)
        # One group has nothing to deal out: its batches in turn are already in random order.
        if self._shuffle and len(self._sizes) > 1:
            step = int(Permutation(len(self), *self._key, 1)(step))
        group = int(np.searchsorted(self._first_step, step, side="right")) - 1
        size, start = int(self._sizes[group]), int(self._starts[group])
        low = (step - int(self._first_step[group])) * self.batch_size
        places = np.arange(low, min(low + self.batch_size, size), dtype=np.int64)
        if self._shuffle:
            places = Permutation(size, *self._key, 0, group)(places)
        return places + start if self._members is None else self._members[places + start]


class GivenOrder:
    """The batches that a sampler of the user's gives, in its order."""

    def __init__(self, batches):
        self._batches = [np.asarray(batch, np.int64).reshape(-1) for batch in batches]

    @classmethod
    def of_samples(cls, indices, batch_size: int, drop_last: bool) -> GivenOrder:
        """Cut a flat sequence of sample numbers into batches."""
        indices = np.fromiter(indices, np.int64)
        end = len(indices) - len(indices) % batch_size if drop_last else len(indices)
        return cls(indices[i : i + batch_size] for i in range(0, end, batch_size))

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, step: int) -> np.ndarray:
        return self._batches[step]


def rank_part(batch: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """The part of a global batch that one rank takes; equal parts, see the module's text."""
    share = -(-len(batch) // world_size)
    return np.resize(batch, share * world_size)[rank * share : (rank + 1) * share]
