"""A picture of augmentation: one site, and copies of it under a policy."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from rxrx_fast.augment.policy import Policy
from rxrx_fast.catalog import Catalog
from rxrx_fast.dataset import Dataset
from rxrx_fast.viz.choice import channel_count, find_site
from rxrx_fast.viz.figure import GAP, INK, DarkFigure, check_format, save
from rxrx_fast.viz.pixels import image_size
from rxrx_fast.viz.stains import BLACK, FULL, STAINS, composite, display_color

__all__ = ["draw_augmented"]

_COPIES = 5


def draw_augmented(
    catalog: Catalog,
    path: str | os.PathLike[str],
    augment: str | Policy,
    *,
    site_id: str | None = None,
    seed: int = 0,
) -> Path:
    """Draw one site as it is, and five augmented copies below: all channels, a row for each copy.

    Parameters
    ----------
    catalog : Catalog
    path : path
        Ends in .png, .jpg, .svg or .pdf.
    augment : str or Policy
        Mixing with other sites is left out.
    site_id : str, optional
        By default the first complete site.
    seed : int
        Of the sampled parameters.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    UsageError
        There is no such site or policy, or more channels than stains.
    DataError
        No site is complete, or the picture can't be written.
    """
    check_format(path)
    policy = replace(Policy.of(augment), cutmix=0.0, mixup=0.0)
    total = channel_count(catalog)
    one = catalog.take([find_site(catalog, site_id)])
    views = [Policy(), *[policy] * _COPIES]
    # Normalised by the site's own statistics, so nothing has to be fitted.
    dataset = Dataset(one, normalize="site", views=views, size=image_size(one), seed=seed)
    images = [image.numpy() for image in dataset[0][0]]
    low, high = np.percentile(images[0], (BLACK, FULL), axis=(1, 2))

    side, tall = 1.55, _COPIES + 1
    label = 0.35
    figure = DarkFigure(label + (total + 1) * (side + GAP) - GAP, tall * (side + GAP) - GAP)
    name = augment if isinstance(augment, str) else "a policy"
    figure.headline(
        f"{name}: {_COPIES} draws of one site", f"{one.table['site_id'].iat[0]}, one display range a column"
    )
    for r, image in enumerate(images):
        y = r * (side + GAP)
        pictures = [composite(image, low, high)]
        for c in range(total):
            scaled = np.clip((image[c] - low[c]) / max(high[c] - low[c], 1e-6), 0, 1)
            pictures.append(scaled[..., None] * display_color(c))
        for i, picture in enumerate(pictures):
            title = f"{i}  {STAINS[i - 1].short}" if i else "composite"
            axes = figure.image(label + i * (side + GAP), y, side, picture, "" if r else title)
            if i == 0:
                axes.set_ylabel(f"draw {r}" if r else "as it is", color=INK, fontsize=10)
    return save(figure.figure, path)
