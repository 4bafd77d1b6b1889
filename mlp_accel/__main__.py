"""``python -m mlp_accel``: the command mlp-accel."""

from mlp_accel.cli import main

if __name__ == "__main__":
    main()
