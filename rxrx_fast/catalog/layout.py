"""What a layout is: how the files of a site are named, how a root is recognised, and how its tables are read."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeVar

from rxrx_fast.catalog.root import Root
from rxrx_fast.catalog.rows import Rows

__all__ = ["DatasetLayout", "Layout", "Records", "register", "registered"]


@dataclass(frozen=True)
class Layout:
    """How the files of one site are named.

    Attributes
    ----------
    name : str
        Such as ``"rxrx.ai"``; ``"custom"`` for :meth:`rxrx_fast.Catalog.from_frame`.
    path : str
        Template of a file's path below the root, with ``/`` between folders and the columns of the table in braces;
        ``{channel}`` is the 1-based channel. Without ``{channel}`` one file holds all channels.
    channels : int
        Channels of a site.
    folders : tuple of str
        Folders directly below the root that hold all images. They are searched for images of unknown sites. Empty:
        only the folders that the template gives are listed.
    """

    name: str
    path: str
    channels: int = 6
    folders: tuple[str, ...] = ()

    @property
    def files_per_site(self) -> int:
        """Files of a site: one for each channel, or 1."""
        return self.channels if re.search(r"\{channel[:}]", self.path) else 1

    @property
    def file_name(self) -> re.Pattern[str]:
        """Pattern of a file's name, with the groups ``well``, ``site`` and ``channel``, for templates of these."""
        groups = {
            "{well}": "(?P<well>[A-Z]+[0-9]+)",
            "{site}": "(?P<site>0|[1-9][0-9]*)",
            "{channel}": "(?P<channel>[0-9]+)",
        }
        parts = re.split(r"(\{[^}]*\})", self.path.rpartition("/")[2])
        return re.compile("".join(groups.get(part, re.escape(part)) for part in parts))


@dataclass(frozen=True)
class DatasetLayout(Layout, ABC):
    """The layout of a published data set: :meth:`rxrx_fast.Catalog.read` recognises it by the files in the root.

    Subclasses live in :mod:`rxrx_fast.catalog.layouts`, a file each, and are put to use by :func:`register`.

    Attributes
    ----------
    markers : tuple of str
        Names of files. One of them lies in the root of every such data set.
    fallback : bool
        Whether a marker alone is the evidence. Such layouts are tried after all others.
    """

    markers: tuple[str, ...] = ()
    fallback: bool = False

    def recognise(self, root: Root) -> bool:
        """Tell whether a folder has this layout; by default, whether it holds a marker."""
        return any(marker in root.entries for marker in self.markers)

    @abstractmethod
    def read(self, root: Root) -> Records:
        """Read the tables of a folder that :meth:`recognise` accepted.

        Raises
        ------
        DataError
            A table is faulty. The message names the file and the line.
        """


@dataclass
class Records:
    """What the tables of a root say.

    Attributes
    ----------
    rows : Rows
        One row a site, with the columns of :func:`rxrx_fast.catalog.table.canonical_table`.
    splits : tuple of str
        The splits of the layout, in the order of their codes.
    notes : list of str
        What a user should know about these files, a line each.
    wells_only : bool
        Whether the tables list wells. A site that only the disk knows is then added to its well.
    """

    rows: Rows
    splits: tuple[str, ...]
    notes: list[str]
    wells_only: bool = False


_REGISTERED: dict[str, DatasetLayout] = {}
_L = TypeVar("_L", bound=DatasetLayout)


def register(layout: _L) -> _L:
    """Let :meth:`rxrx_fast.Catalog.read` try a layout.

    Raises
    ------
    ValueError
        Another layout has this name.
    """
    if layout.name in _REGISTERED:
        raise ValueError(f"two layouts are called {layout.name!r}")
    _REGISTERED[layout.name] = layout
    return layout


def registered() -> list[DatasetLayout]:
    """Return the layouts in the order they are tried: by name, those with ``fallback`` last."""
    return sorted(_REGISTERED.values(), key=lambda layout: (layout.fallback, layout.name))
