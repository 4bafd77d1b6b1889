"""Other libraries on the same task, each written as its own users would write it. A new one is a file and a line here."""

from __future__ import annotations

import importlib

from mlp_accel.bench.engines.peers.base import Peer

_REGISTRY = {
    "scikit-learn": "mlp_accel.bench.engines.peers.scikit_learn:ScikitLearnPeer",
    "pytorch": "mlp_accel.bench.engines.peers.pytorch:PyTorchPeer",
    "pytorch-handwritten": "mlp_accel.bench.engines.peers.pytorch_handwritten:PyTorchHandwrittenPeer",
    "pytorch-compile": "mlp_accel.bench.engines.peers.pytorch_compile:PyTorchCompilePeer",
    "jax": "mlp_accel.bench.engines.peers.jax_scan:JaxPeer",
    "numpy-handwritten": "mlp_accel.bench.engines.peers.numpy_handwritten:NumpyHandwrittenPeer",
    "notebook": "mlp_accel.bench.engines.peers.notebook:NotebookPeer",
}
PEERS = tuple(_REGISTRY)


def peer_class(name: str) -> type[Peer]:
    """The class registered as `name`; importing it imports no library that it may lack."""
    module, _, attribute = _REGISTRY[name].partition(":")
    found: type[Peer] = getattr(importlib.import_module(module), attribute)
    return found
