"""The kernels compiled by NVRTC for the GPUs they are meant for: nothing spilled, registers and shared memory within the limits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from mlp_accel.backends.cupy import ops
from mlp_accel.backends.cupy.paths import steps
from mlp_accel.backends.cupy.paths.cluster_shapes import ClusterShape, HalfShape, Tf32Shape
from mlp_accel.backends.cupy.paths.steps import StepShape
from tests.backends.cupy.emulator import kernels
from tests.backends.cupy.nvrtc import Needs, compile_for
from tests.backends.cupy.small import ACTIVATIONS, RULES, SGD, TANH, rule_of

REGISTERS = 65536
"""Of a multiprocessor, for all threads of a block: CUDA C++ Programming Guide, table of technical limits; the same for all."""

SHARED = {"sm_75": 65_536, "sm_80": 166_912, "sm_90": 232_448, "sm_100": 232_448, "sm_120": 101_376}
"""Bytes that a block may ask for: the same table."""

MNIST = HalfShape(784, 32, 10, 128, TANH, SGD, cluster=16)
WIDE = Tf32Shape(784, 120, 10, 128, TANH, SGD, cluster=8)
MNIST_STEPS = StepShape((784, 32, 10), 128, TANH, SGD)
FUNCTIONS = [
    *((name, "adam") for name in ACTIVATIONS),
    *(("gelu", name) for name in RULES if name != "adam"),
]
"""Every activation and every rule, each with a costly one of the other kind."""

CLUSTERS: dict[str, ClusterShape] = {
    "MNIST": MNIST,
    "MNIST, cluster of 8, notebook's rule": replace(MNIST, gradient="notebook", cluster=8).roomy,
    "MNIST, cluster of 4, momentum": replace(MNIST, rule=rule_of("momentum"), cluster=4).roomy,
    "MNIST, 128 hidden units": replace(MNIST, hidden=128).roomy,
    "odd sizes, Adam": HalfShape(781, 30, 9, 100, TANH, rule_of("adam"), cluster=8),
    "tf32": WIDE,
    "tf32: floating samples": Tf32Shape(54, 32, 7, 128, TANH, rule_of("adam"), bytes=False),
    "tf32: plain, notebook's rule, sigmoid": replace(WIDE, tf32=True, gradient="notebook", activation=ACTIVATIONS["sigmoid"]),
    "tf32: the widest network": replace(WIDE, hidden=152, cluster=16),
    "tf32: many classes": Tf32Shape(784, 32, 200, 64, TANH, SGD),
}


FEW_SPILLS = 16
"""Bytes that a kernel of the steps may spill where activation and rule need many registers: a few instructions of a step."""


def check(
    needs: dict[str, Needs], names: Sequence[str], threads: int, shared_bytes: int, architecture: str, spills: int = 0
) -> None:
    assert sorted(needs) == sorted(names)
    for name, need in needs.items():
        assert need.spills <= spills, name
        assert need.stack <= spills, name
        assert need.registers * threads <= REGISTERS, name
        assert need.static_shared + shared_bytes <= SHARED[architecture], name


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_cluster_kernel_for_sm_90(name: str) -> None:
    shape = CLUSTERS[name]
    assert shape.fits(SHARED["sm_90"])
    check(compile_for("sm_90", shape.source(), shape.options()), ["train_epoch"], shape.threads, shape.shared_bytes, "sm_90")


@pytest.mark.parametrize(("activation", "rule"), FUNCTIONS)
def test_every_activation_and_rule_in_the_kernels_of_the_paths(activation: str, rule: str) -> None:
    cluster = replace(MNIST, activation=ACTIVATIONS[activation], rule=rule_of(rule))
    check(
        compile_for("sm_90", cluster.source(), cluster.options()), ["train_epoch"], cluster.threads, cluster.shared_bytes, "sm_90"
    )
    shape = replace(MNIST_STEPS, activation=ACTIVATIONS[activation], rule=rule_of(rule))
    for architecture in ("sm_80", "sm_90"):
        needs = compile_for(architecture, shape.source(), shape.options())
        kernels = [launch.kernel for launch in (*shape.launches(), shape.sums(1))]
        check(needs, kernels, steps.THREADS, shape.shared_bytes, architecture, spills=FEW_SPILLS)


@pytest.mark.parametrize("architecture", ["sm_100", "sm_120"])
def test_the_cluster_kernel_for_newer_gpus(architecture: str) -> None:
    check(
        compile_for(architecture, MNIST.source(), MNIST.options()), ["train_epoch"], MNIST.threads, MNIST.shared_bytes, architecture
    )


def test_a_cluster_of_one_block_for_sm_80() -> None:
    shape = Tf32Shape(100, 32, 10, 64, TANH, SGD, cluster=1)
    check(compile_for("sm_80", shape.source(), shape.options()), ["train_epoch"], shape.threads, shape.shared_bytes, "sm_80")


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        ("sm_75", replace(MNIST_STEPS, tensor_cores=False)),
        ("sm_80", MNIST_STEPS),
        ("sm_90", MNIST_STEPS),
        ("sm_120", MNIST_STEPS),
        ("sm_80", StepShape((784, 256, 128, 10), 100, ACTIVATIONS["relu"], SGD, True, "notebook", True)),
        ("sm_90", StepShape((30, 40, 200), 64, ACTIVATIONS["sigmoid"], SGD, False)),
    ],
    ids=[
        "MNIST, sm_75",
        "MNIST, sm_80",
        "MNIST, sm_90",
        "MNIST, sm_120",
        "three layers, plain TF32",
        "floating images, many classes",
    ],
)
def test_the_step_kernels(architecture: str, shape: StepShape) -> None:
    needs = compile_for(architecture, shape.source(), shape.options())
    names = [launch.kernel for launch in (*shape.launches(), shape.sums(1))]
    check(needs, names, steps.THREADS, shape.shared_bytes, architecture)


@pytest.mark.parametrize("architecture", ["sm_75", "sm_90"])
@pytest.mark.parametrize(("dtype", "label"), [("float32", "uint8"), ("float64", "int64")])
def test_the_ops(dtype: str, label: str, architecture: str) -> None:
    sources = [ops.minibatch_source(dtype, pixels, label) for pixels in ("uint8", dtype)]
    sources += [ops.classify_source(dtype, label), ops.dense_source(None, dtype)]
    sources += [ops.dense_source(activation, dtype) for activation in ACTIVATIONS.values()]
    sources += [ops.update_source(rule_of(name), dtype) for name in RULES]
    for source in sources:
        needs = compile_for(architecture, source, ops.options())
        check(needs, kernels(source), ops.THREADS, ops.SHARED_BYTES, architecture)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("N_PARAMETERS", "the host makes buffers of another length"),
        ("N_DELTAS", "the host makes buffers of another length"),
        ("LAYERS", "the host counts the layers in another way"),
        ("SHARED_BYTES", "the host computes the shared memory in another way"),
        ("WARP", "lanes that the shuffles exchange between"),
        ("TILE", "rows of a tile of mma_tf32"),
        ("PIECE", "bytes that copy_async16 copies"),
    ],
)
def test_a_constant_of_the_host_that_the_kernels_do_not_share_does_not_compile(name: str, message: str) -> None:
    options = [re.sub(rf"^-D{name}=(\d+)$", lambda m: f"-D{name}={int(m[1]) + 1}", option) for option in MNIST_STEPS.options()]
    assert options != list(MNIST_STEPS.options())
    with pytest.raises(AssertionError, match=message):
        compile_for("sm_90", MNIST_STEPS.source(), options)


def test_a_host_that_counts_the_shared_memory_wrongly_does_not_compile() -> None:
    wrong = [option.replace(f"={MNIST.shared_bytes}", f"={MNIST.shared_bytes - 16}") for option in MNIST.options()]
    with pytest.raises(AssertionError, match="the host computes the shared memory in another way"):
        compile_for("sm_90", MNIST.source(), wrong)
