"""The ``rxrx-fast`` command."""

from rxrx_fast.cli.main import main

__all__ = ["main"]
