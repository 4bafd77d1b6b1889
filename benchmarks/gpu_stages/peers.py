"""The peers on the same GPU, each as its own users would write it. All compute in float32 (TF32 off) unless a row says otherwise.

The samples lie on the device as they are, their order is drawn by NumPy on the host while the GPU works on the epoch before, and
the loss is read once an epoch: as in our own rows.
"""

from __future__ import annotations

import importlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_stages.cases import BATCH, MNIST, Case, reference_losses, samples
from gpu_stages.rows import Effort, UnavailableError
from gpu_stages.timing import epoch_times
from mlp_accel import init_params
from mlp_accel.backends.threads import default_threads
from mlp_accel.bench.checks import PEER
from mlp_accel.training.snapshot import order_generator


class PeerEpochs(ABC):
    """Networks in training, for `epoch_times`.

    Parameters
    ----------
    n, networks : int
        Samples of an epoch, and how many networks are trained.
    """

    def __init__(self, n: int, networks: int = 1) -> None:
        self.n = n
        self._generators = [order_generator(seed) for seed in range(networks)]
        self._pool = ThreadPoolExecutor(max(1, min(networks, default_threads())))
        self._orders = self._draw()

    def _draw(self) -> npt.NDArray[np.int32]:
        return np.stack(list(self._pool.map(lambda generator: generator.permutation(self.n).astype(np.int32), self._generators)))

    def epoch(self) -> tuple[Sequence[float], float, float | None]:
        """See `gpu_stages.timing.Epochs`."""
        start = time.perf_counter()
        self._launch(self._orders)
        self._orders = self._draw()
        losses, device = self._read()
        return losses, time.perf_counter() - start, device

    @abstractmethod
    def _launch(self, orders: npt.NDArray[np.int32]) -> None:
        """Start an epoch in this order; may return before it is done."""

    @abstractmethod
    def _read(self) -> tuple[list[float], float | None]:
        """Wait for it: the mean loss of each network, and seconds by the clock of the device where it has one."""


class TorchEpochs(PeerEpochs):
    """PyTorch: ``nn.Sequential``, autograd and ``optim.SGD``.

    Parameters
    ----------
    style : {"eager", "graphs", "compile"}
        Op by op; the whole epoch captured in a CUDA graph; or the step by ``torch.compile`` in its mode for little overhead.
    """

    def __init__(self, case: Case, style: str, tf32: bool, device: str, n: int | None) -> None:
        x, y = samples(case, n)
        super().__init__(len(x))
        torch: Any = importlib.import_module("torch")
        if device == "cuda" and not torch.cuda.is_available():
            raise UnavailableError("this PyTorch sees no GPU")
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        self.torch = torch
        self.x, self.y = torch.tensor(x, device=device), torch.tensor(y, device=device, dtype=torch.int64)
        layers: list[Any] = []
        for weights, bias in init_params(case.layer_sizes):
            linear = torch.nn.Linear(*weights.shape)
            linear.weight.data = torch.from_numpy(weights.T.astype(np.float32).copy())
            linear.bias.data = torch.from_numpy(bias.astype(np.float32))
            layers += [linear, torch.nn.Tanh()]
        self.model = torch.nn.Sequential(*layers[:-1]).to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=case.learning_rate)
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
        x = self.x[samples] if self.x.is_floating_point() else self.x[samples].float() / 255
        loss = self.torch.nn.functional.cross_entropy(self.model(x), self.y[samples])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _epoch(self) -> None:
        self.total.zero_()
        for batch in self.order.split(BATCH):
            self.total += self.step(batch) * len(batch)

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

    def _launch(self, orders: npt.NDArray[np.int32]) -> None:
        self.order.copy_(self.torch.from_numpy(orders[0]))
        if self.events:
            self.events[0].record()
        if self.graph is not None:
            self.graph.replay()
        else:
            self._epoch()
        if self.events:
            self.events[1].record()

    def _read(self) -> tuple[list[float], float | None]:
        loss = float(self.total) / len(self.x)
        return [loss], self.events[0].elapsed_time(self.events[1]) / 1000 if self.events else None


