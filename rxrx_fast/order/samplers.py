"""Orders that draw by class: balanced, and P perturbations x K sites. Pure functions of (seed, epoch, step) too.

An epoch is as long as one pass over the samples, but not each of them comes in it: a small class is drawn from more
often than once, a large one is not drawn from in full. Within a class, every sample comes once before any comes again.
"""

from __future__ import annotations

import numpy as np

from rxrx_fast.errors import UsageError
from rxrx_fast.order.epoch import Permutation

__all__ = ["BalancedOrder", "LabelOrder"]

# Words after (seed, epoch) in a key, apart from those of rxrx_fast.order.epoch.
_OF_CLASSES, _WITHIN_CLASS, _OF_LABELS, _WITHIN_LABEL = 3, 4, 5, 6


class _Classes:
    """Samples by class; a class code below 0 means that the sample is in none and is not drawn."""

    def __init__(self, codes: np.ndarray, what: str):
        codes = np.asarray(codes, np.int64)
        self._all = np.flatnonzero(codes >= 0)
        if not len(self._all):
            raise UsageError(f"no sample has a {what}: nothing can be drawn by it")
        self._codes = codes
        self._names, within, self._sizes = np.unique(codes[self._all], return_inverse=True, return_counts=True)
        self._members = self._all[np.argsort(within, kind="stable")]
        self._starts = np.cumsum(self._sizes) - self._sizes

    def tell(self, step: int) -> dict[str, int]:
        """Nothing that the labels and the meta do not say already."""
        return {}

    def pools(self, position: int) -> tuple[np.ndarray, ...]:
        """Samples that may take a sample's place: those of its class, then all that are drawn."""
        of_class = int(np.searchsorted(self._names, self._codes[position]))
        start = self._starts[of_class]
        return self._members[start : start + self._sizes[of_class]], self._all


class BalancedOrder(_Classes):
    """Every class as often as every other: within two samples in each batch, within one over the epoch.

    The classes take turns, in a new random order every round, so a batch of fewer samples than there are classes has
    no class twice, but for one that straddles two rounds.

    Parameters
    ----------
    codes : (n,) int64
        Class of each sample; samples below 0 are left out.
    batch : int
        Global batch.
    seed, epoch : int
    drop_last : bool
    what : str
        What the codes are, for the message of an error.
    """

    def __init__(self, codes, batch, *, seed=0, epoch=0, drop_last=False, what="class"):
        super().__init__(codes, what)
        self.n, self.batch_size, self._key = len(self._all), int(batch), (int(seed), int(epoch))
        self._steps = self.n // self.batch_size if drop_last else -(-self.n // self.batch_size)

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> np.ndarray:
        """Sample numbers of global batch ``step``: int64, at most ``batch`` of them."""
        if not 0 <= step < len(self):
            raise IndexError(step)
        places = np.arange(step * self.batch_size, min((step + 1) * self.batch_size, self.n))
        rounds, turns = np.divmod(places, len(self._sizes))
        drawn = Permutation(len(self._sizes), *self._key, _OF_CLASSES, rounds)(turns)
        sizes = self._sizes[drawn]
        # A class gives one sample a round; after as many rounds as it has samples, it is shuffled anew.
        laps, places = np.divmod(rounds, sizes)
        within = Permutation(sizes, *self._key, _WITHIN_CLASS, drawn, laps)(places)
        return self._members[self._starts[drawn] + within]


class LabelOrder(_Classes):
    """Batches of P labels x K samples of each ("PK sampling": Hermans, Beyer and Leibe, arXiv:1703.07737, section 2).

    A global batch holds ``batch / per_label`` different labels, each ``per_label`` times in a row, all different
    samples where the label has so many. All labels are dealt out before any comes again; those left over that do not
    fill a batch wait for the next round. Every batch is whole.

    Parameters
    ----------
    labels : (n,) int64
        Below 0: no label, left out.
    batch : int
        Global batch, a multiple of ``per_label``.
    per_label : int
        K, samples a label.
    seed, epoch : int
    """

    def __init__(self, labels, batch, per_label, *, seed=0, epoch=0):
        super().__init__(labels, "label")
        self.batch_size, self._k, self._key = int(batch), int(per_label), (int(seed), int(epoch))
        if self.batch_size % self._k:
            raise UsageError(f"sites_per_label={per_label} does not divide the batch of {batch}")
        self._p = self.batch_size // self._k
        labels = len(self._names)
        if self._p > labels:
            raise UsageError(
                f"a global batch of {batch} with sites_per_label={per_label} needs {self._p} labels, and the data has "
                f"{labels}: take a smaller batch or more sites a label"
            )
        self._turns = labels // self._p
        self._rounds = max(1, round(len(self._all) / (labels * self._k)))

    def __len__(self) -> int:
        return self._turns * self._rounds

    def __getitem__(self, step: int) -> np.ndarray:
        """Sample numbers of global batch ``step``: int64, exactly ``batch`` of them."""
        if not 0 <= step < len(self):
            raise IndexError(step)
        round_, turn = divmod(step, self._turns)
        places = np.arange(turn * self._p, (turn + 1) * self._p)
        drawn = Permutation(len(self._names), *self._key, _OF_LABELS, round_)(places)[:, None]
        sizes = self._sizes[drawn]
        # Cut each lap of a label into whole parts of K, so that no part straddles two laps and repeats a sample.
        laps, parts = np.divmod(round_, np.maximum(1, sizes // self._k))
        places = (parts * self._k + np.arange(self._k)) % sizes
        within = Permutation(sizes, *self._key, _WITHIN_LABEL, drawn, laps)(places)
        return self._members[self._starts[drawn] + within].reshape(-1)
