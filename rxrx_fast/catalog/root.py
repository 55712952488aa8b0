"""The root folder of a data set: its path, the names in it, and the tables read from it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

from rxrx_fast.errors import UsageError

__all__ = ["Root", "local_path"]

_T = TypeVar("_T")


class Root:
    """A folder that layouts look into.

    Parameters
    ----------
    path : str
        Absolute.
    entries : sequence of str
        The names in it.
    """

    def __init__(self, path: str, entries: list[str]) -> None:
        self.path = path
        self.entries = entries
        self._results: dict[Callable[[Root], Any], Any] = {}

    def once(self, read: Callable[[Root], _T]) -> _T:
        """Return ``read(self)``, computed at the first call: recognising and reading share what they parsed.

        Don't change the result.
        """
        if read not in self._results:
            self._results[read] = read(self)
        return self._results[read]


def local_path(root: str | os.PathLike[str]) -> str:
    """Absolute path of a local folder.

    Raises
    ------
    UsageError
        ``root`` is a URL or can't be a path.
    """
    text = os.fspath(root)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise UsageError(f"{text}: a catalog can be read from a local folder only; copy or mount the data")
    if not text or "\0" in text:
        raise UsageError(f"root={text!r}: give the path of a folder")
    return os.path.abspath(os.path.expanduser(text))
