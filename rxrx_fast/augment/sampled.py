"""Sampled parameters of augmentation: numbers that follow from a policy and the key (seed, epoch, site, view)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from rxrx_kernels.orient.site import ROT90, compose
from scipy.special import betaincinv, ndtri

from rxrx_fast.runtime.counter_rng import fold, uniform

__all__ = ["Pairs", "SampledParameters", "draw", "draw_pairs"]

# compose() over all pairs, so that a batch of draws is combined by indexing.
_COMPOSE = np.array([[compose(first, second) for second in range(8)] for first in range(8)], np.uint8)
_TURNS = np.array(ROT90, np.uint8)

# Each kind of draw has a number of its own in the key, so that adding a kind leaves the others as they were.
_HFLIP, _VFLIP, _ROT90, _TURN, _MEAN, _STD, _TRANSPOSE, _AFFINE, _ANGLE, _ZOOM, _ASPECT, _SHIFT, _CROP = range(13)
_ERASE, _ERASED, _GAIN, _OFFSET, _GAMMA, _DROP, _DROPPED, _SHUFFLE, _SHUFFLED, _BLUR, _SIGMA = range(13, 24)
_NOISE, _READ, _SHOT, _KEY, _ELASTIC, _DISPLACEMENT, _MIX, _WHICH, _LAMBDA, _PLACE = range(24, 34)

# How often a rectangle is drawn again that does not fit into the image.
_ATTEMPTS = 16
# A channel's gain never turns its picture into a negative.
_LEAST_GAIN = 0.01


class SampledParameters(NamedTuple):
    """Parameters of one view of a batch; None for what the policy leaves out.

    codes : (B,) uint8
        Turns and flips, see :mod:`rxrx_kernels.orient.site`.
    mean_factor, std_factor : (B, C) float64
        What the statistics are multiplied by before they normalise.
    affine : (B, 5) float64
    crop : (B, 3) float64
    erased : (B, 4) float64
        See :mod:`rxrx_fast.augment.geometry`.
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
    displacement : (B, 2, G, G) float64
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
    displacement: np.ndarray | None = None


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


