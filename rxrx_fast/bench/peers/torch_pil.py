"""torch's DataLoader, files read by Pillow."""

from __future__ import annotations

import numpy as np
from PIL import Image

from rxrx_fast.bench.peers.torch_loader import PlateImages, TorchLoader
from rxrx_fast.bench.work import Work

__all__ = ["Peer"]


def _read(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


class Peer(TorchLoader):
    name = "torch DataLoader + PIL"

    def __init__(self, work: Work):
        super().__init__(work, PlateImages(work, _read))
