"""AlbumentationsX, the maintained successor of albumentations, on channels-last images, one site at a time.

Flips and the transposition are made of uint8, a quarter of the bytes. The affine change and the crop are made either
of uint8, with the plate's mean outside of the image, or after standardisation, with exact zeros. Standardisation is
albucore's, whose table makes one pass of it. The successor has its predecessor's import name; the last release of
that one, 2.0.8, fails where six channels are filled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

# Without this its import asks the network for newer versions.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albucore
import albumentations as A
import cv2
import numpy as np
import torch

__all__ = ["Peer"]


class Peer:
    def __init__(self, work, policies: Sequence, early: bool):
        cv2.setNumThreads(1)
        self._work, self._early, self._policies, self._made = work, early, policies, {}
        self._images = np.ascontiguousarray(work.stacks.transpose(0, 2, 3, 1))
        self._rng = np.random.default_rng(0)

    def _steps(self, policy, site: int) -> tuple:
        """Return the transforms before and after standardisation, one set a plate (its mean fills the border)."""
        fill = 0.0 if self._early else tuple(map(float, np.rint(self._work.mean[site])))
        key = policy, fill
        if key not in self._made:
            flips = [A.HorizontalFlip(policy.hflip), A.VerticalFlip(policy.vflip), A.Transpose(policy.transpose)]
            if policy.hflip == policy.vflip == policy.transpose == 0.5:
                # D4 gives the same eight images with equal probability in one step instead of three.
                flips = [A.D4(p=1.0)]
            affine, erase, crop = [], [], []
            if policy.affine and (policy.zoom != (1, 1) or policy.shift):
                one = policy.aspect == (1, 1)
                zoom, shift = {"x": policy.zoom, "y": policy.zoom}, (-policy.shift, policy.shift)
                # Each axis gets a zoom of its own, which is zoom and aspect together.
                moved = A.Affine(zoom, {"x": shift, "y": shift}, fill=fill, keep_ratio=one, p=policy.affine)
                affine.append(moved)
            if policy.erase:
                erase.append(A.Erasing(policy.erase_area, policy.erase_aspect, fill=0.0, p=policy.erase))
            if policy.crop != (1, 1):
                sides = tuple(int(share * self._work.size[0]) for share in policy.crop)
                crop.append(A.RandomSizedCrop(sides, self._work.size))
            # Erasing acts on standardised values, so it follows a crop of uint8.
            order = (flips, [*affine, *erase, *crop]) if self._early else ([*flips, *affine, *crop], erase)
            self._made[key] = tuple(A.Compose(steps) for steps in order)
        return self._made[key]

    def finish(self, sites) -> Iterator[torch.Tensor]:
        """Yield (C, H, W) float32 tensors."""
        for policy in self._policies:
            for site in sites:
                before, after = self._steps(policy, site)
                factors = (1 + policy.stats_jitter * self._rng.uniform(-1, 1, (2, 6))).astype(np.float32)
                mean, std = self._work.mean[site] * factors[0], self._work.std[site] * factors[1]
                image = before(image=self._images[site])["image"]
                image = after(image=albucore.normalize(image, mean, 1 / std))["image"]
                yield torch.from_numpy(image.transpose(2, 0, 1)).contiguous()
