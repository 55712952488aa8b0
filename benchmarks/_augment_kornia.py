"""Kornia's augmentations of batches, with parameters sampled per image (``same_on_batch=False``).

Kornia works on floating-point batches, so standardisation comes first. It has no transposition, and its quarter turns
resample; torch's own transposition takes that place. Slicing is the faster of its ways to crop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import kornia.augmentation as K
import torch

__all__ = ["Peer"]

#: Sites a call. Small batches are faster on a CPU because they stay in the caches.
AT_ONCE = 4


def _square(share: tuple[float, float]) -> tuple[float, float]:
    return share[0] ** 2, share[1] ** 2


class Peer:
    def __init__(self, work, policies: Sequence):
        self._work, self._stacks = work, torch.from_numpy(work.stacks)
        self._mean, self._std = (torch.from_numpy(a)[..., None, None] for a in (work.mean, work.std))
        self._policies = [(policy, self._augmentation(policy)) for policy in policies]

    def _augmentation(self, policy):
        steps = [K.RandomHorizontalFlip(p=policy.hflip), K.RandomVerticalFlip(p=policy.vflip)]
        if policy.affine and (policy.zoom != (1, 1) or policy.shift):
            # Each axis gets a zoom of its own, which is zoom and aspect together.
            shift, zoom = (policy.shift, policy.shift), (*policy.zoom, *policy.zoom)
            zoom = policy.zoom if policy.aspect == (1, 1) else zoom
            steps.append(K.RandomAffine(0.0, shift, zoom, p=policy.affine))
        if policy.erase:
            steps.append(K.RandomErasing(policy.erase_area, policy.erase_aspect, p=policy.erase))
        if policy.crop != (1, 1):
            area = _square(policy.crop)
            steps.append(K.RandomResizedCrop(self._work.size, area, (1.0, 1.0), p=1.0, cropping_mode="slice"))
        return K.AugmentationSequential(*steps, data_keys=["input"])

    @torch.inference_mode()
    def finish(self, sites) -> Iterator[torch.Tensor]:
        """Yield (C, H, W) float32 tensors."""
        for policy, augmentation in self._policies:
            for first in range(0, len(sites), AT_ONCE):
                some = torch.as_tensor(sites[first : first + AT_ONCE])
                factors = 1 + policy.stats_jitter * (2 * torch.rand(2, len(some), 6, 1, 1) - 1)
                stack = self._stacks[some]
                turned = torch.rand(len(some)) < policy.transpose
                stack[turned] = stack[turned].mT
                batch = torch.sub(stack, self._mean[some] * factors[0]).div_(self._std[some] * factors[1])
                yield from augmentation(batch).contiguous()
