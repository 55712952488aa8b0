"""From an embedding to logits."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.functional import linear, normalize

__all__ = ["ArcFace", "Classifier", "Linear"]


class Linear(nn.Linear):
    """A linear head; takes labels and leaves them alone."""

    def forward(self, embedding: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """(B, features) to (B, classes)."""
        return super().forward(embedding)


class ArcFace(nn.Module):
    """Additive angular margin (Deng et al., CVPR 2019): ``scale * cos(angle + margin)`` for the right class.

    With DeepNoise's scale 30 and margin 0.1 (--arc_s, --arc_m of its main.py). Where the angle is within the margin of
    half a turn, so that adding it would turn back, the cosine falls on linearly, as in the authors' code (archead.py).

    Parameters
    ----------
    features, classes : int
    scale, margin : float
        The margin in radian.
    """

    def __init__(self, features: int, classes: int, scale: float = 30.0, margin: float = 0.1):
        super().__init__()
        self.scale, self.margin = scale, margin
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(classes, features)))

    def forward(self, embedding: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """(B, features) to (B, classes); the margin applies only where labels, (B,) int64, are given and not -1."""
        # Near an angle of 0 the sine's slope is infinite: half precision would make NaN of it.
        with torch.autocast(embedding.device.type, enabled=False):
            cosine = linear(normalize(embedding.float()), normalize(self.weight.float())).clamp(-1, 1)
            if labels is None:
                return self.scale * cosine
            sine = (1 - cosine * cosine).clamp_min(1e-12).sqrt()
            harder = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
            beyond = cosine <= math.cos(math.pi - self.margin)
            harder = torch.where(beyond, cosine - self.margin * math.sin(math.pi - self.margin), harder)
            right = torch.zeros_like(cosine, dtype=torch.bool)
            known = (labels >= 0).nonzero().squeeze(1)
            right[known, labels[known]] = True
            return self.scale * torch.where(right, harder, cosine)


class Classifier(nn.Module):
    """A backbone and a head: images to (logits, embedding)."""

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, H, W) to (B, classes) and (B, features); labels are for heads with a margin."""
        embedding = self.backbone(images)
        return self.head(embedding, labels), embedding
