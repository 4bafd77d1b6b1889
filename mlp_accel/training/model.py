"""A trained network with all that predictions need, and its file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import mlp_accel
from mlp_accel.activations import Activation, find_activation
from mlp_accel.backends.arrays import is_sparse
from mlp_accel.errors import ModelFileError, SettingError
from mlp_accel.inputs import check_finite, numbers
from mlp_accel.training.checks import check_params
from mlp_accel.training.fingerprint import describe_activation
from mlp_accel.training.labels import check_classes, class_indices, classes_from_json, classes_to_json
from mlp_accel.training.parameters import load_params
from mlp_accel.training.scaling import SCALINGS, Scaling
from mlp_accel.training.tensor_file import Arrays, read_tensors, write_tensors

FORMAT = 1
"""The version of the model file: raised when an older reader would misread it."""

PIECE = 1024
"""Samples that are predicted at a time, so that what lies between the layers stays in the cache."""


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network with all that predictions need.

    Predictions are computed on the host in float64: those of a sample are the same, to the rounding of float64, whatever samples
    are predicted with it.

    Parameters
    ----------
    params : sequence of (weights, bias)
        Floating arrays ``(n_in, n_out)`` and ``(n_out,)``; they are copied.
    activation : str or Activation
        Of the hidden layers.
    classes : array (n_classes,), optional
        The label of each class: integers, floats, booleans, or strings. By default 0 ... n_classes - 1.
    scaling : Scaling, optional
        What is done to the inputs; by default nothing.
    settings : mapping
        How it was trained (optimiser, schedule and so on), in types that JSON knows. Predictions do not depend on it.

    Raises
    ------
    SettingError
        If the activation is unknown.
    ValueError
        If layers, classes and scaling do not fit together.
    """

    params: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]]
    activation: Activation | str = "tanh"
    classes: npt.NDArray[Any] | None = None
    scaling: Scaling = field(default_factory=Scaling)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        params = [(_own(weights), _own(bias)) for weights, bias in self.params]
        sizes = check_params(params)
        object.__setattr__(self, "params", params)
        object.__setattr__(self, "activation", find_activation(self.activation))
        if self.classes is not None:
            object.__setattr__(self, "classes", check_classes(self.classes, sizes[-1]))
        if self.scaling.kind != "none" and not self.scaling.shift.shape == self.scaling.scale.shape == (sizes[0],):
            shapes = f"shift {self.scaling.shift.shape} and scale {self.scaling.scale.shape}"
            raise ValueError(f"the scaling must have a shift and a scale for each of the {sizes[0]} inputs; it has {shapes}")

    @property
    def layer_sizes(self) -> list[int]:
        """Inputs, units of each hidden layer, classes."""
        return check_params(self.params)

    @cached_property
    def _float64(self) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
        return [(weights.astype(np.float64), bias.astype(np.float64)) for weights, bias in self.params]

    def logits(self, x: Any) -> npt.NDArray[np.float64]:
        """What the last layer puts out for samples `x` ``(n, n_in)``, of any library: an array ``(n, n_classes)``.

        Raises
        ------
        ValueError
            If `x` has another shape, or values that are no numbers, NaN or infinite; names where.
        """
        samples: Any = x.tocsr() if is_sparse(x) else numbers(x)
        n_in, n_classes = self.layer_sizes[0], self.layer_sizes[-1]
        if samples.ndim != 2 or samples.shape[1] != n_in:
            raise ValueError(f"x must have shape (n, {n_in}), a row for each sample; got {samples.shape}")
        n = samples.shape[0]
        logits = np.empty((n, n_classes))
        for start in range(0, n, PIECE):
            piece = samples[start : start + PIECE]
            piece = piece.toarray() if is_sparse(piece) else piece
            if not np.isfinite(piece.sum()):
                check_finite(samples.toarray() if is_sparse(samples) else samples, x)
            logits[start : start + PIECE] = self._piece(piece)
        return logits

    def _piece(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """The logits of some samples."""
        output = self.scaling.apply(x)
        if self.scaling.kind == "none":
            output = x * (1 / 255) if x.dtype == np.uint8 else x.astype(np.float64, copy=False)
        activation = find_activation(self.activation)
        for layer, (weights, bias) in enumerate(self._float64, start=1):
            output = output @ weights
            output += bias
            if layer < len(self.params):
                with np.errstate(over="ignore", under="ignore"):
                    output = activation(output)
        return output

    def predict_proba(self, x: Any) -> npt.NDArray[np.float64]:
        """The probability of each class, ``(n, n_classes)``, in the order of `classes`: the softmax of the `logits`."""
        return softmax(self.logits(x))

    def predict(self, x: Any) -> npt.NDArray[Any]:
        """The most probable label of each sample, ``(n,)``; of several the first."""
        indices: npt.NDArray[Any] = self.logits(x).argmax(axis=1)
        return indices if self.classes is None else self.classes[indices]

    def evaluate(self, x: Any, y: npt.ArrayLike) -> tuple[float, float]:
        """Mean cross-entropy and share of right answers on samples `x` with labels `y`, one of `classes` for each sample.

        Raises
        ------
        ValueError
            If samples and labels do not fit together, or there is a label that the model does not know.
        """
        logits = self.logits(x)
        indices = class_indices(y, self.classes, logits.shape[1])
        if not len(logits) or indices.shape != (len(logits),):
            raise ValueError(f"y must hold one label for each of the {len(logits)} samples of x, at least one; got {indices.shape}")
        highest = logits.max(axis=1)
        losses = np.log(np.exp(logits - highest[:, None]).sum(axis=1)) + highest - logits[np.arange(len(logits)), indices]
        return float(losses.mean()), float((logits.argmax(axis=1) == indices).mean())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a model file: safetensors, with the description of the model as JSON in its metadata. Equal models are equal bytes.

        Raises
        ------
        OutputError
            If it cannot be written.
        SettingError
            If the file could not hold the classes or settings.
        """
        activation = find_activation(self.activation)
        arrays: Arrays = {}
        for layer, (weights, bias) in enumerate(self.params, start=1):
            arrays[f"weights_{layer}"], arrays[f"bias_{layer}"] = weights, bias
        if self.scaling.kind != "none":
            arrays |= {"shift": self.scaling.shift, "scale": self.scaling.scale}
        description = {
            "kind": "model",
            "format": FORMAT,
            "layer_sizes": self.layer_sizes,
            "activation": describe_activation(activation),
            "classes": None if self.classes is None else classes_to_json(self.classes),
            "scaling": self.scaling.kind,
            "settings": dict(self.settings),
            "versions": {"mlp_accel": mlp_accel.__version__},
        }
        write_tensors(Path(path), arrays, description)


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The probabilities ``(n, n_classes)`` of logits, whose memory they take."""
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits


def load_model(path: str | os.PathLike[str], activation: str | Activation | None = None) -> Model:
    """Read a model file; or the parameters of a ``.npz`` that `mlp_accel.save_params` wrote.

    Parameters
    ----------
    activation : str or Activation, optional
        Must be given where the file does not tell it: for an activation of your own, and for a ``.npz``.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged or of another origin, or needs another activation than is given.
    """
    path = Path(path)
    if _is_zip(path):
        if activation is None:
            raise ModelFileError(f'{path}: holds parameters alone; say what they were trained with, such as activation="tanh"')
        return Model(load_params(path), activation)
    arrays, description = read_tensors(path, ModelFileError)
    try:
        return _from_description(path, arrays, description, activation)
    except ModelFileError:
        raise
    except Exception as error:  # the description of a damaged file may be of any form
        raise ModelFileError(f"{path}: damaged, or written by another version: {error!r}") from error


def _from_description(path: Path, arrays: Arrays, described: Mapping[str, Any], given: str | Activation | None) -> Model:
    if described["kind"] != "model":
        raise ModelFileError(f"{path}: a {described['kind']}, not a model")
    if described["format"] != FORMAT:
        raise ModelFileError(f"{path}: a model file of format {described['format']}; this version reads format {FORMAT}")
    layers = len(described["layer_sizes"]) - 1
    params = [(arrays.pop(f"weights_{layer}"), arrays.pop(f"bias_{layer}")) for layer in range(1, layers + 1)]
    scaling = Scaling(described["scaling"])
    if scaling.kind != "none":
        scaling = Scaling(scaling.kind, arrays.pop("shift"), arrays.pop("scale"))
    classes = None if described["classes"] is None else classes_from_json(described["classes"])
    model = Model(params, _activation(path, described["activation"], given), classes, scaling, described["settings"])
    floating = all(array.dtype in (np.float32, np.float64) for pair in model.params for array in pair)
    positive = bool((scaling.scale > 0).all()) and scaling.shift.dtype == scaling.scale.dtype == np.float64
    if arrays or model.layer_sizes != described["layer_sizes"] or not floating or scaling.kind not in SCALINGS or not positive:
        raise ModelFileError(f"{path}: its arrays are not those that its description names")
    return model


def _activation(path: Path, described: Mapping[str, Any], given: str | Activation | None) -> Activation:
    """The activation that a file describes, from those that are known by name or from the one that was given."""
    name, values = described["name"], described["values"]
    try:
        found = find_activation(name if given is None else given)
    except SettingError as error:
        raise ModelFileError(f"{path}: trained with the activation {name!r} of your own; give it to load_model") from error
    if found.name != name or not np.allclose(describe_activation(found)["values"], values, rtol=1e-6, atol=1e-9):
        what = "another function of that name" if found.name == name else repr(found.name)
        raise ModelFileError(f"{path}: trained with the activation {name!r}; this is {what}: give load_model the right one")
    return found


def _is_zip(path: Path) -> bool:
    """Whether the file begins as a ``.npz`` does."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error


def _own(array: Any) -> npt.NDArray[Any]:
    """A copy that nobody can change: predictions keep the parameters in a second form."""
    copy = np.array(array, order="C", copy=True)
    copy.flags.writeable = False
    return copy
