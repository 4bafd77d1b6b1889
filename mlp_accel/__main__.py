"""The command mlp-accel, also as ``python -m mlp_accel``."""

import os
import signal
from typing import NoReturn

from mlp_accel.exit_codes import INTERRUPTED


def main() -> NoReturn:
    """Run the command line; Ctrl-C is quiet from the first import on."""
    # While modules are loaded nothing can be lost, and a KeyboardInterrupt may end up in a callback that passes over it.
    handler = signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    from mlp_accel.cli.app import run

    signal.signal(signal.SIGINT, handler)
    run()


if __name__ == "__main__":
    main()
