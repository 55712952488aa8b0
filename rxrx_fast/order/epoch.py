"""The order of an epoch as arithmetic: the n-th sample is a pure function of (seed, epoch, n).

Nothing here holds the order of a whole epoch. :class:`Permutation` is a keyed one-to-one map of 0..n-1 onto itself,
so a run resumes from a number, and a rank's shard is a slice of the one global order:

    global batch k = positions k*G .. (k+1)*G - 1, G = batch_size * world_size
    rank r's part  = places r*batch_size .. (r+1)*batch_size - 1 of it

A short last global batch (``drop_last=False``) is dealt out in equal parts; when it does not divide by the number of
ranks, its first samples are repeated at its end, so that all ranks take the same number of steps; :func:`repeated`
says which those are.

An order has ``len(order)``, the global batches of the epoch; ``order[step]``, the sample numbers of one;
``tell(step)``, what a batch's meta says of it; and ``pools(position)``, the samples that may take the place of one
that can't be read. :mod:`rxrx_fast.order.samplers` has more of them.
"""

from __future__ import annotations

import hashlib

import numpy as np

from rxrx_fast.errors import UsageError
from rxrx_fast.runtime.counter_rng import fold, mix

__all__ = ["VERSION", "EpochOrder", "GivenOrder", "Permutation", "rank_part", "repeated"]

#: Of the arithmetic. A saved state names it: an order that gives other numbers must have another version.
VERSION = 1

_ROUNDS = 6
# The word after (seed, epoch) in a key says what is drawn, so that no two draws share their numbers.
_WITHIN_GROUP, _OF_BATCHES, _OF_GROUPS = 0, 1, 2


