"""Eight networks at once: `train_many` on Numba's paths, one after another, and JAX with `vmap`.

    python benchmarks/many_study.py    # about two minutes

Each engine trains in a process of its own on all cores, the orders of the samples given; they take turns epoch by epoch. Written to
``benchmarks/results/many_study.json``.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from cpu_study import data_of
from records import say

from mlp_accel import get_backend, init_params
from mlp_accel.backends.threads import default_threads
from mlp_accel.bench.config import Config
from mlp_accel.bench.engines.engine import Engine
from mlp_accel.bench.engines.peers.jax_scan import JaxPeer, train_epoch, updated
from mlp_accel.bench.evidence import ratio_interval
from mlp_accel.bench.results import Summary
from mlp_accel.datasets import load
from mlp_accel.environment import environment
from mlp_accel.files import write_json
from mlp_accel.training.snapshot import order_generator
from mlp_accel.training.trainer import Trainer

RESULT = Path(__file__).parent / "results" / "many_study.json"
ENGINES = ("numba, together", "numba, one after another", "jax, vmap")
KINDS = {"mnist": (784, 32, 10), "table": (54, 32, 7)}
K, EPOCHS = 8, 12
RATE = 0.05


def ours(data: str, layer_sizes: tuple[int, ...], together: bool) -> Callable[[], list[float]]:
    """An epoch of all networks, which returns their losses."""
    loaded, backend, threads = load(data), get_backend("numba"), default_threads()
    networks, seeds = [init_params(layer_sizes, seed) for seed in range(K)], list(range(K))
    groups = [seeds] if together else [[seed] for seed in seeds]
    trainers = [
        Trainer(
            *(loaded.x_train, loaded.y_train, [networks[seed] for seed in group], backend),
            learning_rates=RATE,
            seeds=group,
            threads=threads,
        )
        for group in groups
    ]

    def epoch() -> list[float]:
        with backend.limit_threads(threads):
            return [loss for trainer in trainers for loss in trainer.epoch().losses]

    return epoch


def theirs(data: str, layer_sizes: tuple[int, ...]) -> Callable[[], list[float]]:
    """The epoch of the peer, mapped over the networks and their orders."""
    loaded = load(data)
    n = len(loaded.y_train)
    peer = JaxPeer(Config(layer_sizes=layer_sizes, threads=default_threads(), learning_rate=RATE, data=data, n_train=n))
    jax, jnp = peer.package, peer.package.numpy
    peer.load()
    states = []
    for seed in range(K):
        peer.start([(w.astype(np.float32), b.astype(np.float32)) for w, b in init_params(layer_sizes, seed)])
        states.append(peer.state)
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *states)
    generators = [order_generator(seed) for seed in range(K)]
    rates = jnp.full(-(-n // peer.batch_size), RATE, jnp.float32)
    rule = functools.partial(updated, jnp, "sgd", 0.0, 0.0)
    one = functools.partial(train_epoch, jax, "tanh", rule, peer.batch_size)
    mapped = jax.jit(jax.vmap(one, in_axes=(0, 0, None, None, None)), donate_argnums=0)

    def epoch() -> list[float]:
        nonlocal stacked
        orders = jnp.asarray(np.stack([generator.permutation(n) for generator in generators]), jnp.int32)
        stacked, losses, _ = jax.block_until_ready(mapped(stacked, orders, rates, peer.x, peer.y))
        found: list[float] = losses.tolist()
        return found

    return epoch


def work(engine: str, kind: str, data: str) -> None:
    """Answer each line of standard input with an epoch's seconds and losses."""
    sizes = KINDS[kind]
    epoch = theirs(data, sizes) if engine.startswith("jax") else ours(data, sizes, engine == ENGINES[0])
    for _ in sys.stdin:
        start = perf_counter()
        losses = epoch()
        seconds = perf_counter() - start
        sys.stdout.write(json.dumps({"result": {"seconds": seconds, "losses": losses}}) + "\n")
        sys.stdout.flush()


def measure(kind: str, folder: Path) -> dict[str, Any]:
    """Seconds of the engines' epochs, in turns, and how many times faster the first is."""
    data = data_of(kind, folder)
    engines = {name: Engine([sys.executable, __file__, name, kind, data]) for name in ENGINES}
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in ENGINES}
    try:
        for _ in range(1 + EPOCHS):
            for name, engine in engines.items():
                answers[name].append(engine.call("epoch"))
    finally:
        for engine in engines.values():
            engine.close()
    first = np.array(answers[ENGINES[0]][-1]["losses"])
    for name, given in answers.items():
        np.testing.assert_allclose(given[-1]["losses"], first, rtol=1e-3, err_msg=name)
    seconds = {name: [answer["seconds"] for answer in given[1:]] for name, given in answers.items()}
    result: dict[str, Any] = {"seconds": {name: Summary.of(samples).to_dict() for name, samples in seconds.items()}}
    for name in ENGINES[1:]:
        ratio = float(np.median(seconds[name]) / np.median(seconds[ENGINES[0]]))
        result[name] = {"ratio": ratio, "interval": ratio_interval(seconds[ENGINES[0]], seconds[name])}
        low, high = result[name]["interval"]
        say(f"{kind}: {name} takes {ratio:.2f} times as long ({low:.2f} to {high:.2f})")
    return result


def main() -> None:
    """Measure all kinds of data and write the result."""
    report = environment()
    with tempfile.TemporaryDirectory() as folder:
        found = {kind: measure(kind, Path(folder)) for kind in KINDS}
    write_json(str(RESULT), {"schema": 1, "environment": report, "networks": K, "threads": default_threads(), "kinds": found})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(*sys.argv[1:])
    else:
        main()
