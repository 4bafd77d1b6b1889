"""Models as ONNX files (extra ``onnx``), which onnxruntime and others run without this package.

The graph is the page's forward pass: scaling of the inputs, layers, softmax. An activation is written from its record, like every
kernel of the backends, so any activation can be exported, a user's own included.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import mlp_accel
from mlp_accel.activations import find_activation
from mlp_accel.errors import MissingPackageError, SettingError
from mlp_accel.files import write_atomically
from mlp_accel.recording import Operand, Record
from mlp_accel.training.model import Model

OPSET, IR_VERSION = 17, 8
"""Pinned, or a newer ``onnx`` would write files that an older runtime does not read; onnxruntime knows both since 1.12."""

OPERATIONS = {
    "+": "Add",
    "-": "Sub",
    "*": "Mul",
    "/": "Div",
    "negative": "Neg",
    "abs": "Abs",
    "sqrt": "Sqrt",
    "exp": "Exp",
    "log": "Log",
    "tanh": "Tanh",
    "maximum": "Max",
    "minimum": "Min",
    "where": "Where",
    "<": "Less",
    "<=": "LessOrEqual",
    ">": "Greater",
    ">=": "GreaterOrEqual",
    "&": "And",
    "|": "Or",
}
"""ONNX's names of the operations of a record; ``expm1`` and ``log1p`` are made of two."""


def export_onnx(model: Model, path: str | os.PathLike[str], pixels: bool | None = None) -> None:
    """Write a model as an ONNX file.

    Its input is ``x`` ``(n, n_in)`` for any n; its outputs are ``label`` ``(n,)`` and ``probabilities`` ``(n, n_classes)``.

    Parameters
    ----------
    pixels : bool, optional
        The input is uint8 and is scaled by 1/255; by default if the model was trained on such. Otherwise it is float32, and is
        scaled as in training.

    Raises
    ------
    MissingPackageError
        If the package ``onnx`` is not installed.
    SettingError
        For pixels that the model scales in another way, or labels that ONNX has no type for.
    OutputError
        If the file cannot be written.
    """
    try:
        onnx: Any = importlib.import_module("onnx")
    except ImportError as error:
        raise MissingPackageError("onnx", "onnx", f"to write {path}") from error
    if pixels is None:
        pixels = bool(model.settings.get("pixels", False))
    if pixels and model.scaling.kind != "none":
        raise SettingError(f"pixels are scaled by 1/255, but the model scales its inputs by {model.scaling.kind}")
    graph = _Graph(onnx, np.result_type(*(weights.dtype for weights, _ in model.params)))
    logits = graph.layers(model, graph.scaled("x", model, pixels))
    graph.node("Softmax", logits, name="probabilities", axis=1)
    numbers = graph.node("ArgMax", logits, name=None if model.classes is not None else "label", axis=1, keepdims=0)
    label_type = onnx.TensorProto.INT64
    if model.classes is not None:
        labels = onnx_labels(model.classes)
        label_type = onnx.helper.np_dtype_to_tensor_dtype(labels.dtype)
        graph.node("Gather", graph.constant(labels), numbers, name="label")
    info, sizes = onnx.helper.make_tensor_value_info, model.layer_sizes
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "mlp",
            [info("x", onnx.TensorProto.UINT8 if pixels else onnx.TensorProto.FLOAT, ["n", sizes[0]])],
            [info("label", label_type, ["n"]), info("probabilities", graph.type, ["n", sizes[-1]])],
            graph.constants,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="mlp_accel",
        producer_version=mlp_accel.__version__,
    )
    onnx.checker.check_model(proto, full_check=True)
    write_atomically(Path(path), lambda file: file.write(proto.SerializeToString(deterministic=True)))


def onnx_labels(classes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The labels of the classes in a type that ONNX has: int64, float64, booleans or strings; SettingError for others."""
    kinds = {type(value) for value in classes.tolist()}
    types: dict[type, Any] = {int: np.int64, float: np.float64, bool: np.bool, str: object}
    if len(kinds) != 1 or next(iter(kinds)) not in types:
        raise SettingError(f"labels in an ONNX file must all be integers, floats, booleans or strings; got {classes.tolist()}")
    return classes.astype(types[next(iter(kinds))])


class _Graph:
    """The nodes and the constants of an ONNX graph, in the order in which they are added."""

    def __init__(self, onnx: Any, dtype: np.dtype[Any]) -> None:
        self.onnx, self.dtype = onnx, dtype
        self.type = onnx.helper.np_dtype_to_tensor_dtype(dtype)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._numbers: dict[float, str] = {}

    def node(self, operation: str, *inputs: str, name: str | None = None, **settings: Any) -> str:
        """Add an operation; returns the name of its result."""
        result = name or f"t{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operation, inputs, [result], **settings))
        return result

    def constant(self, array: npt.NDArray[Any]) -> str:
        """Add an array; returns its name."""
        name = f"c{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def scaled(self, x: str, model: Model, pixels: bool) -> str:
        """The inputs as the first layer takes them; scaled in float64, where large values that differ little keep their digits."""
        scaling = model.scaling
        if scaling.kind != "none":
            x = self.node("Cast", x, to=self.onnx.TensorProto.DOUBLE)
            x = self.node("Div", self.node("Sub", x, self.constant(scaling.shift)), self.constant(scaling.scale))
        x = self.node("Cast", x, to=self.type)
        return self.node("Mul", x, self._number(1 / 255)) if pixels else x

    def layers(self, model: Model, x: str) -> str:
        """The logits."""
        activation = find_activation(model.activation)
        for layer, (weights, bias) in enumerate(model.params, start=1):
            product = self.node("MatMul", x, self.constant(weights.astype(self.dtype)))
            x = self.node("Add", product, self.constant(bias.astype(self.dtype)))
            if layer < len(model.params):
                x = self._recorded(activation.value, x)
        return x

    def _recorded(self, record: Record, argument: str) -> str:
        """What a recorded function of one argument computes."""
        known: dict[Operand, str] = {record.elements[0]: argument}

        def name(operand: Operand) -> str:
            return known[operand] if isinstance(operand, str) else self._number(operand)

        for line in record.assignments:
            operands = [name(operand) for operand in line.operands]
            if line.op == "expm1":
                known[line.name] = self.node("Sub", self.node("Exp", *operands), self._number(1.0))
            elif line.op == "log1p":
                known[line.name] = self.node("Log", self.node("Add", *operands, self._number(1.0)))
            else:
                known[line.name] = self.node(OPERATIONS[line.op], *operands)
        return name(record.results[0])

    def _number(self, value: float) -> str:
        if value not in self._numbers:
            self._numbers[value] = self.constant(np.asarray(value, self.dtype))
        return self._numbers[value]