class Permutation:
    """A keyed permutation of 0..n-1 that is computed, not stored.

    A balanced Feistel network over the smallest even number of bits that holds n, with cycle walking back into the
    range (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). The network's domain is less than
    4n, so a position walks fewer than four times on average.

    Parameters
    ----------
    n : int, or array of int64
        Number of elements, at least 1 and less than 2**53. With an array, one permutation an element.
    *key : int, or array of int64
        Any integers; other keys give unrelated permutations. Arrays broadcast with ``n`` and with the positions.
    """

    def __init__(self, n, *key):
        sizes = np.asarray(n, np.int64)
        if sizes.size and sizes.min() < 1:
            raise UsageError(f"a permutation needs at least one element, got {sizes.min()}")
        self.n = n
        # The exponent of a float64 is the bit length of a whole number.
        half = np.maximum(1, (np.frexp(sizes - 1.0)[1] + 1) // 2).astype(np.uint64)
        mask = (np.uint64(1) << half) - np.uint64(1)
        keys = [np.asarray(fold(*key, round_)) for round_ in range(_ROUNDS)]
        self._tables = [sizes.astype(np.uint64), half, mask, *keys]
        self._shape = np.broadcast_shapes(*(table.shape for table in self._tables))

    def __call__(self, positions) -> np.ndarray:
        """Map positions, values 0..n-1, to int64 of the shape that they broadcast to with ``n`` and the key."""
        positions = np.asarray(positions, np.int64)
        shape = np.broadcast_shapes(positions.shape, self._shape)
        words = np.broadcast_to(positions, shape).reshape(-1).astype(np.uint64)
        tables = [np.broadcast_to(table, shape).reshape(-1) for table in self._tables]
        words = _network(words, *tables[1:])
        outside = np.flatnonzero(words >= tables[0])
        while outside.size:
            tables_outside = [table[outside] for table in tables]
            words[outside] = _network(words[outside], *tables_outside[1:])
            outside = outside[words[outside] >= tables_outside[0]]
        return words.astype(np.int64).reshape(shape)


def _network(words, half, mask, *keys):
    left, right = words >> half, words & mask
    for key in keys:
        left, right = right, left ^ (mix(right ^ key) & mask)
    return (left << half) | right


class EpochOrder:
    """The global batches of one epoch in which every sample comes once.

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
    whole : bool
        The batches of a group follow one another, until the group is complete; ``shuffle`` then shuffles the groups,
        and the samples within each.
    """

    def __init__(self, n, batch, *, seed=0, epoch=0, shuffle=False, drop_last=False, groups=None, whole=False):
        self.n, self.batch_size = int(n), int(batch)
        self._shuffle, self._whole, self._key = shuffle, whole, (int(seed), int(epoch))
        if groups is None:
            sizes = np.array([self.n], np.int64)
            self._codes = self._group_of = self._members = None
        else:
            self._codes, self._group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
            self._members = np.argsort(self._group_of, kind="stable")
        self._sizes = sizes
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._turns = np.arange(len(sizes))
        if whole and shuffle and len(sizes):
            self._turns = Permutation(len(sizes), *self._key, _OF_GROUPS)(self._turns)
        steps = sizes // self.batch_size if drop_last else -(-sizes // self.batch_size)
        self._first_step = np.concatenate([[0], np.cumsum(steps[self._turns])])

    def __len__(self) -> int:
        return int(self._first_step[-1])

    def _place(self, step: int) -> tuple[int, int, int]:
        """The group of global batch ``step``, its number within the group, and how many follow in the group."""
        if not 0 <= step < len(self):
            raise IndexError(step)
        # One group has nothing to deal out: its batches in turn are already in random order.
        if self._shuffle and not self._whole and len(self._sizes) > 1:
            step = int(Permutation(len(self), *self._key, _OF_BATCHES)(step))
        turn = int(np.searchsorted(self._first_step, step, side="right")) - 1
        return int(self._turns[turn]), step - int(self._first_step[turn]), int(self._first_step[turn + 1]) - 1 - step

    def __getitem__(self, step: int) -> np.ndarray:
        """Sample numbers of global batch ``step``: int64, at most ``batch`` of them."""
        group, number, _ = self._place(step)
        size, start = int(self._sizes[group]), int(self._starts[group])
        low = number * self.batch_size
        places = np.arange(low, min(low + self.batch_size, size), dtype=np.int64)
        if self._shuffle:
            places = Permutation(size, *self._key, _WITHIN_GROUP, group)(places)
        return places + start if self._members is None else self._members[places + start]

    def tell(self, step: int) -> dict[str, int]:
        """With groups, the group's code; with whole groups also how many batches of it follow."""
        if self._codes is None:
            return {}
        group, _, left = self._place(step)
        told = {"group": int(self._codes[group])}
        return {**told, "group_batches_left": left} if self._whole else told

    def pools(self, position: int) -> tuple[np.ndarray, ...]:
        """Samples that may take a sample's place: those of its group, or all."""
        if self._members is None:
            return (np.arange(self.n),)
        group = int(self._group_of[position])
        return (self._members[self._starts[group] : self._starts[group + 1]],)


class GivenOrder:
    """The batches that a sampler of the user's gives, in its order."""

    def __init__(self, batches):
        self.batches = [np.asarray(batch, np.int64).reshape(-1) for batch in batches]

    @classmethod
    def of_samples(cls, indices, batch_size: int, drop_last: bool) -> GivenOrder:
        """Cut a flat sequence of sample numbers into batches."""
        indices = np.fromiter(indices, np.int64)
        end = len(indices) - len(indices) % batch_size if drop_last else len(indices)
        return cls(indices[i : i + batch_size] for i in range(0, end, batch_size))

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, step: int) -> np.ndarray:
        return self.batches[step]

    def tell(self, step: int) -> dict[str, int]:
        """Nothing: what the batches have in common is the sampler's business."""
        return {}

    def pools(self, position: int) -> tuple[np.ndarray, ...]:
        """Those that the sampler gives in this epoch: others may be held out on purpose."""
        return (np.unique(np.concatenate(self.batches)),)

    def digest(self) -> str:
        """Sixteen hexadecimal digits that another sequence of batches would not have."""
        found = hashlib.blake2b(digest_size=8)
        for batch in self.batches:
            found.update(len(batch).to_bytes(8, "little") + batch.tobytes())
        return found.hexdigest()


def rank_part(batch: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """The part of a global batch that one rank takes; equal parts, see the module's text."""
    share = -(-len(batch) // world_size)
    return np.resize(batch, share * world_size)[rank * share : (rank + 1) * share]


def repeated(samples: int, rank: int, world_size: int) -> np.ndarray:
    """Which samples of a rank's part are there a second time: int64, 1 where :func:`rank_part` filled up, else 0."""
    share = -(-samples // world_size)
    return (np.arange(rank * share, (rank + 1) * share) >= samples).astype(np.int64)