def draw(policy, seed: int, epoch: int, sites: np.ndarray, view: int, channels: int) -> SampledParameters:
    """See :meth:`rxrx_fast.Policy.draw`."""
    sites = np.asarray(sites, np.int64)
    count = len(sites)

    def chance(kind, *more):
        """(B, ...) numbers in [0, 1), one for each of the further keys."""
        one = sites.reshape(-1, *[1] * len(more))
        return uniform(seed, epoch, one, view, kind, *np.ix_(*(np.arange(n) for n in more)))

    def between(limits, u):
        return limits[0] + (limits[1] - limits[0]) * u

    codes = np.zeros(count, np.uint8)
    codes[chance(_HFLIP) < policy.hflip] = 1
    codes ^= np.where(chance(_VFLIP) < policy.vflip, 2, 0).astype(np.uint8)
    if policy.transpose:
        codes = _COMPOSE[codes, np.where(chance(_TRANSPOSE) < policy.transpose, 4, 0)]
    if policy.rot90:
        turns = np.where(chance(_ROT90) < policy.rot90, (4 * chance(_TURN)).astype(np.int64), 0)
        codes = _COMPOSE[codes, _TURNS[turns]]
    factors = []
    for kind in (_MEAN, _STD):
        if policy.stats_jitter:
            factors.append(1 + policy.stats_jitter * (2 * chance(kind, channels) - 1))
        else:
            factors.append(np.ones((count, channels)))
    found = {}
    if policy.moves:
        zoom, aspect = between(policy.zoom, chance(_ZOOM)), np.sqrt(between(policy.aspect, chance(_ASPECT)))
        angle = np.deg2rad(policy.rotate * (2 * chance(_ANGLE) - 1))
        shift = policy.shift * (2 * chance(_SHIFT, 2) - 1)
        moved = np.column_stack([angle, zoom * aspect, zoom / aspect, shift])
        found["affine"] = np.where(chance(_AFFINE)[:, None] < policy.affine, moved, [0.0, 1.0, 1.0, 0.0, 0.0])
    if policy.crop != (1, 1):
        found["crop"] = chance(_CROP, 3)
        found["crop"][:, 0] = between(policy.crop, found["crop"][:, 0])
    if policy.erase:
        found["erased"] = _erased(policy, chance)
    if policy.gain:
        found["gain"] = np.maximum(1 + policy.gain * _normal(chance(_GAIN, channels)), _LEAST_GAIN)
    if policy.offset:
        found["offset"] = policy.offset * _normal(chance(_OFFSET, channels))
    if policy.gamma:
        found["gamma"] = np.exp(np.log1p(policy.gamma) * (2 * chance(_GAMMA, channels) - 1))
    if policy.channel_shuffle or policy.channel_dropout:
        order = np.tile(np.arange(channels), (count, 1))
        shuffled = np.argsort(chance(_SHUFFLED, channels), axis=1, kind="stable")
        order = np.where(chance(_SHUFFLE)[:, None] < policy.channel_shuffle, shuffled, order)
        dropped = chance(_DROP, channels) < policy.channel_dropout
        dropped[np.arange(count), (chance(_DROPPED) * channels).astype(np.int64)] = False
        found["order"] = np.where(dropped, -1, order)
    if policy.blur[1] > 0 and policy.blur_p:
        found["blur"] = np.where(chance(_BLUR) < policy.blur_p, between(policy.blur, chance(_SIGMA)), 0.0)
    if max(policy.noise[1], policy.shot[1]) > 0 and policy.noise_p:
        levels = np.column_stack([between(policy.noise, chance(_READ)), between(policy.shot, chance(_SHOT))])
        found["noise"] = np.where(chance(_NOISE)[:, None] < policy.noise_p, levels, 0.0)
    if "noise" in found or policy.erase_noise:
        found["key"] = fold(seed, epoch, sites, view, _KEY)
    if policy.elastic and policy.elastic_p:
        displacement = policy.elastic * (2 * chance(_DISPLACEMENT, 2, policy.elastic_grid, policy.elastic_grid) - 1)
        found["displacement"] = np.where(chance(_ELASTIC)[:, None, None, None] < policy.elastic_p, displacement, 0.0)
    return SampledParameters(codes, *factors, **found)


def _erased(policy, chance) -> np.ndarray:
    """(B, 4): height, width and place of the erased rectangles."""
    (low, high), (wide, tall) = policy.erase_area, policy.erase_aspect
    attempts, place = chance(_ERASED, _ATTEMPTS, 2), chance(_ERASE, 3)
    area = low + (high - low) * attempts[..., 0]
    aspect = wide + (tall - wide) * attempts[..., 1]
    sides = np.stack([np.sqrt(area * aspect), np.sqrt(area / aspect)], axis=-1)
    fits = (sides < 1).all(-1)
    first = fits.argmax(1)
    chosen = sides[np.arange(len(sides)), first]
    wanted = fits.any(1) & (place[:, 0] < policy.erase)
    return np.column_stack([np.where(wanted[:, None], chosen, 0.0), place[:, 1:]])


def draw_pairs(policy, seed: int, epoch: int, sites: np.ndarray, view: int) -> Pairs:
    """See :meth:`rxrx_fast.Policy.draw_pairs`."""
    sites = np.asarray(sites, np.int64)

    def chance(kind, *more):
        return uniform(seed, epoch, sites.reshape(-1, *[1] * len(more)), view, kind, *map(np.arange, more))

    both = policy.cutmix > 0 and policy.mixup > 0
    cut = chance(_WHICH) < 0.5 if both else np.full(len(sites), policy.cutmix > 0)
    u = chance(_LAMBDA)
    share = np.ones(len(sites))
    for alpha, chosen in ((policy.cutmix, cut), (policy.mixup, ~cut)):
        if alpha > 0:
            share[chosen] = betaincinv(alpha, alpha, u[chosen])
    share[chance(_MIX) >= policy.mix] = 1.0
    return Pairs(share, cut, chance(_PLACE, 2))


def _normal(u: np.ndarray) -> np.ndarray:
    """Return standard normal numbers from uniform ones in [0, 1)."""
    # Away from 0, whose quantile is infinite, by half of a draw's last bit.
    return ndtri(u + 2.0**-54)
