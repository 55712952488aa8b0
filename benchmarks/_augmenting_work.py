"""The race of augmentations: its work, its contestants, and rxrx_fast as one of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from rxrx_fast import Dataset, Policy
from rxrx_fast.augment.views import KernelArguments
from rxrx_fast.devices.device import finish_site
from rxrx_fast.runtime.buffers import Buffers

__all__ = ["BATCH", "PEERS", "Ours", "Work", "missing"]

#: Sites a batch.
BATCH = 32


@dataclass(frozen=True, eq=False)
class Work:
    """Decoded sites and their plates' statistics; the same object goes to every contestant.

    Attributes
    ----------
    catalog, plate_stats
        As rxrx_fast takes them.
    stacks : (N, C, H, W) uint8
    mean, std : (N, C) float32
        Of each site's plate.
    """

    catalog: object
    plate_stats: object
    stacks: np.ndarray = field(repr=False)
    mean: np.ndarray = field(repr=False)
    std: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, catalog, stats) -> Work:
        """Decode all sites of a catalog."""
        dataset = Dataset(catalog, stats=stats)
        stacks = dataset.store.pixels(range(len(dataset)))
        (view,) = dataset.parameters(np.arange(len(dataset)), 0, 0)
        return cls(dataset.catalog, stats, stacks, view.center.astype(np.float32), view.scale.astype(np.float32))

    def __len__(self) -> int:
        return len(self.stacks)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a channel."""
        return self.stacks.shape[2:]


class Ours:
    """rxrx_fast as its loader does it: draws and plans for a batch, then one kernel call a site into recycled memory.

    The memory is that of a whole batch, so no output stays in a cache; the peers' outputs are dropped one by one. Two
    batches a view are kept, because the consumer still holds one while the next is made.
    """

    name = "rxrx_fast"

    def __init__(self, work: Work, policies: Sequence[Policy]):
        self._dataset = Dataset(work.catalog, stats=work.plate_stats, views=list(policies))
        self._stacks, self._epoch, self._buffers = work.stacks, 0, Buffers(2 * len(policies))

    def plans(self, sites: np.ndarray) -> list[KernelArguments]:
        """Sample new parameters on the host and return the kernels' arguments, one record per view."""
        self._epoch += 1
        return [view.kernel_arguments(None) for view in self._dataset.parameters(sites, 0, self._epoch)]

    def apply(self, sites: np.ndarray, plan: KernelArguments) -> np.ndarray:
        """Run the kernels alone; returns (B, C, H, W) float32."""
        out = self._buffers.take((len(sites), *self._stacks.shape[1:]), np.float32)
        for b, site in enumerate(sites):
            finish_site(self._stacks[site], out[b], plan, b)
        return out

    def finish(self, sites: np.ndarray) -> Iterator[torch.Tensor]:
        """Yield (C, H, W) float32 tensors, site by site for each view."""
        for plan in self.plans(sites):
            yield from torch.from_numpy(self.apply(sites, plan))


def _albumentations(early: bool) -> Callable:
    def make(work, policies):
        from _augment_albumentations import Peer

        return Peer(work, policies, early)

    return make


def _torchvision(early: bool) -> Callable:
    def make(work, policies):
        from _augment_torchvision import Peer

        return Peer(work, policies, early)

    return make


def _kornia(work, policies):
    from _augment_kornia import Peer

    return Peer(work, policies)


#: Name, package, and the function that makes the contestant from the work and its policies.
PEERS = (
    ("AlbumentationsX, geometry of uint8", "albumentations", _albumentations(False)),
    ("AlbumentationsX, geometry of float32", "albumentations", _albumentations(True)),
    ("torchvision v2, geometry of uint8", "torchvision", _torchvision(False)),
    ("torchvision v2, geometry of float32", "torchvision", _torchvision(True)),
    ("Kornia", "kornia", _kornia),
)


def missing(package: str) -> str | None:
    """Return why a peer can't run; None if its package is installed."""
    return None if importlib.util.find_spec(package) else f"{package} is not installed (pip install '.[cpu,peers]')"
