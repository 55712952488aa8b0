"""The presence of each site's channels on the disk, as bit masks: bit ``c - 1`` stands for channel ``c``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rxrx_fast.errors import DataError, UsageError

__all__ = ["Presence"]


class Presence:
    """The column ``present`` of a table, and what follows from it.

    Parameters
    ----------
    table : pandas.DataFrame
    channels : int
        Number of channels of a complete site.
    root : str
        The folder that was listed, for messages.
    """

    def __init__(self, table: pd.DataFrame, channels: int, root: str) -> None:
        self._table, self._channels, self._root = table, channels, root
        self._masks = table["present"].to_numpy()

    @property
    def listed(self) -> bool:
        """Whether folders of images were found and listed."""
        return not (self._masks < 0).any()

    def masks(self) -> np.ndarray:
        """Return the bit mask of each site, (N,) int64; DataError if no folder was listed."""
        if not self.listed:
            raise DataError(
                f"no images were found under {self._root}: the catalog holds metadata only; put the images there, or "
                "read it again with list_images=True"
            )
        return self._masks

    def mask(self, channels: Sequence[int] | None = None) -> int:
        """Return the bits of these 1-based channels, or of all; UsageError if a channel does not exist."""
        if channels is None:
            return (1 << self._channels) - 1
        whole = all(isinstance(c, (int, np.integer)) and not isinstance(c, bool) for c in channels)
        if not len(channels) or not whole or not all(1 <= channel <= self._channels for channel in channels):
            raise UsageError(f"channels={tuple(channels)}: choose from 1 to {self._channels}")
        return sum({1 << (int(channel) - 1) for channel in channels})

    def counts(self) -> tuple[int, int, int]:
        """Count the sites that are absent, incomplete and complete."""
        masks = self.masks()
        absent, complete = int((masks == 0).sum()), int((masks == self.mask()).sum())
        return absent, len(masks) - absent - complete, complete

    def incomplete(self) -> pd.DataFrame:
        """List the incomplete sites: see :meth:`rxrx_fast.Catalog.faults`."""
        masks = self.masks()
        found = self._table.loc[(masks > 0) & (masks != self.mask()), ["site_id", "present"]].copy()
        texts = {mask: ",".join(map(str, self._missing(mask))) for mask in found["present"].unique().tolist()}
        found["missing"] = found["present"].map(texts)
        return found

    def _missing(self, mask: int) -> list[int]:
        return [channel for channel in range(1, self._channels + 1) if not mask >> (channel - 1) & 1]
