"""Train multilayer perceptrons on NumPy, Numba or CuPy with one algorithm.

>>> from mlp_accel import get_backend, init_params, load, mini_batch_sgd
>>> mnist = load("mnist")
>>> history = mini_batch_sgd(mnist.x_train, mnist.y_train, init_params([784, 32, 10]), epochs=5)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp_accel.activations import Activation, activation
    from mlp_accel.backends import Backend, get_backend
    from mlp_accel.datasets import Dataset, load
    from mlp_accel.errors import (
        BackendUnavailableError,
        CheckpointError,
        DatasetError,
        DeviceMemoryError,
        MlpAccelError,
        ModelFileError,
        OutputError,
        ParameterFileError,
        PathError,
        SettingError,
    )
    from mlp_accel.network import backward, forward, init_params, loss_accuracy, sgd
    from mlp_accel.optimizers import Optimizer
    from mlp_accel.schedules import Schedule
    from mlp_accel.training.evaluate import evaluate
    from mlp_accel.training.history import History, NonFiniteLossError
    from mlp_accel.training.model import Model, load_model
    from mlp_accel.training.notebook import from_notebook, to_notebook
    from mlp_accel.training.parameters import load_params, save_params
    from mlp_accel.training.scaling import Scaling
    from mlp_accel.training.snapshot import Snapshot
    from mlp_accel.training.train import mini_batch_sgd, train_many

__version__ = "0.1.0"

__all__ = [
    "Activation",
    "Backend",
    "BackendUnavailableError",
    "CheckpointError",
    "Dataset",
    "DatasetError",
    "DeviceMemoryError",
    "History",
    "MlpAccelError",
    "Model",
    "ModelFileError",
    "NonFiniteLossError",
    "Optimizer",
    "OutputError",
    "ParameterFileError",
    "PathError",
    "Scaling",
    "Schedule",
    "SettingError",
    "Snapshot",
    "__version__",
    "activation",
    "backward",
    "evaluate",
    "forward",
    "from_notebook",
    "get_backend",
    "init_params",
    "load",
    "load_model",
    "load_params",
    "loss_accuracy",
    "mini_batch_sgd",
    "save_params",
    "sgd",
    "to_notebook",
    "train_many",
]

_HOMES = {
    "Activation": "activations",
    "activation": "activations",
    "Optimizer": "optimizers",
    "Schedule": "schedules",
    "Backend": "backends",
    "get_backend": "backends",
    "Dataset": "datasets",
    "load": "datasets",
    "BackendUnavailableError": "errors",
    "CheckpointError": "errors",
    "DatasetError": "errors",
    "MlpAccelError": "errors",
    "ModelFileError": "errors",
    "OutputError": "errors",
    "ParameterFileError": "errors",
    "PathError": "errors",
    "SettingError": "errors",
    "DeviceMemoryError": "errors",
    "train_many": "training.train",
    "History": "training.history",
    "NonFiniteLossError": "training.history",
    "backward": "network",
    "forward": "network",
    "init_params": "network",
    "loss_accuracy": "network",
    "sgd": "network",
    "from_notebook": "training.notebook",
    "to_notebook": "training.notebook",
    "load_params": "training.parameters",
    "save_params": "training.parameters",
    "Model": "training.model",
    "load_model": "training.model",
    "Scaling": "training.scaling",
    "Snapshot": "training.snapshot",
    "evaluate": "training.evaluate",
    "mini_batch_sgd": "training.train",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: the command starts, and can be interrupted, before NumPy is loaded."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
