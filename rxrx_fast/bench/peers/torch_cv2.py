"""torch's DataLoader, files read by OpenCV."""

from __future__ import annotations

import cv2
import numpy as np

from rxrx_fast.bench.peers.torch_loader import PlateImages, TorchLoader
from rxrx_fast.bench.work import Work

__all__ = ["Peer"]


def _read(path: str) -> np.ndarray:
    return cv2.imread(path, cv2.IMREAD_GRAYSCALE)


class Peer(TorchLoader):
    name = "torch DataLoader + cv2"

    def __init__(self, work: Work):
        # One thread a worker process, or OpenCV's own threads would fight over the cores.
        cv2.setNumThreads(0)
        super().__init__(work, PlateImages(work, _read))
