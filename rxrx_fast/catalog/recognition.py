"""Recognition of a root: which layout it has, or a message that says what is wrong and what was probably meant."""

from __future__ import annotations

import os
from collections.abc import Iterable

from rxrx_fast.catalog import layouts as _layouts  # noqa: F401 - importing the package registers its layouts
from rxrx_fast.catalog.layout import DatasetLayout, Records, registered
from rxrx_fast.catalog.root import Root
from rxrx_fast.errors import DataError

__all__ = ["read_root"]


def read_root(path: str) -> tuple[DatasetLayout, Records]:
    """Recognise the layout of a folder and read its tables.

    Parameters
    ----------
    path : str
        Absolute path of a folder.

    Raises
    ------
    DataError
        The folder is missing, empty, a file or of no registered layout, or a table is faulty.
    """
    root = Root(path, _entries(path))
    for layout in registered():
        if layout.recognise(root):
            return layout, layout.read(root)
    raise DataError(_not_recognised(root))


def _entries(path: str) -> list[str]:
    try:
        entries = sorted(os.listdir(path))
    except FileNotFoundError:
        raise DataError(f"{path}: no such folder; check the path{_suggestion(path)}") from None
    except NotADirectoryError:
        raise DataError(f"{path}: a file, not a folder; give the folder of the data set{_suggestion(path)}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    if not entries:
        raise DataError(f"{path}: the folder is empty; unpack RxRx1 there or give another folder{_suggestion(path)}")
    return entries


def _suggestion(path: str) -> str:
    """Return the end of a message: a folder with a marker, from two levels above to one below, or nothing."""
    markers = {marker for layout in registered() for marker in layout.markers}
    parent = os.path.dirname(path)
    nearby = [parent, os.path.dirname(parent)]
    if os.path.isdir(path):
        nearby += sorted(entry.path for entry in os.scandir(path) if entry.is_dir())[:100]
    for folder in nearby:
        try:
            if not markers.isdisjoint(os.listdir(folder)):
                return f"; did you mean {folder}?"
        except OSError:
            continue
    return ""


def _not_recognised(root: Root) -> str:
    named: dict[tuple[str, ...], list[str]] = {}
    for layout in registered():
        named.setdefault(layout.markers, []).append(layout.name)
    wanted = _listed((f"{' or '.join(markers)} ({', '.join(names)})" for markers, names in named.items()), " and ")
    found = ", ".join(root.entries[:6]) + (f" and {len(root.entries) - 6:,} more" if len(root.entries) > 6 else "")
    hint = _suggestion(root.path) or "; for another screen use Catalog.from_frame"
    return f"{root.path}: no known data set here; looked for {wanted}; found {found}{hint}"


def _listed(texts: Iterable[str], last: str) -> str:
    """Join texts as in ``a, b and c``."""
    *before, end = texts
    return last.join([", ".join(before), end]) if before else end
