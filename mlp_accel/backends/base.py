"""The contract of a backend, and its reference implementation.

`Backend` documents each op and implements it plainly on ``self.xp``, an array module that follows the Python array API standard:
functional, without assignment to elements and without mixed dtypes. A specialised backend overrides what it makes faster, and
nothing else; every override is tested against the op here.

``out`` is memory that an op *may* write its result to. What counts is the value returned: the ops here ignore ``out``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mlp_accel.backends.epochs import Array, Params, Step, WholeEpochs
from mlp_accel.errors import check_choice

__all__ = ["ACTIVATIONS", "DTYPES", "GRADIENTS", "Array", "Backend", "Params", "Step"]

DTYPES = ("float32", "float64")
ACTIVATIONS = ("tanh", "relu", "sigmoid")
GRADIENTS = ("exact", "notebook")


class Backend(WholeEpochs):
    """Array operations for training a multilayer perceptron.

    Parameters
    ----------
    dtype : {"float32", "float64"}
        Of parameters, activations and gradients.

    Attributes
    ----------
    name : str
        As in the registry.
    device : str
        Where the arrays live, for people.
    selection : str
        Why `get_backend` took this one.
    dtype : str
        As given.
    xp : module
        The array module behind the ops.
    """

    name: ClassVar[str] = "base"
    device: str = "cpu"
    selection: str = "constructed directly"
    xp: Any

    def __init__(self, dtype: str = "float32") -> None:
        self.dtype = check_choice("dtype", dtype, DTYPES)
        self._classes: dict[int, Array] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dtype={self.dtype!r}, device={self.device!r})"

    # What a backend is made of ------------------------------------------------------------------------------------------------

    @classmethod
    def probe(cls) -> None:
        """Run a real kernel and a real product, and return if both are right.

        Raises
        ------
        BackendUnavailableError
            With the cause and the command that mends it.
        """

    @contextmanager
    def limit_threads(self, count: int) -> Iterator[None]:
        """Compute with `count` CPU threads inside the context; what was set before comes back afterwards."""
        yield

    def versions(self) -> dict[str, str]:
        """What the speed of this backend depends on: libraries, threading layer, driver."""
        return {}

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

    def empty(self, shape: tuple[int, ...]) -> Array:
        """New memory of the backend's dtype, contents undefined."""
        return self.xp.empty(shape, dtype=self.float_dtype)

    def copy(self, array: Array) -> Array:
        """The same values in new memory."""
        return self.xp.asarray(array, copy=True)

    @property
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

    # Reading data -------------------------------------------------------------------------------------------------------------

    def scale_pixels(self, x: Array, out: Array | None = None) -> Array:
        """uint8 pixels as floating point between 0 and 1 (times 1/255); floating values come back as they are."""
        if x.dtype == self.xp.uint8:
            return self.xp.astype(x, self.float_dtype) * (1.0 / 255.0)
        return x

    def minibatch(self, x: Array, y: Array, rows: Array, out: Array | None = None) -> tuple[Array, Array]:
        """Gather the samples of a minibatch.

        Parameters
        ----------
        x : array (n, n_in)
            uint8 or floating.
        y : array (n,)
            Integer labels.
        rows : array (m,)
            Indices of samples.

        Returns
        -------
        x_rows : array (m, n_in)
            Scaled as by `scale_pixels`; may be written to `out`.
        y_rows : array (m,)
            In the dtype of `y`.
        """
        return self.scale_pixels(self.xp.take(x, rows, axis=0)), self.xp.take(y, rows, axis=0)

    # Forward ------------------------------------------------------------------------------------------------------------------

    def dense(self, x: Array, weights: Array, bias: Array, activation: str = "identity", out: Array | None = None) -> Array:
        """A layer: ``activation(x @ weights + bias)``.

        Parameters
        ----------
        x : array (n, n_in)
        weights : array (n_in, n_out)
        bias : array (n_out,)
        activation : {"identity", "tanh", "relu", "sigmoid"}

        Returns
        -------
        array (n, n_out)
        """
        xp = self.xp
        check_choice("activation", activation, ("identity", *ACTIVATIONS))
        z = x @ weights + bias
        if activation == "tanh":
            return xp.tanh(z)
        if activation == "relu":
            return xp.maximum(z, xp.zeros_like(z))
        if activation == "sigmoid":
            e = xp.exp(-xp.abs(z))  # never overflows, and keeps the relative accuracy of small results
            return xp.where(z >= 0, xp.ones_like(z), e) / (1.0 + e)
        return z

    def softmax(self, logits: Array, out: Array | None = None) -> Array:
        """Probabilities ``exp(logits) / sum(exp(logits))`` of each row, for any finite logits."""
        e = self.xp.exp(logits - self.xp.max(logits, axis=1, keepdims=True))
        return e / self.xp.sum(e, axis=1, keepdims=True)

    # Loss ---------------------------------------------------------------------------------------------------------------------

    def cross_entropy(self, y: Array, y_hat: Array) -> Any:
        """Sum over the samples of ``-log y_hat[label]``, `y_hat` clipped at the smallest normal number; 0-d, float64."""
        xp = self.xp
        smallest = xp.full_like(y_hat, float(xp.finfo(y_hat.dtype).smallest_normal))
        log_likelihood = self._one_hot(y, y_hat) * xp.log(xp.maximum(y_hat, smallest))
        return -xp.sum(log_likelihood, dtype=xp.float64)

    def cross_entropy_from_logits(self, y: Array, logits: Array) -> Any:
        """Sum over the samples of ``log(sum(exp(logits))) - logits[label]``, exact for any finite logits; 0-d, float64."""
        xp = self.xp
        largest = xp.max(logits, axis=1, keepdims=True)
        log_sum = xp.log(xp.sum(xp.exp(logits - largest), axis=1))
        of_label = xp.sum(self._one_hot(y, logits) * logits, axis=1)
        # The difference of two large float32 may overflow, so it is taken in float64.
        loss = xp.astype(xp.squeeze(largest, axis=1), xp.float64) - xp.astype(of_label, xp.float64)
        return xp.sum(loss + xp.astype(log_sum, xp.float64))

    def correct(self, y: Array, scores: Array) -> Any:
        """Number of samples whose largest score (logit or probability) is that of their label; 0-d, float64."""
        xp = self.xp
        hits = xp.argmax(scores, axis=1) == xp.astype(y, xp.int64)
        return xp.sum(xp.astype(hits, xp.float64))

    # Backward -----------------------------------------------------------------------------------------------------------------

    def output_delta(self, y: Array, y_hat: Array, gradient: str, out: Array | None = None) -> Array:
        """Error at the logits.

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
        error = y_hat - self._one_hot(y, y_hat)
        if check_choice("gradient", gradient, GRADIENTS) == "notebook":
            return error * y_hat * (1.0 - y_hat)
        return error / y_hat.shape[0]

    def hidden_delta(self, delta: Array, weights: Array, activations: Array, activation: str, out: Array | None = None) -> Array:
        """Error before the activation of a hidden layer.

        Parameters
        ----------
        delta : array (n, n_out)
            Error of the layer above.
        weights : array (n_in, n_out)
            Weights of the layer above.
        activations : array (n, n_in)
            What the hidden layer put out: each derivative is a function of it.
        activation : {"tanh", "relu", "sigmoid"}

        Returns
        -------
        array (n, n_in)
            ``(delta @ weights.T) * activation'``.
        """
        check_choice("activation", activation, ACTIVATIONS)
        a, error = activations, delta @ weights.T
        if activation == "tanh":
            return error * (1.0 - a * a)
        if activation == "relu":
            return error * self.xp.astype(a > 0, self.float_dtype)
        return error * (a * (1.0 - a))

    def dense_gradient(self, x: Array, delta: Array, out: tuple[Array, Array] | None = None) -> tuple[Array, Array]:
        """Gradients of a layer's weights and bias: ``x.T @ delta`` and the sum of the rows of `delta`.

        Parameters
        ----------
        x : array (n, n_in)
            Input of the layer.
        delta : array (n, n_out)
            Error at its output, before the activation.

        Returns
        -------
        array (n_in, n_out), array (n_out,)
        """
        return x.T @ delta, self.xp.sum(delta, axis=0)

    def sgd_update(self, parameter: Array, grad: Array, learning_rate: float, out: Array | None = None) -> Array:
        """``parameter - learning_rate * grad``, for arrays of one shape; `out` may be `parameter`."""
        return parameter - learning_rate * grad

    # Helpers ------------------------------------------------------------------------------------------------------------------

    def _one_hot(self, y: Array, like: Array) -> Array:
        """``(n, n_classes)`` of zeros with a one at each label, in the shape and dtype of `like`."""
        n_classes = like.shape[1]
        if n_classes not in self._classes:  # once: making it again would be a transfer at every step
            self._classes[n_classes] = self.asarray(np.arange(n_classes, dtype=np.int64))
        labels = self.xp.expand_dims(self.xp.astype(y, self.xp.int64), axis=1)
        return self.xp.astype(labels == self._classes[n_classes], like.dtype)
