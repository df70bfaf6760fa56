"""Checks what files say of their origin: `python scripts/verify_provenance.py FILE ...`."""

import sys

from odfs_jax.cli import verify

if __name__ == "__main__":
    sys.exit(verify())
