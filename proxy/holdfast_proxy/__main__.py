"""``python -m holdfast_proxy --config FILE`` runs one proxy."""

from __future__ import annotations

import sys

from .server import main

if __name__ == "__main__":
    sys.exit(main())
