"""Two minibatches by a path, for tools that slow a GPU down: ``python small_training.py PATH``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu_stages.cases import BATCH, MNIST, samples, trainer
from gpu_stages.device import gpu_backend

if __name__ == "__main__":
    training = trainer(MNIST, samples(MNIST, 2 * BATCH - 40), gpu_backend(), sys.argv[1])
    sys.stdout.write(f"{training.taken}: loss {training.epoch().losses[0]:.4f}\n")
