"""Checks what files say of their origin: python scripts/verify_provenance.py FILE_OR_FOLDER ...

Exit code 0: all are signed and unaltered; 1: one was altered; 3: one is not signed; 2: a mistake.
"""

import argparse
import sys
from pathlib import Path

from odfs_jax.errors import UserError
from odfs_jax.provenance.verify import ALTERED, verify
from odfs_jax.runtime.output import say


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", type=Path, nargs="*", metavar="FILE_OR_FOLDER")
    paths = parser.parse_args().paths
    if not paths:
        print("verify_provenance: which file? Give its path", file=sys.stderr)
        return 2
    try:
        verdicts = [verify(path) for path in paths]
    except UserError as error:
        print(f"verify_provenance: {error}", file=sys.stderr)
        return 2
    for verdict in verdicts:
        say(*verdict.lines())
    codes = {verdict.code for verdict in verdicts}
    return ALTERED if ALTERED in codes else max(codes)


if __name__ == "__main__":
    sys.exit(main())
