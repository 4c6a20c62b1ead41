"""``python -m simcrop_training``: the same as ``simcrop-train``; torchrun starts it so."""

from __future__ import annotations

import sys

from simcrop_training.cli import main

if __name__ == "__main__":
    sys.exit(main())
