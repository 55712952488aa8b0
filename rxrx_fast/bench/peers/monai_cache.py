"""MONAI's CacheDataset: what its deterministic transforms made, decoded pixels, stays in memory; random steps run.

Other work than everybody's: nothing is read or decoded while the clock runs. It needs a byte a pixel of memory for the
sites of the race, 1.6 MB a site of 6 x 512 x 512; RxRx1's 125,510 sites would need 197 GB. The random steps run in
worker processes like everybody's, not in one thread (``num_workers=0``), MONAI's advice for steps lighter than these.
"""

from __future__ import annotations

from monai.data import CacheDataset

from rxrx_fast.bench.peers import monai_loader
from rxrx_fast.bench.work import Work

__all__ = ["Peer"]


class Peer(monai_loader.Peer):
    name = "MONAI CacheDataset (decoded pixels in memory)"

    def dataset(self, work: Work, samples: list[dict]) -> CacheDataset:
        # The random transforms make new arrays, so the cache needs no copies against them.
        return CacheDataset(
            samples,
            monai_loader.transforms(work),
            num_workers=work.threads,
            progress=False,
            copy_cache=False,
        )
