"""What the command returns to the shell."""

OK = 0
DIFFERENT = 1
"""A verdict only: slower, or results that differ."""

WRONG_USAGE = 2
UNAVAILABLE = 3
UNDECIDED = 4
"""No verdict is possible: a gate is inconclusive, or two files have nothing to compare."""

TRAINING_FAILED = 5
INTERNAL_ERROR = 70
INTERRUPTED = 130

BROKEN_PIPE = 141
"""Nobody reads the output any more, as in ``mlp-accel bench | head``; the shell's number for it."""
