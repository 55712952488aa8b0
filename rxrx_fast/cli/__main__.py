"""``python -m rxrx_fast.cli``."""

import sys

from rxrx_fast.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
