"""Pictures for people: a site's channels and colour composite, plates before and after normalisation, a batch."""

from __future__ import annotations

import difflib
import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rxrx_fast.errors import DataError, UsageError
from rxrx_fast.viz.figure import BACKGROUND, FAINT, GAP, INK, Sheet, check_format, entitle, save

__all__ = [
    "STAINS",
    "composite",
    "draw_augmented",
    "draw_batch",
    "draw_plates",
    "draw_site",
    "statistics_table",
]


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

# (3, C): a composite is this matrix times the channels, each scaled to 0 to 1, and cut at 1. The official composite
# uses fixed ranges, in which most plates are dark. Here ranges follow the image, so six channels in full colour would
# add up to white: they share the light of _LIGHT of them.
_WEIGHTS = np.array([stain.rgb for stain in STAINS]).T / 255

_LIGHT = 2.6

# Shares of pixels that are drawn black and white: a few hot pixels must not darken all others.
_LOW, _HIGH = 1.0, 99.7
_PLATES = 6
_DRAWN = 5  # augmented copies of a site
_MOST_SITES = 96  # of a plate, that its statistics are taken from if none are saved


def composite(planes: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Colour picture of a stack.

    Parameters
    ----------
    planes : (C, H, W)
        Channels 1 to C, C at most 6.
    low, high : (C,)
        The values that are drawn black and in full colour.

    Returns
    -------
    (H, W, 3) float32, 0 to 1
    """
    low, high = (np.asarray(bound, np.float32)[:, None, None] for bound in (low, high))
    scaled = np.clip((planes - low) / np.maximum(high - low, 1e-6), 0, 1)
    weights = _WEIGHTS[:, : len(planes)] * min(1.0, _LIGHT / len(planes))
    return np.clip(np.tensordot(scaled, weights, axes=(0, 1)), 0, 1).astype(np.float32)


def draw_site(catalog, path: str | os.PathLike, *, site_id: str | None = None) -> Path:
    """Draw the channels of a site and their composite.

    Parameters
    ----------
    catalog : Catalog
    path : path
        .png, .jpg, .svg or .pdf.
    site_id : str, optional
        By default the first complete site. Channels that a site lacks are drawn empty.

    Raises
    ------
    UsageError
        If there is no such site; the message names the nearest.
    """
    from rxrx_fast.stores import open_store

    check_format(path)
    position = _find(catalog, site_id)
    row = catalog.table.iloc[position]
    total = _drawable(catalog)
    here = [c for c in range(1, total + 1) if row["present"] >> (c - 1) & 1]
    if not here:
        raise DataError(f"site {row['site_id']} has no image under {catalog.root}")
    (stack,) = open_store(catalog.take([position]), here).pixels([0])
    planes = np.zeros((total, *stack.shape[1:]), stack.dtype)
    planes[[c - 1 for c in here]] = stack
    low, high = np.percentile(planes, (_LOW, _HIGH), axis=(1, 2))

    across = -(-total // 2)
    side = 2.6
    sheet = Sheet((across + 2) * (side + GAP) - GAP, 2 * side + GAP)
    where = f"{row['experiment']}, plate {row['plate']}, well {row['well']}, site {row['site']}"
    sheet.headline(f"{row['cell_type']}   {_perturbation(row)}", where)
    sheet.image(0, 0, 2 * side + GAP, composite(planes, low, high), "composite")
    for c in range(total):
        x, y = (2 + c % across) * (side + GAP), c // across * (side + GAP)
        scaled = np.clip((planes[c] - low[c]) / max(high[c] - low[c], 1), 0, 1)
        picture = scaled[..., None] * _legible(np.array(STAINS[c].rgb) / 255)
        axes = sheet.image(x, y, side, picture, f"{c + 1}  {STAINS[c].title}")
        if c + 1 not in here:
            axes.text(0.5, 0.5, "no file", transform=axes.transAxes, color=FAINT, ha="center", va="center")
    return save(sheet.figure, path)


def draw_plates(catalog, path: str | os.PathLike, *, stats=None, quiet: bool = False) -> Path:
    """Draw one perturbation on several plates, before and after plate normalisation, each row with one range.

    Parameters
    ----------
    catalog : Catalog
    path : path
        .png, .jpg, .svg or .pdf.
    stats : PlateStats, optional
        By default those saved beside the data; where there are none, up to 96 sites of each plate drawn are counted.
    quiet : bool
        Show no progress bar.
    """
    from rxrx_fast.stats.normalize import Normalize
    from rxrx_fast.stores import open_store

    check_format(path)
    total = _drawable(catalog)
    chosen = _across_plates(catalog)
    if stats is None:
        stats = _statistics(catalog, chosen, quiet)
    groups, mean, std, _ = stats.normalizer(Normalize("plate"), chosen)
    store = open_store(chosen, range(1, total + 1))
    raw = store.pixels(range(len(chosen))).astype(np.float32)
    done = (raw - mean[groups][:, :total, None, None]) / std[groups][:, :total, None, None]

    count, side, curves = len(chosen), 2.3, 3.2
    label = 0.35
    sheet = Sheet(label + count * (side + GAP) + curves, 2 * side + GAP)
    sheet.headline(f"{_perturbation(chosen.table.iloc[0])} on {count} plates", "one display range a row")
    codes, names = chosen.group_keys("plate")
    plates = [names[code] for code in codes]
    counts = stats.counts[[stats.plates.index(name) for name in plates]].sum(1)
    # The channel whose plates differ most, in its own deviations.
    mean, std = mean[groups], std[groups]
    widest = int(np.argmax(np.ptp(mean, axis=0) / std.mean(0)))
    for r, (images, title) in enumerate(((raw, "as stored"), (done, "plate-normalised"))):
        low, high = np.percentile(images, (_LOW, _HIGH), axis=(0, 2, 3))
        y = r * (side + GAP)
        for i in range(count):
            x = label + i * (side + GAP)
            axes = sheet.image(x, y, side, composite(images[i], low, high), plates[i].replace("/", "  plate "))
            if i == 0:
                axes.set_ylabel(title, color=INK, fontsize=12)
        shift = mean[:, widest] if r else np.zeros(count)
        unit = std[:, widest] if r else np.ones(count)
        axes = sheet.axes(label + count * (side + GAP), y, curves, side)
        title = f"{STAINS[widest].short}: pixel values by plate"
        _distributions(axes, counts[:, widest], 1 << stats.shift, shift, unit, title)
    return save(sheet.figure, path)


def draw_augmented(catalog, path: str | os.PathLike, augment, *, site_id: str | None = None, seed: int = 0) -> Path:
    """Draw one site as a policy augments it, a row a draw, all channels, under the site as it is.

    Parameters
    ----------
    catalog : Catalog
    path : path
        .png, .jpg, .svg or .pdf.
    augment : str or Policy
        Mixing with other sites is left out.
    site_id : str, optional
        By default the first complete site.
    seed : int
    """
    from rxrx_fast.augment.policy import Policy
    from rxrx_fast.dataset import Dataset
    from rxrx_fast.stores import open_store

    check_format(path)
    policy = replace(Policy.of(augment), cutmix=0.0, mixup=0.0)
    total = _drawable(catalog)
    one = catalog.take([_find(catalog, site_id)])
    views = [Policy(), *[policy] * _DRAWN]
    size = open_store(one, range(1, total + 1)).image_size
    # The site's own statistics: nothing has to be fitted for a picture.
    dataset = Dataset(one, normalize="site", views=views, size=size, seed=seed)
    images = [image.numpy() for image in dataset[0][0]]
    low, high = np.percentile(images[0], (_LOW, _HIGH), axis=(1, 2))

    side, tall = 1.55, _DRAWN + 1
    label = 0.35
    sheet = Sheet(label + (total + 1) * (side + GAP) - GAP, tall * (side + GAP) - GAP)
    name = augment if isinstance(augment, str) else "a policy"
    sheet.headline(f"{name}: {_DRAWN} draws of one site", f"{one.table['site_id'].iat[0]}, one display range a column")
    for r, image in enumerate(images):
        y = r * (side + GAP)
        pictures = [composite(image, low, high)]
        for c in range(total):
            scaled = np.clip((image[c] - low[c]) / max(high[c] - low[c], 1e-6), 0, 1)
            pictures.append(scaled[..., None] * _legible(np.array(STAINS[c].rgb) / 255))
        for i, picture in enumerate(pictures):
            title = f"{i}  {STAINS[i - 1].short}" if i else "composite"
            axes = sheet.image(label + i * (side + GAP), y, side, picture, "" if r else title)
            if i == 0:
                axes.set_ylabel(f"draw {r}" if r else "as it is", color=INK, fontsize=10)
    return save(sheet.figure, path)


def draw_batch(images, path: str | os.PathLike, *, titles: list[str] | None = None) -> Path:
    """Draw the composites of a (B, C, H, W) batch as a montage, all with the same range."""
    check_format(path)
    images = np.asarray(images, np.float32)[:, : len(STAINS)]
    low, high = np.percentile(images, (_LOW, _HIGH), axis=(0, 2, 3))
    columns = min(6, len(images))
    rows, side = -(-len(images) // columns), 2.3
    sheet = Sheet(columns * (side + GAP) - GAP, rows * (side + GAP) - GAP)
    sheet.headline("a batch, as the model gets it", f"{len(images)} sites, one display range")
    for i, image in enumerate(images):
        x, y = i % columns * (side + GAP), i // columns * (side + GAP)
        sheet.image(x, y, side, composite(image, low, high), titles[i] if titles else "")
    return save(sheet.figure, path)


def statistics_table(stats, level: str) -> str:
    """Means and standard deviations by channel as lines of text, a row a group of ``level``."""
    frame = stats.frame(level)
    names = list(dict.fromkeys(frame[level]))
    known = [stain.short for stain in STAINS] if stats.channels <= len(STAINS) else [""] * stats.channels
    titles = [f"{c + 1} {known[c]}" for c in range(stats.channels)]
    width = max(map(len, [level, *names]))
    lines = [f"{level:{width}}  {'sites':>7}" + "".join(f"{title:>15}" for title in titles) + "   (mean ± std)"]
    for name, part in frame.groupby(level, sort=False):
        cells = (f"{mean:.1f} ± {std:.1f}" for mean, std in zip(part["mean"], part["std"]))
        lines.append(f"{name:{width}}  {part['sites'].iat[0]:7,}" + "".join(f"{cell:>15}" for cell in cells))
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------------------ choosing


def _drawable(catalog) -> int:
    if catalog.layout.channels > len(STAINS):
        raise UsageError(f"pictures show up to {len(STAINS)} channels, and these sites have {catalog.layout.channels}")
    return catalog.layout.channels


def _find(catalog, site_id: str | None) -> int:
    present = catalog.table["present"].to_numpy()
    if site_id is None:
        complete = np.flatnonzero(present == (1 << catalog.layout.channels) - 1)
        if not len(complete):
            raise DataError(f"none of the {len(catalog):,} sites under {catalog.root} is complete; name a site")
        return int(complete[0])
    names = catalog.table["site_id"].to_numpy()
    found = np.flatnonzero(names == site_id)
    if not len(found):
        near = difflib.get_close_matches(site_id, names[present > 0], n=1, cutoff=0)
        hint = f"did you mean {near[0]}?" if near else "no site has images here"
        raise UsageError(f"no site {site_id!r} under {catalog.root}; {hint}")
    return int(found[0])


def _across_plates(catalog):
    """One site a plate of the perturbation that is on most plates, controls preferred: a Catalog."""
    complete = catalog.available()
    if not len(complete):
        raise DataError(f"none of the {len(catalog):,} sites under {catalog.root} is complete: nothing to compare")
    plate, _ = complete.group_keys("plate")
    table = complete.table.assign(at=np.arange(len(complete)), on=plate)
    spread = table.groupby("sirna_id")["on"].nunique()
    most = spread[spread == spread.max()].index
    # The untreated control has the highest label: cells without a perturbation show the batch effect alone.
    one = table[table["sirna_id"] == most.max()].drop_duplicates("on")
    if len(one) < 2:
        raise DataError(f"no perturbation is on two plates under {catalog.root}: nothing to compare")
    # Experiments in turn, so that few plates show as many of them as there are.
    turn = one.groupby("experiment", observed=True).cumcount()
    one = one.assign(turn=turn).sort_values(["turn", "at"]).head(_PLATES).sort_values("at")
    return complete.take(one["at"].to_numpy())


def _statistics(catalog, chosen, quiet: bool):
    from rxrx_fast.stats import PlateStats, default_path

    path = default_path(catalog.root)
    if path.exists():
        saved = PlateStats.load(path)
        if set(chosen.table["site_id"]) <= set(saved.sites["site_id"]):
            return saved
    complete = catalog.available()
    plate, _ = complete.group_keys("plate")
    wanted = set(chosen.group_keys("plate")[0].tolist())
    parts = [np.flatnonzero(plate == code) for code in sorted(wanted)]
    some = [part[np.linspace(0, len(part) - 1, min(len(part), _MOST_SITES)).astype(int)] for part in parts]
    return PlateStats.fit(complete.take(np.concatenate(some)), quiet=quiet)


def _perturbation(row) -> str:
    if row["well_type"] == "negative_control":
        return "untreated cells"
    if row["sirna_id"] < 0 and not row["sirna"]:
        return "siRNA not told"
    kind = "positive control, " if row["well_type"] == "positive_control" else ""
    label = f" (label {row['sirna_id']})" if row["sirna_id"] >= 0 else ""
    return f"{kind}siRNA {row['sirna']}{label}"


# ------------------------------------------------------------------------------------------------------------- drawing


def _legible(color: np.ndarray) -> np.ndarray:
    """A channel's colour on its own, with pure blue and red lightened: on black they hide detail."""
    return color + (1 - color) * 0.25


def _distributions(axes, counts: np.ndarray, width: int, shift: np.ndarray, unit: np.ndarray, title: str) -> None:
    """Densities of (P, N) counts, in bins ``width`` wide, over (value - shift) / unit, a curve a plate."""
    # As many curves' points as 8 bits have: finer ones are noise.
    used = np.flatnonzero(counts.any(0))[-1] + 1
    joined = max(1, -(-int(used) // 256))
    if counts.shape[1] > 256:
        counts = counts[:, : 256 * joined].reshape(len(counts), 256, joined).sum(-1)
        width = width * joined
    # Without the last value: there saturated pixels pile up, whatever their true value.
    shares = counts[:, :-1] / counts.sum(1, keepdims=True)
    values = (np.arange(shares.shape[1]) * width - shift[:, None]) / unit[:, None]
    density = shares * unit[:, None] / width
    for x, y in zip(values, density):
        axes.plot(x, y, linewidth=1.3, alpha=0.9)
    last = [x[np.searchsorted(share.cumsum(), 0.99 * share.sum())] for x, share in zip(values, shares)]
    axes.set_xlim(values.min(), max(last))
    # One plate with many pixels of one value, as of empty ground, must not flatten the others. The ticks' labels have
    # the strip below zero.
    top = min(1.15 * density.max(), 2.5 * np.median(density.max(1)))
    axes.set_ylim(-0.12 * top, top)
    axes.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
    axes.set_facecolor(BACKGROUND)
    axes.set_yticks([])
    axes.tick_params(colors=FAINT, labelsize=8, length=0, pad=-12)
    axes.spines[:].set_visible(False)
    entitle(axes, title)
