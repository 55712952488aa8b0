"""Sites that can't be read, and those that are read instead."""

from __future__ import annotations

from collections.abc import Callable

from rxrx_fast.errors import SiteError

__all__ = ["OnFault", "Substitutes"]

#: ``on_fault(tried, error)`` gives a position to read instead, or None to leave the site out, or raises.
OnFault = Callable[[tuple[int, ...], SiteError], "int | None"]


class Substitutes:
    """Asks ``on_fault`` for substitutes until a site can be read, and knows what is waited for.

    Parameters
    ----------
    on_fault : OnFault or None
        By default the error is raised.

    Attributes
    ----------
    waits_for : int or None
        Position of the site that is waited for now.
    """

    def __init__(self, on_fault: OnFault | None):
        self._on_fault = on_fault or _raise_fault
        self.waits_for: int | None = None

    def settle(
        self,
        tried: tuple[int, ...],
        outcome: Callable[[], SiteError | None],
        reread: Callable[[int], SiteError | None],
    ) -> tuple[int, ...] | None:
        """Wait for a sample's site; while it is faulty, read a substitute.

        Parameters
        ----------
        tried : tuple of int
            The position wanted, then its substitutes so far.
        outcome : callable
            Waits for the last of them and returns its fault, or None.
        reread : callable
            ``reread(position)`` reads a substitute into the sample's place and returns its fault, or None.

        Returns
        -------
        tuple of int or None
            ``tried`` with the position that was read as its last; None if the sample is left out.
        """
        self.waits_for = tried[-1]
        fault = outcome()
        self.waits_for = None
        while fault is not None:
            position = self._on_fault(tried, fault)
            if position is None:
                return None
            tried = (*tried, position)
            self.waits_for = position
            fault = reread(position)
            self.waits_for = None
        return tried


def _raise_fault(tried: tuple[int, ...], fault: SiteError) -> None:
    raise fault
