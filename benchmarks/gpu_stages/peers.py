"""The peers on the same GPU, each as its own users would write it. All compute in float32 (TF32 off) unless a row says otherwise.

The samples lie on the device as uint8, their order comes from the host once an epoch, and the loss is read once an epoch: as in our
own rows.
"""

from __future__ import annotations

import importlib
import os
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_stages.rows import BATCH, LAYER_SIZES, LEARNING_RATE, Engine, UnavailableError, epoch_times
from mlp_accel import get_backend, init_params, load
from mlp_accel.bench.checks import PEER
from mlp_accel.training.trainer import Trainer


class TorchEngine:
    """PyTorch: ``nn.Sequential``, autograd and ``optim.SGD``.

    Parameters
    ----------
    style : {"eager", "graphs", "compile"}
        Op by op; the whole epoch captured in a CUDA graph; or the step by ``torch.compile`` in its mode for little overhead.
    """

    def __init__(self, style: str, tf32: bool, device: str, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        torch: Any = importlib.import_module("torch")
        if device == "cuda" and not torch.cuda.is_available():
            raise UnavailableError("this PyTorch sees no GPU")
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        self.torch, self.device, self.style = torch, device, style
        self.x, self.y = torch.tensor(x, device=device), torch.tensor(y, device=device, dtype=torch.int64)
        layers: list[Any] = []
        for weights, bias in init_params(LAYER_SIZES):
            linear = torch.nn.Linear(*weights.shape)
            linear.weight.data = torch.from_numpy(weights.T.astype(np.float32).copy())
            linear.bias.data = torch.from_numpy(bias.astype(np.float32))
            layers += [linear, torch.nn.Tanh()]
        self.model = torch.nn.Sequential(*layers[:-1]).to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LEARNING_RATE)
        self.order = torch.zeros(len(x), dtype=torch.int64, device=device)
        self.total = torch.zeros((), device=device)
        self.step = (
            torch.compile(self._step, mode="reduce-overhead" if device == "cuda" else "default")
            if style == "compile"
            else self._step
        )
        self.graph = self._capture() if style == "graphs" else None
        self.events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device == "cuda" else []

    def _step(self, samples: Any) -> Any:
        x, y = self.x[samples].float() / 255, self.y[samples]
        loss = self.torch.nn.functional.cross_entropy(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _epoch(self) -> None:
        self.total.zero_()
        for samples in self.order.split(BATCH):
            self.total += self.step(samples) * len(samples)

    def _capture(self) -> Any:
        """As PyTorch's notes on CUDA graphs say: a warm-up on a side stream, then the capture; the parameters are put back."""
        torch = self.torch
        before = [parameter.detach().clone() for parameter in self.model.parameters()]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for samples in self.order.split(BATCH)[-3:]:
                self._step(samples)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._epoch()
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), before, strict=True):
                parameter.copy_(value)
        return graph

    def launch(self, orders: npt.NDArray[np.int32]) -> None:
        self.order.copy_(self.torch.from_numpy(orders[0]))
        if self.events:
            self.events[0].record()
        if self.graph is not None:
            self.graph.replay()
        else:
            self._epoch()
        if self.events:
            self.events[1].record()

    def read(self) -> tuple[list[float], float | None]:
        loss = float(self.total) / len(self.x)
        return [loss], self.events[0].elapsed_time(self.events[1]) / 1000 if self.events else None


class JaxEngine:
    """JAX: ``value_and_grad``, ``lax.scan`` over the epoch, ``vmap`` over the networks where there are several."""

    def __init__(self, tf32: bool, device: str, x: npt.NDArray[Any], y: npt.NDArray[Any], networks: int) -> None:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        jax: Any = importlib.import_module("jax")
        jnp = jax.numpy

        if device == "cuda" and jax.default_backend() != "gpu":
            raise UnavailableError("this JAX sees no GPU")
        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if tf32 else "highest")
        self.jax, self.networks, self.n = jax, networks, len(x)
        self.x, self.y = jnp.asarray(x), jnp.asarray(y)
        hosts = [init_params(LAYER_SIZES, seed=seed) for seed in range(networks)]
        stacked = [
            [np.stack(arrays).astype(np.float32) for arrays in zip(*layer, strict=True)] for layer in zip(*hosts, strict=True)
        ]
        self.params = jax.device_put(stacked)
        self.losses: Any = None

        def loss_of(params: Any, x: Any, y: Any) -> Any:
            (w1, b1), (w2, b2) = params
            logits = jnp.tanh(x @ w1 + b1) @ w2 + b2
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()

        def step(params: Any, samples: Any) -> tuple[Any, Any]:
            x = self.x[samples].astype(jnp.float32) / 255
            loss, grads = jax.value_and_grad(loss_of)(params, x, self.y[samples].astype(jnp.int32))
            params = jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, grads)
            return params, loss * len(samples)

        def epoch(params: Any, order: Any) -> tuple[Any, Any]:
            whole = self.n // BATCH * BATCH
            params, losses = jax.lax.scan(step, params, order[:whole].reshape(-1, BATCH))
            total = losses.sum()
            if whole < self.n:
                params, rest = step(params, order[whole:])
                total += rest
            return params, total / self.n

        self._epoch = jax.jit(jax.vmap(epoch) if networks > 1 else _single(epoch, jax), donate_argnums=0)

    def launch(self, orders: npt.NDArray[np.int32]) -> None:
        self.params, self.losses = self._epoch(self.params, orders)

    def read(self) -> tuple[list[float], float | None]:
        return np.asarray(self.losses).tolist(), None


def _single(epoch: Any, jax: Any) -> Any:
    """An epoch of one network without `vmap`, with the leading axis that `vmap` would want."""

    def train(params: Any, orders: Any) -> Any:
        params, loss = epoch(jax.tree.map(lambda a: a[0], params), orders[0])
        return jax.tree.map(lambda a: a[None], params), loss[None]

    return train


def times(
    peer: str, style: str = "", tf32: bool = False, networks: int = 1, epochs: int = 10, device: str = "cuda", n: int | None = None
) -> dict[str, Any]:
    """Epoch times of a peer; the loss of its first epoch is compared with NumPy's."""
    mnist = load("mnist")
    x, y = mnist.x_train[:n], mnist.y_train[:n]
    start = time.perf_counter()

    def make() -> Engine:
        if peer == "torch":
            return TorchEngine(style, tf32, device, x, y)
        return JaxEngine(tf32, device, x, y, networks)

    fields = epoch_times(make, epochs, len(x), networks)
    fields["versions"] = _versions(peer)
    fields["seconds_in_all"] = time.perf_counter() - start
    return {"mismatch": _wrong(fields["loss"][0], x, y), **fields}


def _wrong(loss: float, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> str | None:
    """What is wrong with the loss of the first epoch, by the NumPy backend; None if it is right."""
    options: dict[str, Any] = {"batch_size": BATCH, "learning_rates": [LEARNING_RATE]}
    expected = Trainer(x, y, [init_params(LAYER_SIZES)], get_backend("numpy"), **options).epoch().losses[0]
    if abs(loss - expected) <= PEER.first * expected:
        return None
    return f"the loss of the first epoch is {loss:.6g}, NumPy's is {expected:.6g}"


def _versions(peer: str) -> dict[str, str]:
    from importlib import metadata

    names = {"torch": ("torch", "triton"), "jax": ("jax", "jaxlib")}[peer]
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
