"""What augmentation may do, and the draw of one row of parameters a sample and view.

A :class:`Policy` only says what is allowed. :meth:`Policy.draw` turns (seed, epoch, site, view) into numbers, always
the same ones; kernels apply them. So pixels do not depend on the batch that a site is in, nor on threads or devices.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from rxrx_kernels.blur import MAX_SIGMA
from rxrx_kernels.fused import TURNS, compose
from rxrx_kernels.warp import BORDERS, FILTERS
from scipy.special import betaincinv, ndtri

from rxrx_fast.errors import UsageError
from rxrx_fast.keyed import fold, uniform

__all__ = ["BORDER_NAMES", "PRESETS", "Draws", "Pairs", "Policy"]

# compose() over all pairs, so that a batch of draws is combined by indexing.
_COMPOSE = np.array([[compose(first, second) for second in range(8)] for first in range(8)], np.uint8)
_TURNS = np.array(TURNS, np.uint8)

# Each kind of draw has a number of its own in the key, so that adding a kind leaves the others as they were.
_HFLIP, _VFLIP, _ROT90, _TURN, _MEAN, _STD, _TRANSPOSE, _AFFINE, _ANGLE, _ZOOM, _ASPECT, _SHIFT, _CROP = range(13)
_ERASE, _ERASED, _GAIN, _OFFSET, _GAMMA, _DROP, _DROPPED, _SHUFFLE, _SHUFFLED, _BLUR, _SIGMA = range(13, 24)
_NOISE, _READ, _SHOT, _KEY, _ELASTIC, _BEND, _MIX, _WHICH, _LAMBDA, _PLACE = range(24, 34)

# How often a rectangle is drawn again that does not fit into the image.
_ATTEMPTS = 16
# A channel's gain never turns its picture into a negative.
_LEAST_GAIN = 0.01

#: What may lie outside of the image: black, the value that normalisation makes zero of, or what
#: :mod:`rxrx_kernels.warp` knows besides a constant.
BORDER_NAMES = ("zero", "mean", *(name for name in BORDERS if name != "constant"))


class Draws(NamedTuple):
    """Parameters of one view of a batch; None for what the policy leaves out.

    codes : (B,) uint8
        Turns and flips, see :mod:`rxrx_kernels.fused`.
    mean_factor, std_factor : (B, C) float64
        What the statistics are multiplied by before they normalise.
    affine : (B, 5) float64
    crop : (B, 3) float64
    erased : (B, 4) float64
        See :mod:`rxrx_fast.geometry`.
    gain, offset : (B, C) float64
        Of normalised values.
    gamma : (B, C) float64
        Exponents.
    order : (B, C) int64
        Channel that each channel shows; -1 for none.
    blur : (B,) float64
        Standard deviation in pixels; 0 for none.
    noise : (B, 2) float64
        Standard deviation of read noise, and variance of shot noise a grey value, in grey values.
    key : (B,) uint64
        Of the noise.
    bend : (B, 2, G, G) float64
        Displacements in x and in y of an elastic deformation's control points, in pixels.
    """

    codes: np.ndarray
    mean_factor: np.ndarray
    std_factor: np.ndarray
    affine: np.ndarray | None = None
    crop: np.ndarray | None = None
    erased: np.ndarray | None = None
    gain: np.ndarray | None = None
    offset: np.ndarray | None = None
    gamma: np.ndarray | None = None
    order: np.ndarray | None = None
    blur: np.ndarray | None = None
    noise: np.ndarray | None = None
    key: np.ndarray | None = None
    bend: np.ndarray | None = None


class Pairs(NamedTuple):
    """How the samples 2 i and 2 i + 1 of a batch are mixed; (P,) each.

    share : float64
        What each keeps of itself, and of its label; 1 where the pair is left alone.
    cut : bool
        CutMix, which exchanges a rectangle; else MixUp, which blends.
    place : (P, 2) float64
        The rectangle's middle, as shares of height and width.
    """

    share: np.ndarray
    cut: np.ndarray
    place: np.ndarray


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
        """A policy by its preset's name, or itself."""
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
    def _moves(self) -> bool:
        still = self.rotate == self.shift == 0 and self.zoom == self.aspect == (1, 1)
        return self.affine > 0 and not still

    def draw(self, seed: int, epoch: int, sites: np.ndarray, view: int, channels: int) -> Draws:
        """Draw the parameters of one view.

        Parameters
        ----------
        seed, epoch, view : int
        sites : (B,) int64
            The sites' labels in the catalog (``site_index``), which filtering keeps.
        channels : int
            C, of the output.
        """
        sites = np.asarray(sites, np.int64)
        count = len(sites)

        def chance(kind, *more):
            """(B, ...) numbers in [0, 1), one for each of the further keys."""
            one = sites.reshape(-1, *[1] * len(more))
            return uniform(seed, epoch, one, view, kind, *np.ix_(*(np.arange(n) for n in more)))

        def between(limits, u):
            return limits[0] + (limits[1] - limits[0]) * u

        codes = np.zeros(count, np.uint8)
        codes[chance(_HFLIP) < self.hflip] = 1
        codes ^= np.where(chance(_VFLIP) < self.vflip, 2, 0).astype(np.uint8)
        if self.transpose:
            codes = _COMPOSE[codes, np.where(chance(_TRANSPOSE) < self.transpose, 4, 0)]
        if self.rot90:
            turns = np.where(chance(_ROT90) < self.rot90, (4 * chance(_TURN)).astype(np.int64), 0)
            codes = _COMPOSE[codes, _TURNS[turns]]
        factors = []
        for kind in (_MEAN, _STD):
            if self.stats_jitter:
                factors.append(1 + self.stats_jitter * (2 * chance(kind, channels) - 1))
            else:
                factors.append(np.ones((count, channels)))
        found = {}
        if self._moves:
            zoom, aspect = between(self.zoom, chance(_ZOOM)), np.sqrt(between(self.aspect, chance(_ASPECT)))
            angle = np.deg2rad(self.rotate * (2 * chance(_ANGLE) - 1))
            shift = self.shift * (2 * chance(_SHIFT, 2) - 1)
            moved = np.column_stack([angle, zoom * aspect, zoom / aspect, shift])
            found["affine"] = np.where(chance(_AFFINE)[:, None] < self.affine, moved, [0.0, 1.0, 1.0, 0.0, 0.0])
        if self.crop != (1, 1):
            found["crop"] = chance(_CROP, 3)
            found["crop"][:, 0] = between(self.crop, found["crop"][:, 0])
        if self.erase:
            found["erased"] = self._erased(chance)
        if self.gain:
            found["gain"] = np.maximum(1 + self.gain * _normal(chance(_GAIN, channels)), _LEAST_GAIN)
        if self.offset:
            found["offset"] = self.offset * _normal(chance(_OFFSET, channels))
        if self.gamma:
            found["gamma"] = np.exp(np.log1p(self.gamma) * (2 * chance(_GAMMA, channels) - 1))
        if self.channel_shuffle or self.channel_dropout:
            order = np.tile(np.arange(channels), (count, 1))
            shuffled = np.argsort(chance(_SHUFFLED, channels), axis=1, kind="stable")
            order = np.where(chance(_SHUFFLE)[:, None] < self.channel_shuffle, shuffled, order)
            dropped = chance(_DROP, channels) < self.channel_dropout
            dropped[np.arange(count), (chance(_DROPPED) * channels).astype(np.int64)] = False
            found["order"] = np.where(dropped, -1, order)
        if self.blur[1] > 0 and self.blur_p:
            found["blur"] = np.where(chance(_BLUR) < self.blur_p, between(self.blur, chance(_SIGMA)), 0.0)
        if max(self.noise[1], self.shot[1]) > 0 and self.noise_p:
            levels = np.column_stack([between(self.noise, chance(_READ)), between(self.shot, chance(_SHOT))])
            found["noise"] = np.where(chance(_NOISE)[:, None] < self.noise_p, levels, 0.0)
        if "noise" in found or self.erase_noise:
            found["key"] = fold(seed, epoch, sites, view, _KEY)
        if self.elastic and self.elastic_p:
            bend = self.elastic * (2 * chance(_BEND, 2, self.elastic_grid, self.elastic_grid) - 1)
            found["bend"] = np.where(chance(_ELASTIC)[:, None, None, None] < self.elastic_p, bend, 0.0)
        return Draws(codes, *factors, **found)

    def _erased(self, chance) -> np.ndarray:
        """(B, 4): height, width and place of the erased rectangles."""
        (low, high), (wide, tall) = self.erase_area, self.erase_aspect
        attempts, place = chance(_ERASED, _ATTEMPTS, 2), chance(_ERASE, 3)
        area = low + (high - low) * attempts[..., 0]
        aspect = wide + (tall - wide) * attempts[..., 1]
        sides = np.stack([np.sqrt(area * aspect), np.sqrt(area / aspect)], axis=-1)
        fits = (sides < 1).all(-1)
        first = fits.argmax(1)
        chosen = sides[np.arange(len(sides)), first]
        wanted = fits.any(1) & (place[:, 0] < self.erase)
        return np.column_stack([np.where(wanted[:, None], chosen, 0.0), place[:, 1:]])

    def draw_pairs(self, seed: int, epoch: int, sites: np.ndarray, view: int) -> Pairs:
        """Draw how pairs are mixed, keyed by the first site of each: (P,) int64."""
        sites = np.asarray(sites, np.int64)

        def chance(kind, *more):
            return uniform(seed, epoch, sites.reshape(-1, *[1] * len(more)), view, kind, *map(np.arange, more))

        both = self.cutmix > 0 and self.mixup > 0
        cut = chance(_WHICH) < 0.5 if both else np.full(len(sites), self.cutmix > 0)
        u = chance(_LAMBDA)
        share = np.ones(len(sites))
        for alpha, chosen in ((self.cutmix, cut), (self.mixup, ~cut)):
            if alpha > 0:
                share[chosen] = betaincinv(alpha, alpha, u[chosen])
        share[chance(_MIX) >= self.mix] = 1.0
        return Pairs(share, cut, chance(_PLACE, 2))


def _normal(u: np.ndarray) -> np.ndarray:
    """Standard normal numbers from uniform ones in [0, 1)."""
    # Away from 0, whose quantile is infinite, by half of a draw's last bit.
    return ndtri(u + 2.0**-54)


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
    ),  # fmt: skip
}
