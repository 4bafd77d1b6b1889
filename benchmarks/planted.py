"""Slowdowns of a known size, for the studies: a copy of the package whose epochs take longer by a share of their time."""

from __future__ import annotations

from pathlib import Path

SLOWED_EPOCH = """

def _longer(epoch, share):
    def longer_epoch(self):
        start = time.perf_counter()
        found = epoch(self)
        end = time.perf_counter()
        end += share * (end - start)
        while time.perf_counter() < end:
            pass
        return found
    return longer_epoch


Trainer.epoch = _longer(Trainer.epoch, {share})
"""
"""It computes on, and what the training computes stays as it is."""


def slow_down(source: Path, share: float) -> None:
    """Plant a slowdown in the sources of a package: 0.05 makes an epoch 5 % longer. Several multiply."""
    with (source / "mlp_accel" / "training" / "trainer.py").open("a") as file:
        file.write(SLOWED_EPOCH.format(share=share))
