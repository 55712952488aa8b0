"""What augmentation may do, and the policies that have names.

A :class:`Policy` only says what is allowed. :mod:`rxrx_fast.augment.sampled` turns (seed, epoch, site, view) into
numbers, always the same ones, and kernels apply them. So pixels do not depend on the batch, threads or devices.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from rxrx_kernels.augment.blur import MAX_SIGMA
from rxrx_kernels.augment.warp import BORDERS, FILTERS

from rxrx_fast.augment.sampled import Pairs, SampledParameters, draw, draw_pairs
from rxrx_fast.errors import UsageError

__all__ = ["BORDER_NAMES", "PRESETS", "Policy"]

#: What may lie outside of the image: black, the value that normalisation makes zero of, or what
#: :mod:`rxrx_kernels.augment.warp` knows besides a constant.
BORDER_NAMES = ("zero", "mean", *(name for name in BORDERS if name != "constant"))


@dataclass(frozen=True)
class Policy:
    """Augmentation, drawn anew for each epoch, site and view. Probabilities are 0 to 1, ranges are (low, high).

    Operations are applied in this order, whatever their order here: blur, centre crop, flips and turns, elastic and
    affine changes about the centre, crop, resizing to the data set's size, noise, gamma, normalisation (with jittered
    statistics), gain and offset, erasing, dropout and shuffling of channels, mixing of samples.

    Parameters
    ----------
    hflip, vflip : float
        Probability of a left-right, a top-bottom mirror.
    transpose : float
        Probability of exchanging rows and columns.
    rot90 : float
        Probability of a turn by 0, 90, 180 or 270 degrees, each equally likely (as albumentations' RandomRotate90).
    affine : float
        Probability that rotation, zoom, aspect and shift apply; all of them are then drawn, each uniform in its range.
    rotate : float
        Degrees; the angle is within +- this.
    zoom : (float, float)
        Magnification, 1 for none.
    aspect : (float, float)
        Width over height of what was square, at the same area.
    shift : float
        Share of the side; within +- this in x and in y, rounded to whole pixels.
    elastic : float
        Largest displacement of an elastic deformation's control points, in pixels; they are joined by cubic splines.
    elastic_grid : int
        Control points on a side, at least 4.
    elastic_p : float
    crop : (float, float)
        Side of a square random crop as a share of the image's, in whole pixels; it is resized to the output.
    center_crop : int
        Pixels on a side that are kept around the centre, before everything else that moves pixels; 0 for all.
    interpolation : {"bilinear", "nearest", "antialias"}
        "antialias" is bilinear, and smooths where an image shrinks.
    border : {"zero", "mean", "edge", "reflect"}
        What lies outside of the image: black; the value that becomes 0 by normalisation; its outermost pixels; its
        mirror image about them.
    erase : float
        Probability of a rectangle of zeros (Zhong et al., "Random erasing data augmentation", AAAI 2020). It is drawn
        before the crop, which enlarges it with the rest.
    erase_area : (float, float)
        Share of the image's area.
    erase_aspect : (float, float)
        Height over width, uniform.
    erase_noise : float
        Standard deviation of normal noise in the rectangle instead of zeros.
    stats_jitter : float
        The mean and the standard deviation that normalise a channel are each multiplied by 1 + j * u, u uniform in
        [-1, 1), one draw a sample and channel; 0 to below 1.
    gain, offset : float
        Normalised values x become a x + b by channel, a drawn from N(1, gain) and b from N(0, offset).
    gamma : float
        Grey values v become 255 (v / 255) ** g by channel, log(g) uniform within +- log(1 + gamma). Of 16-bit images,
        255 is 4095 or the first of 8191, 16383, 32767, 65535 that no counted pixel passes (65535 if none is counted).
    channel_dropout : float
        Probability of each channel to become zero; one that was drawn at random is always kept.
    channel_shuffle : float
        Probability that the channels are permuted; each takes its statistics along.
    blur : (float, float)
        Standard deviation of a Gaussian in pixels, at most 16.
    blur_p : float
    noise : (float, float)
        Standard deviation of Gaussian noise in grey values.
    shot : (float, float)
        Variance of shot noise for each grey value: the reciprocal of the photons a grey value.
    noise_p : float
        Probability of noise, of both kinds together.
    cutmix, mixup : float
        alpha of the Beta(alpha, alpha) distribution that the shares of mixed samples come from (Yun et al., "CutMix",
        ICCV 2019; Zhang et al., "mixup", ICLR 2018); 0 for none. If both are given, each is as likely. Neighbours in
        the batch are mixed, and labels become (B, classes) float32. Only in :class:`rx.DataLoader`.
    mix : float
        Probability that a pair is mixed.
    """

    hflip: float = 0.0
    vflip: float = 0.0
    transpose: float = 0.0
    rot90: float = 0.0
    affine: float = 1.0
    rotate: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    aspect: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    elastic: float = 0.0
    elastic_grid: int = 7
    elastic_p: float = 1.0
    crop: tuple[float, float] = (1.0, 1.0)
    center_crop: int = 0
    interpolation: str = "bilinear"
    border: str = "zero"
    erase: float = 0.0
    erase_area: tuple[float, float] = (0.02, 0.4)
    erase_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    erase_noise: float = 0.0
    stats_jitter: float = 0.0
    gain: float = 0.0
    offset: float = 0.0
    gamma: float = 0.0
    channel_dropout: float = 0.0
    channel_shuffle: float = 0.0
    blur: tuple[float, float] = (0.0, 0.0)
    blur_p: float = 1.0
    noise: tuple[float, float] = (0.0, 0.0)
    shot: tuple[float, float] = (0.0, 0.0)
    noise_p: float = 1.0
    cutmix: float = 0.0
    mixup: float = 0.0
    mix: float = 1.0

    def __post_init__(self):
        for field in fields(self):
            name, value, rule = field.name, getattr(self, field.name), _RULES[field.name]
            if isinstance(rule, tuple) and isinstance(rule[0], str):
                if value not in rule:
                    raise UsageError(f"Policy({name}={value!r}): must be one of {', '.join(map(repr, rule))}")
                continue
            low, high, words = rule
            if isinstance(field.default, tuple):
                numbers = value if isinstance(value, (tuple, list)) and len(value) == 2 else ("not a range",)
            else:
                numbers = (value,)
            good = all(isinstance(v, (int, float, np.number)) and not isinstance(v, bool) for v in numbers)
            if not good or not low <= min(numbers) <= max(numbers) <= high or numbers[0] > numbers[-1]:
                kind = "two numbers in order," if isinstance(field.default, tuple) else "a number"
                raise UsageError(f"Policy({name}={value!r}): must be {kind} {words}")
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
            if isinstance(field.default, int) and int(value) != value:
                raise UsageError(f"Policy({name}={value!r}): must be a whole number")
        if self.stats_jitter >= 1:
            raise UsageError(
                f"Policy(stats_jitter={self.stats_jitter!r}): must be below 1, or a deviation could become 0"
            )

    @classmethod
    def of(cls, policy: str | Policy) -> Policy:
        """Return a policy by its preset's name, or itself."""
        if isinstance(policy, Policy):
            return policy
        if policy not in PRESETS:
            raise UsageError(f"augment={policy!r}: must be one of {', '.join(map(repr, PRESETS))} or an rx.Policy(...)")
        return PRESETS[policy]

    @property
    def transposes(self) -> bool:
        """Whether rows and columns can be exchanged, which needs square images."""
        return self.transpose > 0 or self.rot90 > 0

    @property
    def only_turns(self) -> bool:
        """Whether pixels are only turned, flipped and scaled, which the simplest kernel does."""
        kept = ("hflip", "vflip", "transpose", "rot90", "stats_jitter", "gain", "offset", "cutmix", "mixup", "mix")
        return self == Policy(**{name: getattr(self, name) for name in kept})

    @property
    def mixes(self) -> bool:
        """Whether samples of a batch are mixed."""
        return self.mix > 0 and (self.cutmix > 0 or self.mixup > 0)

    @property
    def moves(self) -> bool:
        """Whether pixels are turned by any angle, zoomed or shifted."""
        still = self.rotate == self.shift == 0 and self.zoom == self.aspect == (1, 1)
        return self.affine > 0 and not still

    def draw(self, seed: int, epoch: int, sites: np.ndarray, view: int, channels: int) -> SampledParameters:
        """Draw the parameters of one view.

        Parameters
        ----------
        seed, epoch, view : int
        sites : (B,) int64
            The sites' labels in the catalog (``site_index``), which filtering keeps.
        channels : int
            C, of the output.
        """
        return draw(self, seed, epoch, sites, view, channels)

    def draw_pairs(self, seed: int, epoch: int, sites: np.ndarray, view: int) -> Pairs:
        """Draw how pairs are mixed, keyed by the first site of each: (P,) int64."""
        return draw_pairs(self, seed, epoch, sites, view)


_SHARE = (0, 1, "from 0 to 1")
_RULES = {
    **dict.fromkeys(["hflip", "vflip", "transpose", "rot90", "affine", "elastic_p", "erase", "stats_jitter"], _SHARE),
    **dict.fromkeys(["channel_dropout", "channel_shuffle", "blur_p", "noise_p", "mix", "shift"], _SHARE),
    "rotate": (0, 180, "of degrees from 0 to 180"),
    "zoom": (0.05, 20, "from 0.05 to 20"),
    "aspect": (0.1, 10, "from 0.1 to 10"),
    "elastic": (0, 1000, "of pixels from 0 to 1000"),
    "elastic_grid": (4, 64, "from 4 to 64"),
    "crop": (0.01, 1, "from 0.01 to 1"),
    "center_crop": (0, 65535, "of pixels from 0 to 65535"),
    "interpolation": tuple(FILTERS),
    "border": BORDER_NAMES,
    "erase_area": (0, 1, "from 0 to 1"),
    "erase_aspect": (0.01, 100, "from 0.01 to 100"),
    "erase_noise": (0, 100, "from 0 to 100"),
    "gain": (0, 1, "from 0 to 1"),
    "offset": (0, 100, "from 0 to 100"),
    "gamma": (0, 10, "from 0 to 10"),
    "blur": (0, MAX_SIGMA, f"of pixels from 0 to {MAX_SIGMA:.0f}"),
    "noise": (0, 65535, "from 0 to 65535"),
    "shot": (0, 255, "from 0 to 255"),
    "cutmix": (0, 100, "from 0 to 100"),
    "mixup": (0, 100, "from 0 to 100"),
}

# DeepNoise, 2nd place of the RxRx1 competition, process/augmentation.py and data.py of the authors' code: flips and a
# quarter turn with probability 1/2 each make every turn and flip equally likely; then, with probability 1/2, zoom and
# aspect within 10% and a shift by whole pixels within 10%, zeros of the normalised image outside. (At angle 0 their
# formula zooms both axes alike, by zoom * sqrt(aspect); here aspect is what its name says.)
_EASY = Policy(
    hflip=0.5, vflip=0.5, transpose=0.5, stats_jitter=0.1, affine=0.5, zoom=(0.9, 1.1), aspect=(0.9, 1.1), shift=0.1,
    border="mean",
)  # fmt: skip
# random_erasing(probability=0.5, sl=0.02, sh=0.4, r1=0.3): area and height over width uniform, filled with 0.
_NORMAL = replace(_EASY, erase=0.5, erase_area=(0.02, 0.4), erase_aspect=(0.3, 1 / 0.3))
# random_cropping with a ratio uniform in 0.8 to 0.99, after the erasing, resized bilinearly.
_HARD = replace(_NORMAL, crop=(0.8, 0.99))

#: Policies by name.
PRESETS = {
    "none": Policy(),
    # WILDS, examples/transforms.py, initialize_rxrx1_transform: a turn by a random multiple of 90 degrees and a
    # horizontal flip; standardise with normalize="site", as it does.
    "wilds": Policy(hflip=0.5, rot90=1.0),
    "deepnoise-easy": _EASY,
    "deepnoise-normal": _NORMAL,
    "deepnoise-hard": _HARD,
    # 1st place (Sypetkowski, kaggle-rcic-1st, dataset.py): flips and transposition, a square crop of 0.5 to 1 of the
    # side resized to the nearest pixel, gain N(1, 0.1) and offset N(0, 0.1) of each normalised channel, CutMix with
    # alpha 1. Standardise with normalize="site", as it does.
    "rcic-first-place": Policy(
        hflip=0.5, vflip=0.5, transpose=0.5, crop=(0.5, 1.0), interpolation="nearest", gain=0.1, offset=0.1, cutmix=1.0
    ),
}
