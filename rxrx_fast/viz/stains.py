"""The stains of RxRx1's channels, their colours, and the colour composite of a stack."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["BLACK", "FULL", "STAINS", "Stain", "composite", "display_color"]


class Stain(NamedTuple):
    """What a channel shows, and its colour in a composite."""

    short: str
    title: str
    rgb: tuple[int, int, int]


#: Channels 1 to 6. The colours are those of the official utilities (rxrx1-utils, ``convert_tensor_to_rgb``).
STAINS = (
    Stain("nuclei", "nuclei (Hoechst)", (19, 0, 249)),
    Stain("ER", "endoplasmic reticulum (ConA)", (42, 255, 31)),
    Stain("actin", "actin (phalloidin)", (255, 0, 25)),
    Stain("nucleoli", "nucleoli and RNA (SYTO 14)", (45, 255, 252)),
    Stain("mito", "mitochondria (MitoTracker)", (250, 0, 253)),
    Stain("Golgi", "Golgi and membrane (WGA)", (254, 255, 40)),
)

#: Percentiles of the pixels that are drawn black and in full colour: a few hot pixels must not
#: darken all others.
BLACK, FULL = 1.0, 99.7

# (3, C): a composite is this matrix times the channels, each scaled to 0 to 1, and cut at 1.
_WEIGHTS = np.array([stain.rgb for stain in STAINS]).T / 255

# The official composite has fixed ranges, in which most plates are dark. Here ranges follow the image, and six channels
# in full colour would add up to white. So the weights of all channels together are those of 2.6 channels.
_TOTAL_WEIGHT = 2.6


def composite(planes: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Add up the channels of a stack in their colours.

    Parameters
    ----------
    planes : (C, H, W) ndarray
        Channels 1 to C, C at most 6.
    low, high : (C,)
        Pixel values that are drawn black and in full colour.

    Returns
    -------
    (H, W, 3) float32, 0 to 1
    """
    black, full = (np.asarray(bound, np.float32)[:, None, None] for bound in (low, high))
    scaled = np.clip((planes - black) / np.maximum(full - black, 1e-6), 0, 1)
    weights = _WEIGHTS[:, : len(planes)] * min(1.0, _TOTAL_WEIGHT / len(planes))
    return np.clip(np.tensordot(scaled, weights, axes=(0, 1)), 0, 1).astype(np.float32)


def display_color(channel: int) -> np.ndarray:
    """Return the colour of one channel drawn alone, (3,) float64; channels count from 0.

    Pure blue and red hide detail on black, so all colours are lightened by a quarter.
    """
    color = np.array(STAINS[channel].rgb) / 255
    return color + (1 - color) * 0.25
