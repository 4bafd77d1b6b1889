"""The command mlp-accel, also as ``python -m mlp_accel``."""

import sys
from typing import NoReturn

from mlp_accel.exit_codes import INTERRUPTED


def main() -> NoReturn:
    """Run the command line; Ctrl-C is quiet from the first import on."""
    try:
        from mlp_accel.cli import run  # takes a while: NumPy and all that

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
