"""Training written once more with plain NumPy in float64, for tests: nothing here comes from the package."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Layers = list[tuple[Floats, Floats]]

Scalars = dict[str, float]
"""What an optimiser remembers of one number, and its settings."""


def minibatches(n: int, batch_size: int, epochs: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """The rows of each minibatch: every epoch a permutation of NumPy's generator."""
    rng = np.random.default_rng([seed, 1])
    for _ in range(epochs):
        order = rng.permutation(n)
        yield from (order[start : start + batch_size] for start in range(0, n, batch_size))


def gradients(params: Layers, x: Floats, y: npt.NDArray[np.int64]) -> Layers:
    """Of the mean cross-entropy of a network with tanh units."""
    outputs = [x]
    for layer, (w, b) in enumerate(params, start=1):
        z = outputs[-1] @ w + b
        outputs.append(np.tanh(z) if layer < len(params) else z)
    p = np.exp(outputs[-1] - outputs[-1].max(axis=1, keepdims=True))
    delta = (p / p.sum(axis=1, keepdims=True) - np.eye(p.shape[1])[y]) / len(y)
    grads: Layers = []
    for layer in reversed(range(len(params))):
        grads.insert(0, (outputs[layer].T @ delta, delta.sum(axis=0)))
        if layer:
            delta = delta @ params[layer][0].T * (1 - outputs[layer] ** 2)
    return grads


# Update rules of one number, as PyTorch's documentation writes its algorithms; `t` counts the steps from 1 ------------------------


def sgd(theta: float, g: float, state: Scalars, t: int, lr: float, weight_decay: float = 0.0) -> float:
    g = g + weight_decay * theta
    return theta - lr * g


def momentum(theta: float, g: float, state: Scalars, t: int, lr: float, weight_decay: float = 0.0, mu: float = 0.9) -> float:
    g = g + weight_decay * theta
    state["b"] = mu * state["b"] + g if t > 1 else g
    return theta - lr * state["b"]


def nesterov(theta: float, g: float, state: Scalars, t: int, lr: float, weight_decay: float = 0.0, mu: float = 0.9) -> float:
    g = g + weight_decay * theta
    state["b"] = mu * state["b"] + g if t > 1 else g
    return theta - lr * (g + mu * state["b"])


def adam(theta: float, g: float, state: Scalars, t: int, lr: float, weight_decay: float = 0.0) -> float:
    return _adam(theta, g + weight_decay * theta, state, t, lr)


def adamw(theta: float, g: float, state: Scalars, t: int, lr: float, weight_decay: float = 0.01) -> float:
    return _adam(theta - lr * weight_decay * theta, g, state, t, lr)


def _adam(theta: float, g: float, state: Scalars, t: int, lr: float) -> float:
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * g * g
    m_hat, v_hat = state["m"] / (1 - 0.9**t), state["v"] / (1 - 0.999**t)
    return theta - lr * m_hat / (math.sqrt(v_hat) + 1e-8)


RULES: dict[str, Callable[..., float]] = {rule.__name__: rule for rule in (sgd, momentum, nesterov, adam, adamw)}

SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda t, n: 1.0,
    "linear": lambda t, n: (n - t) / n,
    "cosine": lambda t, n: (1 + math.cos(math.pi * t / n)) / 2,
    "one-cycle": lambda t, n: _one_cycle(t, n),
}
"""The factor of the learning rate at step t (from 0) of n; that of "step" needs the length of an epoch."""


def _one_cycle(t: int, n: int) -> float:
    """Of PyTorch's documentation: cosines from 1/25 up to 1 at 0.3 of the steps, then down to 1/25/1e4."""
    top = 0.3 * n - 1
    first, last, share = (1 / 25, 1.0, t / top) if t <= top else (1.0, 1 / 25e4, (t - top) / (n - 1 - top))
    return last + (first - last) / 2 * (1 + math.cos(math.pi * share))


def factors(schedule: str, steps: int, steps_per_epoch: int) -> list[float]:
    """The factors of all steps; "step" halves after each second epoch."""
    if schedule == "step":
        return [0.5 ** (t // (2 * steps_per_epoch)) for t in range(steps)]
    return [SCHEDULES[schedule](t, steps) for t in range(steps)]


def train(
    params: Sequence[tuple[Any, Any]],
    x: Floats,
    y: npt.NDArray[np.int64],
    rows: Sequence[npt.NDArray[np.int64]],
    rates: Sequence[float],
    rule: Callable[..., float],
    **settings: float,
) -> Layers:
    """One step for each minibatch, number by number."""
    params = [(np.array(w, np.float64), np.array(b, np.float64)) for w, b in params]
    states: dict[tuple[int, int, int], Scalars] = {}
    for t, (batch, rate) in enumerate(zip(rows, rates, strict=True), start=1):
        for layer, pair in enumerate(gradients(params, x[batch], y[batch])):
            for part, grad in enumerate(pair):
                values, slopes = params[layer][part].reshape(-1), grad.reshape(-1)
                for i in range(values.size):
                    state = states.setdefault((layer, part, i), {})
                    values[i] = rule(float(values[i]), float(slopes[i]), state, t, rate, **settings)
    return params
