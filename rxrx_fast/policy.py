"""What augmentation may do, and the draw of one row of parameters a sample and view.

A :class:`Policy` only says what is allowed. :meth:`Policy.draw` turns (seed, epoch, site, view) into numbers, always
the same ones; kernels apply them. So pixels do not depend on the batch that a site is in, nor on threads or devices.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from rxrx_kernels.fused import TURNS, compose

from rxrx_fast.errors import UsageError
from rxrx_fast.keyed import uniform

__all__ = ["PRESETS", "Draws", "Policy"]

# compose() over all pairs, so that a batch of draws is combined by indexing.
_COMPOSE = np.array([[compose(first, second) for second in range(8)] for first in range(8)], np.uint8)
_TURNS = np.array(TURNS, np.uint8)

# Each kind of draw has a number of its own in the key, so that adding a kind leaves the others as they were.
_HFLIP, _VFLIP, _ROT90, _TURN, _MEAN, _STD, _TRANSPOSE = range(7)


class Draws(NamedTuple):
    """Parameters of one view of a batch.

    codes : (B,) uint8
        Geometry, see :mod:`rxrx_kernels.fused`.
    mean_factor, std_factor : (B, C) float64
        What the statistics are multiplied by before they normalise.
    """

    codes: np.ndarray
    mean_factor: np.ndarray
    std_factor: np.ndarray


@dataclass(frozen=True)
class Policy:
    """Augmentation, drawn anew for each epoch, site and view. Probabilities are 0 to 1.

    Parameters
    ----------
    hflip, vflip : float
        Probability of a left-right, a top-bottom mirror.
    transpose : float
        Probability of exchanging rows and columns.
    rot90 : float
        Probability of a turn by 0, 90, 180 or 270 degrees, each equally likely (as albumentations' RandomRotate90).
    stats_jitter : float
        The mean and the standard deviation that normalise a channel are each multiplied by 1 + j * u, u uniform in
        [-1, 1), one draw a sample and channel; 0 to below 1. (DeepNoise, 2nd place of the RxRx1 competition: 0.1.)
    """

    hflip: float = 0.0
    vflip: float = 0.0
    transpose: float = 0.0
    rot90: float = 0.0
    stats_jitter: float = 0.0

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, (int, float, np.number)) or not 0 <= value <= 1:
                raise UsageError(f"Policy({field.name}={value!r}): must be a number from 0 to 1")
        if self.stats_jitter >= 1:
            raise UsageError(
                f"Policy(stats_jitter={self.stats_jitter!r}): must be below 1, or a deviation could become 0"
            )

    @classmethod
    def of(cls, policy: str | Policy) -> Policy:
        """A policy by its preset's name, or itself."""
        if isinstance(policy, Policy):
            return policy
        if policy not in PRESETS:
            raise UsageError(f"augment={policy!r}: must be one of {', '.join(map(repr, PRESETS))} or an rx.Policy(...)")
        return PRESETS[policy]

    @property
    def transposes(self) -> bool:
        """Whether rows and columns can be exchanged, which needs square images."""
        return self.transpose > 0 or self.rot90 > 0

    def draw(self, seed: int, epoch: int, sites: np.ndarray, view: int, channels: int) -> Draws:
        """Draw the parameters of one view.

        Parameters
        ----------
        seed, epoch, view : int
        sites : (B,) int64
            The sites' labels in the catalog (``site_index``), which filtering keeps.
        channels : int
            C, of the output.
        """
        sites = np.asarray(sites, np.int64)

        def chance(kind):
            return uniform(seed, epoch, sites, view, kind)

        codes = np.zeros(len(sites), np.uint8)
        codes[chance(_HFLIP) < self.hflip] = 1
        codes ^= np.where(chance(_VFLIP) < self.vflip, 2, 0).astype(np.uint8)
        if self.transpose:
            codes = _COMPOSE[codes, np.where(chance(_TRANSPOSE) < self.transpose, 4, 0)]
        if self.rot90:
            turns = np.where(chance(_ROT90) < self.rot90, (4 * chance(_TURN)).astype(np.int64), 0)
            codes = _COMPOSE[codes, _TURNS[turns]]
        factors = []
        for kind in (_MEAN, _STD):
            if self.stats_jitter:
                u = 2 * uniform(seed, epoch, sites[:, None], view, kind, np.arange(channels)) - 1
                factors.append(1 + self.stats_jitter * u)
            else:
                factors.append(np.ones((len(sites), channels)))
        return Draws(codes, *factors)


#: Policies by name.
PRESETS = {
    "none": Policy(),
    # WILDS, examples/transforms.py, initialize_rxrx1_transform: a turn by a random multiple of 90 degrees and a
    # horizontal flip; standardise with normalize="site", as it does.
    "wilds": Policy(hflip=0.5, rot90=1.0),
}
