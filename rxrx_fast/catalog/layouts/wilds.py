"""RxRx1 of the WILDS benchmark: ``metadata.csv`` and RGB images of channels 1 to 3, one file a site."""

from __future__ import annotations

import os
import re
from dataclasses import replace

from rxrx_fast.catalog.layout import DatasetLayout, Records, register
from rxrx_fast.catalog.layouts.metadata_csv import read_metadata
from rxrx_fast.catalog.root import Root

__all__ = ["Wilds"]

_IMAGE = re.compile(r"[A-Z]+[0-9]+_s[0-9]+(_w[0-9]+)?\.png")


class Wilds(DatasetLayout):
    """Told from rxrx.ai by an image without a channel in its name, or, where there are no images, by other signs."""

    def recognise(self, root: Root) -> bool:
        """Look at the first image; without any, look for a release note or a row of split ``val``."""
        if not super().recognise(root):
            return False
        for _, _, names in os.walk(os.path.join(root.path, "images")):  # lazy: stops at the first folder with an image
            for name in names:
                if match := _IMAGE.fullmatch(name):
                    return match[1] is None
        return "RELEASE_v1.0.txt" in root.entries or bool((root.once(read_metadata).frame["split"] == "val").any())

    def read(self, root: Root) -> Records:
        """Read ``metadata.csv``. As in the wilds package, site 2 of a training well is split ``id_test``."""
        rows = root.once(read_metadata)
        in_training = (rows.frame["split"] == "train") & (rows.integers("site") == 2)
        frame = rows.frame.assign(split=rows.frame["split"].mask(in_training, "id_test"))
        return Records(replace(rows, frame=frame), ("train", "val", "test", "id_test"), [])


register(
    Wilds(
        "wilds",
        "images/{experiment}/Plate{plate}/{well}_s{site}.png",
        channels=3,
        folders=("images",),
        markers=("metadata.csv",),
    )
)
