"""Train multilayer perceptrons on NumPy, Numba or CuPy with one algorithm.

>>> from mlp_accel import get_backend, init_params, load, mini_batch_sgd
>>> mnist = load("mnist")
>>> history = mini_batch_sgd(mnist.x_train, mnist.y_train, init_params([784, 32, 10]), epochs=5)
"""

from mlp_accel.backends import Backend, get_backend
from mlp_accel.datasets import Dataset, load
from mlp_accel.errors import (
    BackendUnavailableError,
    DatasetError,
    DeviceMemoryError,
    MlpAccelError,
    OutputError,
    ParameterFileError,
    SettingError,
)
from mlp_accel.history import History, NonFiniteLossError
from mlp_accel.many import train_many
from mlp_accel.network import backward, forward, init_params, loss_accuracy, sgd
from mlp_accel.notebook import from_notebook, to_notebook
from mlp_accel.parameters import load_params, save_params
from mlp_accel.training import evaluate, mini_batch_sgd

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "BackendUnavailableError",
    "Dataset",
    "DatasetError",
    "DeviceMemoryError",
    "History",
    "MlpAccelError",
    "NonFiniteLossError",
    "OutputError",
    "ParameterFileError",
    "SettingError",
    "__version__",
    "backward",
    "evaluate",
    "forward",
    "from_notebook",
    "get_backend",
    "init_params",
    "load",
    "load_params",
    "loss_accuracy",
    "mini_batch_sgd",
    "save_params",
    "sgd",
    "to_notebook",
    "train_many",
]
