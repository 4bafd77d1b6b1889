"""The sources of the ops' kernels, all but the products; each is compiled for the dtypes and functions that it is used with."""

from __future__ import annotations

from mlp_accel.activations import Activation
from mlp_accel.backends.cupy.elementwise import REAL, activation_source, real_source, rule_source
from mlp_accel.backends.cupy.source import BASICS, DEVICE, WARP, defines, source
from mlp_accel.optimizers import Rule

COMMON = (BASICS, "ops.cuh")
THREADS = 256
"""Threads of a block; passed to the compiler by `options`."""

SAMPLES = THREADS // WARP
"""Samples that a block classifies: one for each warp."""

SHARED_BYTES = 16 * (SAMPLES + 1)
"""Shared memory that is asked for a block of ``classify``, in bytes: two float64 for each warp, and as much again for a flag. A
static_assert in ``classify.cu`` makes sure that ``struct BlockTotals`` is no larger."""

INTEGER = {
    **{f"int{bits}": c for bits, c in ((8, "signed char"), (16, "short"), (32, "int"), (64, "long long"))},
    **{f"uint{bits}": f"unsigned {c}" for bits, c in ((8, "char"), (16, "short"), (32, "int"), (64, "long long"))},
}
"""The C type of each dtype that labels may have; that of uint8 is the type of pixels, too."""

IDENTITY = Activation(lambda z: z, slope=lambda a: 1.0, name="identity")
"""The activation of the output layer: there is none."""


def options() -> tuple[str, ...]:
    """Options for the compiler."""
    return defines({"WARP": WARP, "THREADS": THREADS, "SHARED_BYTES": SHARED_BYTES})


def minibatch_source(dtype: str, pixels: str, labels: str) -> str:
    """The kernel ``gather``."""
    types = f"#define PIXEL {REAL.get(pixels, INTEGER['uint8'])}\n#define LABEL {INTEGER[labels]}\n"
    return source(DEVICE) + real_source(dtype) + types + source(*COMMON, "minibatch.cu")


def classify_source(dtype: str, labels: str) -> str:
    """The kernel ``classify``."""
    return source(DEVICE) + real_source(dtype) + f"#define LABEL {INTEGER[labels]}\n" + source(*COMMON, "classify.cu")


def dense_source(activation: Activation | None, dtype: str) -> str:
    """The kernels ``finish_layer`` and ``multiply_slope``."""
    return source(DEVICE) + real_source(dtype) + activation_source(activation or IDENTITY) + source(*COMMON, "dense.cu")


def update_source(rule: Rule, dtype: str) -> str:
    """The kernel ``update``: parameter, gradient, the scalars of the step, the number of elements, and each slot."""
    names = [f"slot{slot}" for slot in range(rule.n_slots)]
    arguments = [
        "Real* parameter",
        "const Real* gradient",
        "const Real* scalars",
        "long long n",
        *(f"Real* {name}" for name in names),
    ]
    kernel = (
        f"KERNEL update({', '.join(arguments)}) {{\n"
        f"    Real* const slots[] = {{{', '.join([*names, 'nullptr'])}}};\n"
        "    update_element(parameter, gradient, scalars, slots, n);\n"
        "}\n"
    )
    return source(DEVICE) + real_source(dtype) + rule_source(rule) + source(*COMMON, "update.cu") + kernel
