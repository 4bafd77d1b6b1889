"""The step kernels (``steps.cu``): a network of any depth, a few launches a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from mlp_accel.activations import Activation
from mlp_accel.backends.cupy.elementwise import activation_source, real_source, rule_source
from mlp_accel.backends.cupy.source import DEVICE, TILE, ceil_div, defines, product_constants, round_up, source
from mlp_accel.optimizers import Rule

FILES = ("common.cuh", "steps.cu")
COMPUTE_CAPABILITY = (8, 0)
"""TF32 on tensor cores came with it."""

WARPS, COLUMNS = 8, 32
"""Of a block: its warps, and the columns of its tile; `StepShape.options` tells the source."""

THREADS = 32 * WARPS


@dataclass(frozen=True)
class Launch:
    """A kernel and its number of blocks."""

    kernel: str
    blocks: int


@dataclass(frozen=True)
class StepShape:
    """What the kernels are compiled for.

    Attributes
    ----------
    layer_sizes : tuple of int
        Inputs, hidden layers, classes.
    batch : int
        Samples in a minibatch.
    activation : Activation
        Of the hidden layers.
    rule : Rule
        Of the optimiser.
    bytes : bool
        Images are uint8; otherwise float32.
    gradient : {"exact", "notebook"}
        See `mlp_accel.network.backward`.
    tf32 : bool
        Plain TF32 products; otherwise split ones of float32 grade.
    """

    layer_sizes: tuple[int, ...]
    batch: int
    activation: Activation
    rule: Rule
    bytes: bool = True
    gradient: str = "exact"
    tf32: bool = False

    @property
    def layers(self) -> int:
        """Number of layers that have weights."""
        return len(self.layer_sizes) - 1

    @property
    def n_parameters(self) -> int:
        """In one buffer: weights and bias of each layer in turn. Their slots follow, laid out alike."""
        return sum((n_in + 1) * n_out for n_in, n_out in pairwise(self.layer_sizes))

    @property
    def n_deltas(self) -> int:
        """Elements of the buffer for the errors of all layers."""
        return self.batch * sum(self.layer_sizes[1:])

    @property
    def n_outputs(self) -> int:
        """Elements of the buffer for what the layers put out and, where the slope needs them, the sums before the activation."""
        return (1 + self.activation.of_input) * self.n_deltas

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block: the size of ``struct Memory``, which checks it when it is compiled."""
        return 4 * TILE * (WARPS * COLUMNS + round_up(self.layer_sizes[-1], COLUMNS))

    def launches(self) -> Iterator[Launch]:
        """The kernels of a step, in order."""
        sizes, row_tiles = self.layer_sizes, ceil_div(self.batch, TILE)
        for layer in range(self.layers - 1):
            yield Launch(f"forward_{layer}", row_tiles * ceil_div(sizes[layer + 1], COLUMNS))
        yield Launch("output_layer", row_tiles)
        for layer in range(self.layers - 1, 0, -1):
            yield Launch(f"backward_{layer}", row_tiles * ceil_div(sizes[layer], COLUMNS))
        yield Launch("update_layers", sum(ceil_div(m + 1, TILE) * ceil_div(n, COLUMNS) for m, n in pairwise(sizes)))

    def sums(self, steps: int) -> Launch:
        """The kernel that ends an epoch."""
        return Launch("sum_losses", ceil_div(steps, WARPS))

    def kernels(self) -> str:
        """Their definitions: one for each layer, where layers differ."""
        lines = [f"FORWARD_KERNEL(forward_{layer}, forward<{layer}>)" for layer in range(self.layers - 1)]
        lines += [f"STEP_KERNEL(backward_{layer}, backward<{layer}>)" for layer in range(1, self.layers)]
        lines += ["STEP_KERNEL(output_layer, output)", "STEP_KERNEL(update_layers, update_all)"]
        return "\n".join([*lines, "STEP_KERNEL(sum_losses, sum_minibatches)", ""])

    def options(self) -> tuple[str, ...]:
        """For the compiler."""
        stride = round_up(self.layer_sizes[0], 16) if self.bytes else self.layer_sizes[0]
        sizes: dict[str, int | str] = {
            "SIZES": ",".join(map(str, self.layer_sizes)),
            "LAYERS": self.layers,
            "CLASSES": self.layer_sizes[-1],
        }
        data = {"BATCH": self.batch, "BYTES": int(self.bytes), "IMAGE_STRIDE": stride, "SHARED_BYTES": self.shared_bytes}
        launch = {"WARPS": WARPS, "COLUMNS": COLUMNS}
        return defines({**sizes, **data, **launch, **product_constants(self.gradient, self.tf32)})

    def source(self) -> str:
        """CUDA C++ for NVRTC."""
        functions = real_source() + activation_source(self.activation) + rule_source(self.rule)
        return source(DEVICE) + functions + source(*FILES) + self.kernels()

    def fits(self, shared_limit: int) -> bool:
        """Whether a block has room for the scores of its samples."""
        return self.shared_bytes <= shared_limit
