"""The contract of a backend, and its reference implementation.

`Backend` documents each op and implements it plainly on ``self.xp``, an array module that follows the Python array API standard:
functional, without assignment to elements and without mixed dtypes. A step of training is five ops: `minibatch`, `dense`,
`classify`, `hidden_delta` and `update`. A specialised backend overrides those of them that it makes faster; every override is
tested against the op here. What only the public verbs need is here alone, and no backend overrides it.

A *delta* is the error at a layer: the derivative of the loss by what goes into the layer's activation, for each sample and unit.

The module is longer than others because contract and reference belong on one page, and most of its lines are docstrings.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from mlp_accel.activations import Activation
from mlp_accel.backends.arrays import Array, Params, Slots
from mlp_accel.backends.memory import Arena, free_memory
from mlp_accel.backends.pace import Pace
from mlp_accel.backends.paths import EpochPath, Task
from mlp_accel.errors import check_choice
from mlp_accel.optimizers import Rule

__all__ = ["DTYPES", "GRADIENTS", "Array", "Backend", "Params", "Slots"]

Result = TypeVar("Result")

DTYPES = ("float32", "float64")
GRADIENTS = ("exact", "notebook")


class _Reused(threading.local):
    """What `Backend.reusing` has set in this thread."""

    arena: Arena | None = None


class Backend:
    """Array operations for training a multilayer perceptron.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        Of parameters, activations and gradients.

    Attributes
    ----------
    name : str
        The name by which the backend is registered and chosen.
    path_names : tuple of str
        Names of its paths, fastest first, without the loop.
    takes_device : bool
        It can compute on one of several devices: ``name:1`` means the second one, and `probe` and the constructor have the argument
        ``device``.
    rows_alike : bool
        `dense` computes every row in the same way, whatever the number of rows: its bits do not depend on the rows beside it.
    device : str
        Where the arrays live: ``"cpu"``, or in words for people.
    selection : str
        Why this one was taken, in words for people.
    automatic : bool
        `get_backend` was asked for ``"auto"``.
    dtype : str
        ``"float32"`` or ``"float64"``.
    xp : module
        The array module behind the ops.
    """

    name: ClassVar[str] = "base"
    path_names: ClassVar[tuple[str, ...]] = ()
    takes_device: ClassVar[bool] = False
    rows_alike: ClassVar[bool] = False
    device: str = "cpu"
    selection: str = "constructed directly"
    automatic: bool = False
    xp: Any

    def __init__(self, dtype: str = "float32") -> None:
        self.dtype = check_choice("dtype", dtype, DTYPES)
        self._classes: dict[int, Array] = {}
        self._reused = _Reused()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dtype={self.dtype!r}, device={self.device!r})"

    # What a backend is made of ------------------------------------------------------------------------------------------------

    @classmethod
    def probe(cls) -> None:
        """Run a real kernel and a real product, and return if both are right.

        Raises
        ------
        BackendUnavailableError
            With the cause and the command that fixes it.
        """

    @classmethod
    def slower_than(cls) -> Mapping[str, str]:
        """Backends known to be faster than this one on this machine, each with how that is known; asked where this one can run.

        ``auto`` takes one of them in its place, if it can run, and says why.
        """
        return {}

    @contextmanager
    def limit_threads(self, count: int) -> Iterator[None]:
        """Compute with `count` CPU threads inside the context; afterwards the number is what it was before."""
        yield

    @contextmanager
    def step_threads(self, task: Task) -> Iterator[Pace]:
        """Give steps of the loop the threads that suit them inside the context, no more than `limit_threads` allows.

        Yields what is to be told after each step how many seconds it has taken.
        """
        yield Pace()

    def spread(self, jobs: Sequence[Callable[[], Result]]) -> list[Result]:
        """Do jobs that do not depend on each other: here one after another; a backend may do them at once, a thread for each."""
        return [job() for job in jobs]

    def versions(self) -> dict[str, str]:
        """What the speed of this backend depends on: libraries, threading layer, driver."""
        return {}

    def launch_clock(self) -> Callable[[], float | None]:
        """What returns, after an epoch, its seconds by the clock of the device from the first launch to the end of the last.

        It returns None where there is no such clock, and for a path that is not launched as a whole, such as the loop.
        """
        return lambda: None

    def free_memory(self) -> int:
        """Bytes of memory that networks can still get where they are trained."""
        return free_memory()

    @property
    def paths(self) -> Sequence[EpochPath]:
        """Its own ways to train an epoch, fastest first; the loop comes after them."""
        return ()

    def path_named(self, name: str) -> EpochPath | None:
        """One of its paths, or None if it has none of that name."""
        return next((path for path in self.paths if path.name == name), None)

    # Moving data --------------------------------------------------------------------------------------------------------------

    def asarray(self, array: Any) -> Array:
        """Put `array` on the device. Floating values take the backend's dtype; uint8 pixels and integer labels keep theirs."""
        result = self.xp.asarray(array)
        if self.xp.isdtype(result.dtype, "real floating") and result.dtype != self.float_dtype:
            result = self.xp.astype(result, self.float_dtype)
        return result

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        """Copy `array` to the host, waiting for the device."""
        return np.asarray(array)

    def synchronize(self) -> None:
        """Wait until everything asked of the device is done."""

    def empty(self, shape: tuple[int, ...], dtype: Any = None) -> Array:
        """An array with undefined contents, by default of the backend's dtype.

        It is new memory, or inside of `reusing` memory that the step before no longer needs.
        """
        dtype, arena = dtype or self.float_dtype, self._reused.arena
        return self._new(shape, dtype) if arena is None else arena.take(shape, dtype, self._new)

    def _new(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self.xp.empty(shape, dtype=dtype)

    @contextmanager
    def reusing(self, arena: Arena | None) -> Iterator[None]:
        """Inside the context, in this thread, `empty` and with it every op takes memory from `arena`; None means new memory."""
        before, self._reused.arena = self._reused.arena, arena
        try:
            yield
        finally:
            self._reused.arena = before

    def copy(self, array: Array) -> Array:
        """A copy of the array in new memory."""
        return self.xp.asarray(array, copy=True)

    def scalar_rows(self, table: npt.NDArray[np.float64]) -> Any:
        """The scalars of each step in the form in which `update` takes them, from a table ``(n_steps, n_scalars)`` on the host."""
        rows = self.asarray(table)
        return [rows[step, ...] for step in range(len(table))]

    def join(self, values: Sequence[Any]) -> Array:
        """0-d values, or arrays of one shape, put together in one array with one dimension more."""
        return self.xp.stack(list(values))

    @cached_property
    def float_dtype(self) -> Any:
        """The backend's dtype as an object of `xp`."""
        return getattr(self.xp, self.dtype)

    def check_input(self, x: Array, n_in: int) -> None:
        """Refuse an `x` that is not ``(n, n_in)`` of uint8 or of the backend's dtype; looks at no element.

        Raises
        ------
        ValueError, TypeError
            For the shape and for the dtype.
        """
        if x.ndim != 2 or x.shape[1] != n_in:
            raise ValueError(f"x must have shape (n, {n_in}), the number of inputs of the first layer; got {tuple(x.shape)}")
        if x.dtype != self.xp.uint8 and x.dtype != self.float_dtype:
            raise TypeError(f"x must be uint8 or {self.dtype}; got {x.dtype}. backend.asarray(x) converts floating values")

    # A step of training --------------------------------------------------------------------------------------------------------

    def minibatch(self, x: Array, y: Array, samples: Array) -> tuple[Array, Array]:
        """Gather the samples of a minibatch.

        Parameters
        ----------
        x : array (n, n_in)
            uint8 or floating.
        y : array (n,)
            Integer labels.
        samples : array (m,)
            Numbers of the samples to gather, from 0; negative ones count from the end. One that there is not is an IndexError or,
            where the host would have to wait to see it, a sample of NaN.

        Returns
        -------
        x_of_batch : array (m, n_in)
            Floating; uint8 scaled as by `scale_pixels`.
        y_of_batch : array (m,)
            In the dtype of `y`.
        """
        return self.scale_pixels(self.xp.take(x, samples, axis=0)), self.xp.take(y, samples, axis=0)

    def dense(self, x: Array, weights: Array, bias: Array, activation: Activation | None = None) -> tuple[Array, Array]:
        """A layer: ``activation(x @ weights + bias)``; without an activation the sums themselves.

        Parameters
        ----------
        x : array (n, n_in)
        weights : array (n_in, n_out)
        bias : array (n_out,)
        activation : Activation, optional

        Returns
        -------
        output : array (n, n_out)
        slope_input : array (n, n_out)
            What `hidden_delta` computes the slope of the activation from: the output (the same array), or the sums that go into the
            activation (``activation.of_input``).
        """
        z = x @ weights + bias
        if activation is None:
            return z, z
        (output,) = activation.value(self.xp, [z])
        return output, z if activation.of_input else output

    def classify(self, logits: Array, y: Array, gradient: str) -> tuple[Array, Any, Any]:
        """Softmax, cross-entropy, right answers and the delta at the logits.

        Parameters
        ----------
        logits : array (n, n_classes)
            Any finite values; may be overwritten.
        y : array (n,)
            Integer labels. Training checks beforehand that each is a class; what happens with another is not defined, but never a
            fault of memory.
        gradient : {"exact", "notebook"}
            As in `output_delta`.

        Returns
        -------
        delta : array (n, n_classes)
            See `output_delta`.
        loss : 0-d value
            Sum over the samples of ``log(sum(exp(logits))) - logits[label]``; float64.
        hits : 0-d value
            Number of samples whose first largest logit is that of their label; float64.
        """
        xp = self.xp
        largest = xp.max(logits, axis=1, keepdims=True)
        exp_sum = xp.sum(xp.exp(logits - largest), axis=1)
        of_label = xp.sum(self._one_hot(y, logits) * logits, axis=1)
        # The difference of two large float32 may overflow, so it is taken in float64.
        margin = xp.astype(xp.squeeze(largest, axis=1), xp.float64) - xp.astype(of_label, xp.float64)
        loss = xp.sum(margin + xp.astype(xp.log(exp_sum), xp.float64))
        return self.output_delta(y, self.softmax(logits), gradient), loss, self.correct(y, logits)

    def hidden_delta(self, delta: Array, weights: Array, slope_input: Array, activation: Activation) -> Array:
        """The delta of a hidden layer, from that of the layer above.

        Parameters
        ----------
        delta : array (n, n_out)
            Delta of the layer above.
        weights : array (n_in, n_out)
            Weights of the layer above.
        slope_input : array (n, n_in)
            As `dense` returned it for the hidden layer.
        activation : Activation
            Activation of the hidden layer.

        Returns
        -------
        array (n, n_in)
            ``(delta @ weights.T) * slope``.
        """
        (result,) = activation.times_slope(self.xp, [delta @ weights.T, slope_input])
        return result

    def update(
        self, params: tuple[Array, Array], slots: list[tuple[Array, Array]], x: Array, delta: Array, rule: Rule, scalars: Any
    ) -> tuple[tuple[Array, Array], list[tuple[Array, Array]]]:
        """The gradient of a layer, and what the optimiser makes of it.

        Parameters
        ----------
        params : (weights (n_in, n_out), bias (n_out,))
            May be overwritten.
        slots : list of (weights, bias)
            What the rule remembers, in the same shapes; may be overwritten.
        x : array (n, n_in)
            Input of the layer.
        delta : array (n, n_out)
            Delta of the layer; may be overwritten.
        rule : Rule
        scalars : sequence of float or array (n_scalars,)
            Those of this step: one row of what `scalar_rows` returns.

        Returns
        -------
        params, slots
            In the same form.
        """
        results = [
            self.apply_rule(rule, parameter, grad, parameter_slots, scalars)
            for parameter, grad, parameter_slots in zip(params, self.dense_gradient(x, delta), self._unpaired(slots), strict=True)
        ]
        (weights, *weight_slots), (bias, *bias_slots) = results
        return (weights, bias), list(zip(weight_slots, bias_slots, strict=True))

    # What only the public verbs need -------------------------------------------------------------------------------------------

    def scale_pixels(self, x: Array) -> Array:
        """uint8 pixels as floating point between 0 and 1 (times 1/255); floating values come back as they are."""
        if x.dtype == self.xp.uint8:
            return self.xp.astype(x, self.float_dtype) * (1.0 / 255.0)
        return x

    def softmax(self, logits: Array) -> Array:
        """Probabilities ``exp(logits) / sum(exp(logits))`` of each row, for any finite logits."""
        e = self.xp.exp(logits - self.xp.max(logits, axis=1, keepdims=True))
        return e / self.xp.sum(e, axis=1, keepdims=True)

    def cross_entropy(self, y: Array, y_hat: Array) -> Any:
        """Sum over the samples of ``-log y_hat[label]``, `y_hat` clipped at the smallest normal number; 0-d, float64."""
        xp = self.xp
        smallest = xp.full_like(y_hat, float(xp.finfo(y_hat.dtype).smallest_normal))
        log_likelihood = self._one_hot(y, y_hat) * xp.log(xp.maximum(y_hat, smallest))
        return -xp.sum(log_likelihood, dtype=xp.float64)

    def correct(self, y: Array, scores: Array) -> Any:
        """Number of samples whose largest score (logit or probability) is that of their label; 0-d, float64."""
        xp = self.xp
        hits = xp.argmax(scores, axis=1) == xp.astype(y, xp.int64)
        return xp.sum(xp.astype(hits, xp.float64))

    def output_delta(self, y: Array, y_hat: Array, gradient: str) -> Array:
        """The delta at the logits.

        Parameters
        ----------
        y : array (n,)
            Integer labels.
        y_hat : array (n, n_classes)
            Probabilities.
        gradient : {"exact", "notebook"}
            ``"exact"``: ``(y_hat - one_hot(y)) / n``, the derivative of the mean cross-entropy (Bishop, "Pattern Recognition and
            Machine Learning", 2006, equation 4.109). ``"notebook"``: ``(y_hat - one_hot(y)) * y_hat * (1 - y_hat)``.

        Returns
        -------
        array (n, n_classes)
        """
        delta = y_hat - self._one_hot(y, y_hat)
        if check_choice("gradient", gradient, GRADIENTS) == "notebook":
            return delta * y_hat * (1.0 - y_hat)
        return delta / y_hat.shape[0]

    def dense_gradient(self, x: Array, delta: Array) -> tuple[Array, Array]:
        """Gradients of a layer's weights and bias: ``x.T @ delta`` and the sum of the rows of `delta`.

        Parameters
        ----------
        x : array (n, n_in)
            Input of the layer.
        delta : array (n, n_out)
            Delta of the layer.

        Returns
        -------
        array (n_in, n_out), array (n_out,)
        """
        return x.T @ delta, self.xp.sum(delta, axis=0)

    def apply_rule(self, rule: Rule, parameter: Array, grad: Array, slots: Sequence[Array], scalars: Any) -> tuple[Array, ...]:
        """A parameter and its slots after the update, all arrays of one shape."""
        return rule.record(self.xp, [parameter, grad, *slots], [scalars[i] for i in range(rule.n_scalars)])

    # Helpers ------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _unpaired(slots: list[tuple[Array, Array]]) -> tuple[list[Array], list[Array]]:
        """The slots of the weights, and those of the bias."""
        return [weights for weights, _ in slots], [bias for _, bias in slots]

    def _one_hot(self, y: Array, like: Array) -> Array:
        """``(n, n_classes)`` of zeros with a one at each label, in the shape and dtype of `like`."""
        if y.shape != like.shape[:1]:  # another shape might be stretched to fit
            raise ValueError(f"y must hold one label for each row: shapes {tuple(y.shape)}, {tuple(like.shape)}")
        n_classes = like.shape[1]
        if n_classes not in self._classes:  # once: making it again would be a transfer at every step
            self._classes[n_classes] = self.asarray(np.arange(n_classes, dtype=np.int64))
        labels = self.xp.expand_dims(self.xp.astype(y, self.xp.int64), axis=1)
        return self.xp.astype(labels == self._classes[n_classes], like.dtype)
