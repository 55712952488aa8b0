"""The release of rxrx.ai: ``metadata.csv`` and six-channel images."""

from __future__ import annotations

from rxrx_fast.catalog.layout import DatasetLayout, Records, register
from rxrx_fast.catalog.layouts.metadata_csv import read_metadata
from rxrx_fast.catalog.root import Root

__all__ = ["RxrxAi"]


class RxrxAi(DatasetLayout):
    """Any root with ``metadata.csv`` that is not WILDS."""

    def read(self, root: Root) -> Records:
        """Read ``metadata.csv``."""
        return Records(root.once(read_metadata), ("train", "test"), [])


register(
    RxrxAi(
        "rxrx.ai",
        "images/{experiment}/Plate{plate}/{well}_s{site}_w{channel}.png",
        folders=("images",),
        markers=("metadata.csv",),
        fallback=True,
    )
)
