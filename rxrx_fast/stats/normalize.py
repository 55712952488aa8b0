"""The options of a normalisation, and its formulas for the histogram of one group and channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rxrx_kernels.histogram import uint8 as moments
from rxrx_kernels.histogram.uint16 import Histogram

from rxrx_fast.errors import UsageError

__all__ = ["LEVELS", "Normalize"]

#: From coarse to fine.
LEVELS = ("global", "cell_type", "experiment", "plate", "site")
_CHOICES = {
    "level": ("none", *LEVELS),
    "center": ("mean", "median"),
    "scale": ("std", "mad", "mean_site_std"),
    "wells": ("all", "negative_control", "controls"),
    "method": ("affine", "quantile"),
}

# sigma = 1.4826 MAD for a normal distribution: 1 / (the normal's 3/4 quantile).
MAD_TO_SIGMA = 1.482602218505602


@dataclass(frozen=True)
class Normalize:
    """Standardise each channel as (x - center) / scale.

    Parameters
    ----------
    level : {"none", "global", "cell_type", "experiment", "plate", "site"}
        The group of sites whose pixels make the statistics. "site": each image's own.
    center : {"mean", "median"}
        Of the group's pixels.
    scale : {"std", "mad", "mean_site_std"}
        "std": population standard deviation (ddof=0) of the group's pixels. "mad": 1.4826 times their median absolute
        deviation from the median. "mean_site_std": mean over the group's images of each image's own standard
        deviation. A scale of 0 is replaced by 1, so a constant channel becomes 0 and not NaN.
    wells : {"all", "negative_control", "controls"}
        Wells of the group that make the statistics; must be "all" for level "site".
    min_wells : int
        A group with fewer such wells takes the statistics of the next coarser level that has enough, with a warning.
    method : {"affine", "quantile"}
        "quantile" first maps the group's histogram onto that of all such wells together, channel by channel, so that
        every group has the same distribution of grey values (Bolstad et al., Bioinformatics 2003). Center and scale
        are then those of all. Not for levels "none", "global" and "site".
    clip : (float, float)
        Percentiles of the group's pixels, 0 to 100. Grey values are clipped to them before anything else.
    illumination : bool
        Divide by each plate's illumination, a smooth field estimated from the mean of its images (see
        :meth:`rxrx_fast.PlateStats.illumination`). Its mean is 1, so statistics are those of the uncorrected pixels.

    Raises
    ------
    UsageError
        A value that is not allowed, or values that don't go together.

    Examples
    --------
    >>> rx.Normalize(level="plate", center="median", scale="mad", wells="negative_control").scale
    'mad'
    >>> dataset = rx.Dataset(root, normalize=rx.Normalize(level="experiment"))
    >>> image, label, meta = dataset[0]
    >>> tuple(image.shape)
    (6, 64, 64)
    """

    level: str = "plate"
    center: str = "mean"
    scale: str = "std"
    wells: str = "all"
    min_wells: int = 1
    method: str = "affine"
    clip: tuple[float, float] = (0.0, 100.0)
    illumination: bool = False

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"Normalize({name}={getattr(self, name)!r}): must be one of {', '.join(map(repr, choices))}"
                )
        if self.level == "site" and self.wells != "all":
            raise UsageError(f"Normalize(level='site', wells={self.wells!r}): a site has one well; leave wells='all'")
        if self.method == "quantile" and self.level in ("none", "global", "site"):
            raise UsageError(
                f"Normalize(level={self.level!r}, method='quantile'): groups are mapped onto all sites together; "
                "take cell_type, experiment or plate"
            )
        clip = self.clip
        numbers = isinstance(clip, (tuple, list)) and len(clip) == 2 and all(isinstance(v, (int, float)) for v in clip)
        if not numbers or not 0 <= clip[0] < clip[1] <= 100:
            raise UsageError(f"Normalize(clip={clip!r}): must be two percentiles in order, from 0 to 100")
        object.__setattr__(self, "clip", tuple(clip))
        if not isinstance(self.min_wells, (int, np.integer)) or self.min_wells < 1:
            raise UsageError(f"Normalize(min_wells={self.min_wells!r}): must be a whole number of at least 1")

    @classmethod
    def of(cls, normalize: str | Normalize) -> Normalize:
        """Return a normalisation given by its level's name, or as itself."""
        return normalize if isinstance(normalize, Normalize) else cls(level=normalize)

    @property
    def maps(self) -> bool:
        """Whether grey values are mapped before they are standardised."""
        return self.method == "quantile" or self.clip != (0, 100)

    def mapping(self, counts: np.ndarray | Histogram, reference: np.ndarray | Histogram | None = None) -> np.ndarray:
        """Map grey values: clip them and, for ``method="quantile"``, match the group's histogram to a reference.

        Parameters
        ----------
        counts : (..., N) int64, or Histogram
            Of the group.
        reference : (..., N) int64, or Histogram, optional
            Needed for ``method="quantile"``: the histogram that the group's is mapped onto.

        Returns
        -------
        (..., N) float64
            The values that replace the grey values in the middle of the bins; they never fall along the bins.
        """
        histogram = Histogram.of(counts)
        grey = histogram.middles()
        low, high = (histogram.quantile(percent / 100)[..., None] for percent in self.clip)
        clipped = np.clip(grey, low, high)
        if self.method != "quantile" or reference is None:
            return clipped
        target = Histogram.of(reference)
        rank = _ranks(histogram.counts, histogram.bins(clipped))
        values = target.middles()
        ranks = _ranks(target.counts, np.broadcast_to(np.arange(grey.shape[-1]), values.shape))
        rows = (np.broadcast_to(part, rank.shape).reshape(-1, grey.shape[-1]) for part in (rank, ranks, values))
        return np.stack([np.interp(*row) for row in zip(*rows)]).reshape(rank.shape)

    def statistics(
        self, counts: np.ndarray | Histogram, site_std: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute center and scale of counted pixels.

        Parameters
        ----------
        counts : (..., N) int64, or Histogram
            With a clip, mean and standard deviation are those of the bins, even where there are exact sums.
        site_std : (...) float64, optional
            Mean of the images' standard deviations, for ``scale="mean_site_std"``. By default ``counts`` are of one
            image.

        Returns
        -------
        center, scale : (...) float64
        """
        histogram = Histogram.of(counts)
        if self.clip != (0, 100):
            low, high = (moments.quantile(histogram.counts, percent / 100) for percent in self.clip)
            histogram = Histogram(_clipped(histogram.counts, low, high), histogram.shift)
        mean, std = histogram.mean_std()
        center = mean if self.center == "mean" else histogram.quantile(0.5)
        if self.scale == "mad":
            scale = MAD_TO_SIGMA * histogram.mad()
        elif self.scale == "mean_site_std" and site_std is not None:
            scale = site_std
        else:
            scale = std
        return center, np.where(scale == 0, 1.0, scale)


def _ranks(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Share of pixels below ``values``, (..., N) in bins, counting half of a bin's own pixels; strictly rising."""
    upto = counts.cumsum(-1, dtype=np.int64)
    middle = (upto - counts / 2) / np.maximum(upto[..., -1:], 1)
    # A share too small to matter, so that empty bins have ranks between those of their neighbours.
    middle = middle + np.arange(counts.shape[-1]) * 1e-12
    low = np.clip(values.astype(np.int64), 0, counts.shape[-1] - 2)
    below, above = (np.take_along_axis(middle, low + i, -1) for i in (0, 1))
    return below + (values - low) * (above - below)


def _clipped(counts: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Move the counts beyond two limits, (...) in bins, to the nearest whole bin within."""
    bins = np.arange(counts.shape[-1])
    first, last = np.ceil(low), np.floor(high)
    first, last = np.minimum(first, last)[..., None], np.maximum(first, last)[..., None]
    inside = np.where((bins >= first) & (bins <= last), counts, 0)
    below, above = (np.where(bins < first, counts, 0).sum(-1), np.where(bins > last, counts, 0).sum(-1))
    return inside + np.where(bins == first, below[..., None], 0) + np.where(bins == last, above[..., None], 0)
