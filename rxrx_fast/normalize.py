"""Which statistics normalise a channel, and how they follow from its histogram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rxrx_kernels import moments

from rxrx_fast.errors import UsageError

__all__ = ["LEVELS", "Normalize"]

#: From coarse to fine.
LEVELS = ("global", "cell_type", "experiment", "plate", "site")
_CHOICES = {
    "level": ("none", *LEVELS),
    "center": ("mean", "median"),
    "scale": ("std", "mad", "mean_site_std"),
    "wells": ("all", "negative_control", "controls"),
}

# sigma = 1.4826 MAD for a normal distribution: 1 / (the normal's 3/4 quantile).
MAD_TO_SIGMA = 1.482602218505602


@dataclass(frozen=True)
class Normalize:
    """Standardise each channel as (x - center) / scale.

    Parameters
    ----------
    level : {"none", "global", "cell_type", "experiment", "plate", "site"}
        The group of sites whose pixels make the statistics. "site" takes each image's own.
    center : {"mean", "median"}
    scale : {"std", "mad", "mean_site_std"}
        Population standard deviation (ddof=0) of the group's pixels; 1.4826 times their median absolute deviation
        from the median; the mean over the group's images of each image's own standard deviation. A scale of 0 is
        taken as 1, so a constant channel becomes 0 and not NaN.
    wells : {"all", "negative_control", "controls"}
        Which wells of the group the statistics are taken from; not for level "site".
    """

    level: str = "plate"
    center: str = "mean"
    scale: str = "std"
    wells: str = "all"

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"Normalize({name}={getattr(self, name)!r}): must be one of {', '.join(map(repr, choices))}"
                )
        if self.level == "site" and self.wells != "all":
            raise UsageError(f"Normalize(level='site', wells={self.wells!r}): a site has one well; leave wells='all'")

    @classmethod
    def of(cls, normalize: str | Normalize) -> Normalize:
        """A normalisation by its level's name, or itself."""
        return normalize if isinstance(normalize, Normalize) else cls(level=normalize)

    def statistics(self, counts: np.ndarray, site_std: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Center and scale of counted pixels.

        Parameters
        ----------
        counts : (..., 256) int64
        site_std : (...) float64, optional
            Mean of the images' standard deviations, for ``scale="mean_site_std"``; by default the counts are those
            of one image.

        Returns
        -------
        center, scale : (...) float64
        """
        mean, std = moments.mean_std(counts)
        center = mean if self.center == "mean" else moments.quantile(counts, 0.5)
        if self.scale == "mad":
            scale = MAD_TO_SIGMA * moments.mad(counts)
        elif self.scale == "mean_site_std" and site_std is not None:
            scale = site_std
        else:
            scale = std
        return center, np.where(scale == 0, 1.0, scale)
