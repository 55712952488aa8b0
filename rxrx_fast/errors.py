"""The errors that a user sees: one line each that says what, which file or row, and what to do."""

from __future__ import annotations

__all__ = ["DataError", "SiteError", "StalledError", "UsageError"]


class DataError(ValueError):
    """The data on disk is not what it should be. The command line exits with status 1."""


class SiteError(DataError):
    """One site can't be read: which, where and why.

    Attributes
    ----------
    site_id : str
        As in the catalog, such as ``HEPG2-01_1_B03_1``.
    path : str
        The file at fault.
    reason : str
    """

    def __init__(self, site_id: str, path: str, reason: str):
        super().__init__(f"site {site_id}: {path}: {reason}")
        self.site_id, self.path, self.reason = site_id, path, reason

    def __reduce__(self):
        return SiteError, (self.site_id, self.path, self.reason)


class StalledError(DataError, TimeoutError):
    """No batch came within the loader's ``timeout``: a file system that no longer answers, most often."""


class UsageError(ValueError):
    """An argument does not fit, whatever the data. The command line exits with status 2."""
