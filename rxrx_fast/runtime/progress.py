"""Progress bars that appear on a terminal and stay out of logs."""

from __future__ import annotations

import sys

from tqdm import tqdm

__all__ = ["bar"]


def bar(total: int | None, desc: str, unit: str = "site", quiet: bool = False) -> tqdm:
    """Make a progress bar on standard error; silent if ``quiet`` or if standard error is not a terminal.

    Use it as a context manager and call ``update(n)``.
    """
    return tqdm(total=total, desc=desc, unit=unit, dynamic_ncols=True, disable=quiet or not sys.stderr.isatty())
