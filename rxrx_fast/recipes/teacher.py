"""A teacher that is the student's running mean, how the two agree, and what it holds unlabelled wells to be.

Constants are those of DeepNoise's main.py; see :mod:`rxrx_fast.recipes.deepnoise`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn.functional import mse_loss

from rxrx_fast.recipes.plates import resolve

__all__ = ["PseudoLabels", "consistency", "follow", "ramp_up"]

_RAMP_EPOCHS = 5
# update_pseudo_labels: the new predictions' share, and the rounds of balancing.
_NEW_SHARE, _PSEUDO_ROUNDS = 0.9, 500
# The teacher keeps this much of itself: for the first epoch, up to the 10th, up to the 20th, and after.
_KEPT = ((1, 0.5), (10, 0.9), (20, 0.99), (math.inf, 0.999))


def ramp_up(epoch: float) -> float:
    """exp(-5 (1 - t)^2), t from 0 to 1 over five epochs (Laine and Aila, ICLR 2017); ``epoch`` counts from 1."""
    t = min(epoch, _RAMP_EPOCHS) / _RAMP_EPOCHS
    return math.exp(-5 * (1 - t) ** 2)


def consistency(logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of the two softmaxes over samples and classes (softmax_mse_loss over the batch size)."""
    return mse_loss(logits.float().softmax(1), teacher.float().softmax(1))


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, epoch: int, step: int) -> None:
    """Move the teacher's parameters towards the student's; ``epoch`` counts from 1 (update_ema_variables).

    Batch normalisation's statistics are the teacher's own: it runs in training mode as well.
    """
    kept = min(1 - 1 / (step + 1), next(kept for last, kept in _KEPT if epoch <= last))
    for mine, theirs in zip(teacher.parameters(), student.parameters()):
        mine.mul_(kept).add_(theirs.to(mine.dtype), alpha=1 - kept)


class PseudoLabels:
    """What the teacher holds unlabelled wells to be, balanced over each plate.

    Parameters
    ----------
    update : callable
        The teacher's logits of the unlabelled wells: () to (table of W wells, (W, K)).
    groups : list of int arrays
        Of treatments, as positions in the logits.
    classes : (K,) int64
        Position of each of the logits' treatments among all classes.
    sites : DataFrame
        Table of the unlabelled sites.
    length : int
        One more than the largest index of the table first read.
    """

    def __init__(self, update: Callable, groups, classes: np.ndarray, sites, length: int):
        self._update, self._groups, self._classes, self._sites = update, groups, classes, sites
        self.labels = torch.full((length,), -1, dtype=torch.int64)
        self.logits = torch.zeros(0)
        self.epoch = -1

    def renew(self, epoch: int) -> None:
        """Predict again, once an epoch: a run taken up in its middle has this epoch's labels in its checkpoint."""
        if epoch == self.epoch:
            return
        wells, logits = self._update()
        logits = torch.from_numpy(np.asarray(logits))
        self.logits = logits if not len(self.logits) else (1 - _NEW_SHARE) * self.logits + _NEW_SHARE * logits
        balanced = resolve(self.logits.numpy(), wells, self._groups, _PSEUDO_ROUNDS)[0]["balanced"]
        label = dict(zip(wells["well_id"], self._classes[balanced.argmax(1)].tolist()))
        own = np.array([label[well] for well in self._sites["well_id"]], np.int64)
        self.labels[torch.tensor(self._sites.index)] = torch.from_numpy(own)
        self.epoch = epoch

    def state_dict(self) -> dict:
        """Labels, logits and the epoch they are of."""
        return {"labels": self.labels, "logits": self.logits, "epoch": self.epoch}

    def load_state_dict(self, state: dict) -> None:
        """Take up a state."""
        self.labels, self.logits = state["labels"].cpu(), state["logits"].cpu()
        self.epoch = int(state["epoch"])
