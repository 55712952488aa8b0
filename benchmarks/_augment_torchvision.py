"""torchvision's transforms v2 on tensors, one site at a time, the form that its documentation calls the fastest.

Flips and the transposition are made of uint8, a quarter of the bytes. The affine change and the crop are made either
of uint8, with the plate's mean outside of the image, or after standardisation, with exact zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from rxrx_fast.recipes.backbones import library

__all__ = ["Peer"]


v2 = library("torchvision.transforms.v2")
LINEAR = v2.InterpolationMode.BILINEAR


class Peer:
    def __init__(self, work, policies: Sequence, early: bool):
        self._work, self._early, self._made = work, early, {}
        self._policies = policies
        self._stacks = torch.from_numpy(work.stacks)

    def _steps(self, policy, site: int) -> tuple:
        """Return flips, affine map and crop (RandomAffine changes no aspect), and erasing; one set per plate."""
        fill = [0.0] * 6 if self._early else self._work.mean[site].tolist()
        key = policy, *fill
        if key not in self._made:
            flips = [v2.RandomHorizontalFlip(policy.hflip), v2.RandomVerticalFlip(policy.vflip)]
            flips.append(v2.RandomApply([v2.Lambda(lambda x: x.mT)], policy.transpose))
            affine, erase, crop = v2.Identity(), v2.Identity(), v2.Identity()
            if policy.affine and (policy.zoom != (1, 1) or policy.shift):
                shift = (policy.shift, policy.shift)
                affine = v2.RandomAffine(0, shift, policy.zoom, interpolation=LINEAR, fill=fill)
                affine = v2.RandomApply([affine], policy.affine)
            if policy.erase:
                erase = v2.RandomErasing(policy.erase, policy.erase_area, policy.erase_aspect, 0.0, inplace=True)
            if policy.crop != (1, 1):
                # Shares of the area. No antialiasing: nothing shrinks.
                area = tuple(side**2 for side in policy.crop)
                crop = v2.RandomResizedCrop(self._work.size, area, (1.0, 1.0), LINEAR, antialias=False)
            # Erasing acts on standardised values, so it follows a crop of uint8.
            order = (flips, [affine, erase, crop]) if self._early else ([*flips, affine, crop], [erase])
            self._made[key] = tuple(v2.Compose(steps) for steps in order)
        return self._made[key]

    def finish(self, sites) -> Iterator[torch.Tensor]:
        """Yield (C, H, W) float32 tensors."""
        for policy in self._policies:
            for site in sites:
                before, after = self._steps(policy, site)
                factors = 1 + policy.stats_jitter * (2 * torch.rand(2, 6, 1, 1) - 1)
                mean = torch.from_numpy(self._work.mean[site])[:, None, None] * factors[0]
                std = torch.from_numpy(self._work.std[site])[:, None, None] * factors[1]
                yield after(torch.sub(before(self._stacks[site]), mean).div_(std)).contiguous()
