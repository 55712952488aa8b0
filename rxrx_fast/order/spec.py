"""Plan: which order a loader's arguments ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import torch

from rxrx_fast.errors import UsageError
from rxrx_fast.order.epoch import EpochOrder, GivenOrder
from rxrx_fast.order.samplers import BalancedOrder, LabelOrder
from rxrx_fast.runtime.counter_rng import fold

__all__ = ["Plan"]

_GROUPS = ("plate", "experiment", "cell_type")
_CLASSES = ("label", "well_type", *_GROUPS)
# Each of these decides which samples make a batch.
_DECIDE = ("sampler", "batch_sampler", "group_by", "balance_by", "sites_per_label")


@dataclass(frozen=True)
class Plan:
    """What decides the order of an epoch, apart from its key; see :class:`rxrx_fast.DataLoader` for each."""

    shuffle: bool = False
    drop_last: bool = False
    sampler: Iterable | None = None
    batch_sampler: Iterable | None = None
    group_by: str | None = None
    whole_groups: bool = False
    balance_by: str | None = None
    sites_per_label: int | None = None

    def __post_init__(self):
        for name, known in (("group_by", _GROUPS), ("balance_by", _CLASSES)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise UsageError(f"{name}={value!r}: must be None or one of {', '.join(map(repr, known))}")
        deciders = [name for name in _DECIDE if getattr(self, name) is not None]
        if len(deciders) > 1:
            raise UsageError(f"{' and '.join(deciders)} can't be given together: each decides the order")
        if self.shuffle and self.sampled:
            raise UsageError("a sampler decides the order: leave shuffle out")
        if self.whole_groups and (self.group_by is None or self.drop_last):
            raise UsageError("whole_groups=True needs group_by, and drop_last=False: nothing of a group is left out")

    @property
    def sampled(self) -> bool:
        """Whether the order is a sampler's of the user's."""
        return self.sampler is not None or self.batch_sampler is not None

    def __str__(self) -> str:
        """In words, the same for the same plan; a sampler is only said to be one."""
        words = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value is not False:
                named = field.name in ("group_by", "balance_by", "sites_per_label")
                words.append(f"{field.name}={value}" if named else field.name)
        return " ".join(words) or "as they are"

    def codes(self, dataset) -> np.ndarray | None:
        """What samples are grouped or drawn by: (N,) int64, or None."""
        by = self.group_by or self.balance_by or ("label" if self.sites_per_label else None)
        if by is None:
            return None
        if by == "label":
            return dataset.labels
        if by == "well_type":
            return dataset.meta(np.arange(len(dataset)))["well_type"]
        return dataset.catalog.group_keys(by)[0]

    def order(self, samples: int, codes: np.ndarray | None, batch_size: int, world_size: int, seed: int, epoch: int):
        """The global batches of an epoch, or with a sampler this rank's."""
        if self.sampled:
            # A sampler without a seed of its own draws from torch's global generator.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(fold(seed, epoch)) >> 1)
                if self.batch_sampler is not None:
                    return GivenOrder(list(self.batch_sampler))
                return GivenOrder.of_samples(self.sampler, batch_size, self.drop_last)
        if self.sites_per_label is not None and batch_size % self.sites_per_label:
            raise UsageError(f"batch_size={batch_size} is not a multiple of sites_per_label={self.sites_per_label}")
        batch, key = batch_size * world_size, {"seed": seed, "epoch": epoch}
        if self.balance_by is not None:
            return BalancedOrder(codes, batch, **key, drop_last=self.drop_last, what=self.balance_by)
        if self.sites_per_label is not None:
            return LabelOrder(codes, batch, self.sites_per_label, **key)
        shape = {"shuffle": self.shuffle, "drop_last": self.drop_last, "groups": codes, "whole": self.whole_groups}
        return EpochOrder(samples, batch, **key, **shape)