class JaxEpochs(PeerEpochs):
    """JAX: ``value_and_grad``, ``lax.scan`` over the epoch, ``vmap`` over the networks where there are several."""

    def __init__(self, case: Case, tf32: bool, device: str, n: int | None, networks: int) -> None:
        data = samples(case, n)
        super().__init__(len(data[0]), networks)
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        jax: Any = importlib.import_module("jax")
        jnp = jax.numpy

        if device == "cuda" and jax.default_backend() != "gpu":
            raise UnavailableError("this JAX sees no GPU")
        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if tf32 else "highest")
        self._data = jnp.asarray(data[0]), jnp.asarray(data[1].astype(np.int32))
        hosts = [init_params(case.layer_sizes, seed=seed) for seed in range(networks)]
        stacked = [
            [np.stack(arrays).astype(np.float32) for arrays in zip(*layer, strict=True)] for layer in zip(*hosts, strict=True)
        ]
        self.params = jax.device_put(stacked)
        self.losses: Any = None

        def loss_of(params: Any, x: Any, y: Any) -> Any:
            (w1, b1), (w2, b2) = params
            logits = jnp.tanh(x @ w1 + b1) @ w2 + b2
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()

        def epoch(params: Any, order: Any, x: Any, y: Any) -> tuple[Any, Any]:
            def step(params: Any, samples: Any) -> tuple[Any, Any]:
                inputs = x[samples] if jnp.issubdtype(x.dtype, jnp.floating) else x[samples].astype(jnp.float32) / 255
                loss, grads = jax.value_and_grad(loss_of)(params, inputs, y[samples])
                params = jax.tree.map(lambda p, g: p - case.learning_rate * g, params, grads)
                return params, loss * len(samples)

            whole = self.n // BATCH * BATCH
            params, losses = jax.lax.scan(step, params, order[:whole].reshape(-1, BATCH))
            total = losses.sum()
            if whole < self.n:
                params, rest = step(params, order[whole:])
                total += rest
            return params, total / self.n

        of_networks = jax.vmap(epoch, in_axes=(0, 0, None, None)) if networks > 1 else _single(epoch, jax)
        self._epoch = jax.jit(of_networks, donate_argnums=0)

    def _launch(self, orders: npt.NDArray[np.int32]) -> None:
        self.params, self.losses = self._epoch(self.params, orders, *self._data)

    def _read(self) -> tuple[list[float], float | None]:
        return np.asarray(self.losses).tolist(), None


def _single(epoch: Any, jax: Any) -> Any:
    """An epoch of one network without `vmap`, with the leading axis that `vmap` would want."""

    def train(params: Any, orders: Any, x: Any, y: Any) -> Any:
        params, loss = epoch(jax.tree.map(lambda a: a[0], params), orders[0], x, y)
        return jax.tree.map(lambda a: a[None], params), loss[None]

    return train


def times(
    peer: str,
    style: str,
    effort: Effort,
    tf32: bool = False,
    case: Case = MNIST,
    networks: int = 1,
    device: str = "cuda",
) -> dict[str, Any]:
    """Epoch times of a peer; the loss of its first epoch is compared with NumPy's."""
    start = time.perf_counter()

    def make() -> PeerEpochs:
        if peer == "torch":
            return TorchEpochs(case, style, tf32, device, effort.samples)
        return JaxEpochs(case, tf32, device, effort.samples, networks)

    fields = epoch_times(make, effort, networks)
    del fields["first_epoch_losses"]
    fields |= {"case": str(case), "versions": _versions(peer), "seconds_in_all": time.perf_counter() - start}
    expected, loss = reference_losses(case, effort.samples)[0], fields["loss"][0]
    wrong = None if abs(loss - expected) <= PEER.first * expected else f"its first loss is {loss:.6g}, NumPy's is {expected:.6g}"
    return {"mismatch": wrong, **fields}


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
