"""`MLPClassifier`: scikit-learn's estimator of that name, trained by this package."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_n_features, check_is_fitted, validate_data

from mlp_accel.activations import Activation
from mlp_accel.backends import get_backend
from mlp_accel.backends.arrays import is_sparse
from mlp_accel.backends.base import Backend
from mlp_accel.backends.threads import thread_count
from mlp_accel.inputs import as_labels, as_samples, in_library_of, is_pixels, is_tensor, on_gpu, on_host
from mlp_accel.network import layer_outputs
from mlp_accel.sklearn import lbfgs, stochastic
from mlp_accel.sklearn.parameters import check_parameters, function_of
from mlp_accel.training.evaluate import on_device
from mlp_accel.training.fastest import Fastest
from mlp_accel.training.model import softmax

if TYPE_CHECKING:  # scikit-learn has no types

    class ClassifierMixin:
        """Of `sklearn.base`."""

        def __sklearn_tags__(self) -> Any: ...

        def score(self, X: Any, y: Any) -> float: ...

    class BaseEstimator:
        """Of `sklearn.base`."""

        def get_params(self, deep: bool = True) -> dict[str, Any]: ...
else:
    from sklearn.base import BaseEstimator, ClassifierMixin

PIECE = 1024
"""Samples that are predicted at a time, so that what lies between the layers stays in the cache."""


class MLPClassifier(ClassifierMixin, BaseEstimator):
    """A multilayer perceptron that classifies, trained on NumPy, Numba or CuPy.

    Parameters have the names, the defaults and the meaning that they have in `sklearn.neural_network.MLPClassifier`, and there are
    three more: `backend`, `path` and `dtype`. Two classes have two outputs here (softmax), where scikit-learn has one (logistic).

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        Units of each hidden layer.
    activation : {"identity", "logistic", "tanh", "relu"}, another name in `mlp_accel.activations`, or Activation
        Of the hidden layers.
    solver : {"adam", "sgd", "lbfgs"}
        The last one is SciPy's, on all samples at once, in float64.
    alpha : float
        Strength of the penalty: a minibatch of ``n`` samples has ``alpha / (2 * n)`` times the squares of the weights, but not of
        the biases, added to its loss.
    batch_size : int or "auto"
        Samples in a minibatch; ``"auto"`` is 200, or all if they are fewer.
    learning_rate : {"constant", "invscaling", "adaptive"}
        For sgd: how the rate goes from epoch to epoch. ``"invscaling"``: ``learning_rate_init / (t_ + 1) ** power_t``;
        ``"adaptive"``: a fifth, when there was no progress for `n_iter_no_change` epochs.
    learning_rate_init, power_t : float
    max_iter : int
        The most epochs, or iterations of lbfgs.
    shuffle : bool
        Take the samples in a fresh random order in every epoch.
    random_state : int, RandomState or None
        Of the initial parameters, of the samples for validation, and of the order of the samples.
    tol : float
        By how much the loss, or with `early_stopping` the score, must be better to be progress.
    verbose : bool
        Write a line for each epoch.
    warm_start : bool
        `fit` goes on from the parameters that are there.
    momentum, nesterovs_momentum : float, bool
        For sgd.
    early_stopping : bool
        Keep some samples out, end when the score on them is no longer getting better, and return the best parameters.
    validation_fraction : float
        The share of the samples that is kept out, the same of every class.
    beta_1, beta_2, epsilon : float
        For adam.
    n_iter_no_change : int
        The training ends after more epochs in a row without progress.
    max_fun : int
        The most evaluations of the loss by lbfgs.
    backend : str, optional
        What to compute on, as `mlp_accel.get_backend` takes it; or ``"fastest"``, as `mlp_accel.mini_batch_sgd` does.
    path : str, optional
        How an epoch is trained, by name; by default the fastest path that can.
    dtype : {"float32", "float64"}
        Of the parameters. Samples are converted to it.

    Attributes
    ----------
    classes_ : array (n_classes,)
    coefs_, intercepts_ : list of array
        Weights ``(n_in, n_out)`` and biases ``(n_out,)`` of each layer.
    n_iter_, t_ : int
        Epochs, and samples that were trained on.
    loss_, best_loss_ : float
        The loss with its penalty in the last and in the best epoch; the best is None with `early_stopping`. The penalty is the mean
        of those before and after the epoch.
    loss_curve_, validation_scores_ : list of float
        For each epoch.
    best_validation_score_ : float or None
    backend_, path_, selection_ : str
        What trained, and why that.
    n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_
        As in scikit-learn.
    """

    classes_: npt.NDArray[Any]
    coefs_: list[npt.NDArray[Any]]
    intercepts_: list[npt.NDArray[Any]]
    n_features_in_: int
    backend_: str
    path_: str
    selection_: str
    loss_: float
    loss_curve_: list[float]
    validation_scores_: list[float] | None

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        backend: str | None = None,
        path: str | None = None,
        dtype: str = "float32",
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.backend = backend
        self.path = path
        self.dtype = dtype

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any) -> MLPClassifier:
        """Train on samples `X` ``(n, n_features)`` with labels `y` ``(n,)`` of any kind.

        Raises
        ------
        ValueError
            For a parameter out of range, data that do not fit, values that are not finite, or a training that diverges.
        """
        return self._fit(X, y, goes_on=False, classes=None)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> MLPClassifier:
        """Train one epoch on some samples; the first call must name all `classes`."""
        if self.solver == "lbfgs":
            raise AttributeError("partial_fit is for the solvers sgd and adam: lbfgs needs all samples at once")
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        if classes is None and not hasattr(self, "classes_"):
            raise ValueError("classes must be passed on the first call to partial_fit.")
        return self._fit(X, y, goes_on=True, classes=classes)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The most probable label of each sample, ``(n,)``."""
        numbers = self._logits(X).argmax(axis=1)
        labels: npt.NDArray[Any] = self.classes_[numbers]
        return labels

    def predict_proba(self, X: Any) -> Any:
        """The probability of each class, ``(n, n_classes)``, in the order of `classes_`, as an array of the library of `X`."""
        return in_library_of(X, softmax(self._logits(X)))

    def predict_log_proba(self, X: Any) -> Any:
        """The logarithm of `predict_proba`, which it keeps where a probability is too small for a number."""
        logits = self._logits(X)
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return in_library_of(X, logits)

    # How it is done -----------------------------------------------------------------------------------------------------------

    def _fit(self, X: Any, y: Any, goes_on: bool, classes: Any) -> MLPClassifier:
        hidden = check_parameters(self)
        new = not hasattr(self, "coefs_") or not (self.warm_start or goes_on)
        wish = Fastest.wished(self.backend, self.dtype)
        if wish and self.solver == "lbfgs":
            raise ValueError("the fastest backend is found out for the solvers sgd and adam; for lbfgs name a backend")
        # For fastest this one looks at the data, before there is a network.
        backend = get_backend("numpy" if wish else self.backend, "float64" if self.solver == "lbfgs" else self.dtype)
        x, labels = self._check_data(X, backend, reset=new, y=as_labels(y))
        check_classification_targets(labels)
        if classes is not None or not hasattr(self, "classes_") or (new and not goes_on):
            self._set_classes(labels if classes is None else as_labels(classes), known=not new)
        indices = self._class_indices(labels)
        rng = check_random_state(self.random_state)
        function = function_of(self.activation)
        if new:
            self._initialize([self.n_features_in_, *hidden, len(self.classes_)], rng)
        params, path = list(zip(self.coefs_, self.intercepts_, strict=True)), self.path
        # A thread beside others computes on one core, so that together they do not ask for more than there are.
        threads = thread_count(None if threading.current_thread() is threading.main_thread() else 1)
        if wish:
            before = None if new else self.backend_
            backend, path = stochastic.fastest(self, wish, params, x, indices, function, threads, before)
        self.backend_, self.selection_ = backend.name, backend.selection
        with backend.limit_threads(threads), np.errstate(all="ignore"):
            if self.solver == "lbfgs":
                samples, numbers = on_device(backend, x, indices, self._layer_sizes)
                limits = self.max_iter, self.max_fun, self.tol
                params, self.loss_, self.n_iter_ = lbfgs.minimize(backend, samples, numbers, params, function, self.alpha, *limits)
                self.path_ = "loop"
            else:
                params = self._fit_stochastic(backend, path, x, indices, params, function, threads, rng, goes_on)
        self.coefs_ = [np.asarray(weights, self.dtype) for weights, _ in params]
        self.intercepts_ = [np.asarray(bias, self.dtype) for _, bias in params]
        return self

    def _fit_stochastic(
        self,
        backend: Backend,
        path: str | None,
        x: Any,
        y: npt.NDArray[np.int64],
        params: Any,
        function: Activation,
        threads: int,
        rng: np.random.RandomState,
        goes_on: bool,
    ) -> Any:
        validation = None
        if self.early_stopping:
            x, y, x_kept, y_kept = stochastic.keep_out(self, x, y, rng)
            validation = stochastic.Validation(backend, x_kept, y_kept, self._layer_sizes, function)
        if not goes_on or not hasattr(self, "_solver"):
            self._solver = stochastic.Solver.start(self, params)
        seed, epochs = int(rng.randint(2**31 - 1)), 1 if goes_on else self.max_iter
        return stochastic.train(self, self._solver, params, backend, path, x, y, function, threads, seed, epochs, validation)

    def _initialize(self, layer_sizes: list[int], rng: np.random.RandomState) -> None:
        """Draw initial parameters as scikit-learn does (Glorot and Bengio, 2010), and forget earlier epochs."""
        factor = 2.0 if self.activation in ("logistic", "sigmoid") else 6.0
        self.coefs_, self.intercepts_ = [], []
        for n_in, n_out in pairwise(layer_sizes):
            bound = np.sqrt(factor / (n_in + n_out))
            self.coefs_.append(rng.uniform(-bound, bound, (n_in, n_out)).astype(self.dtype))
            self.intercepts_.append(rng.uniform(-bound, bound, n_out).astype(self.dtype))
        self.n_layers_, self.n_outputs_, self.out_activation_ = len(layer_sizes), layer_sizes[-1], "softmax"
        self.n_iter_ = self.t_ = 0
        if self.solver != "lbfgs":
            self.loss_curve_ = []
            self.best_loss_ = None if self.early_stopping else np.inf
            self.validation_scores_ = [] if self.early_stopping else None
            self.best_validation_score_ = -np.inf if self.early_stopping else None

    @property
    def _layer_sizes(self) -> list[int]:
        return [self.coefs_[0].shape[0], *(len(bias) for bias in self.intercepts_)]

    def _logits(self, X: Any) -> npt.NDArray[np.float64]:
        """What the last layer puts out, in float64: probabilities of float32 would not sum to 1 to the seventh digit.

        That of a sample does not depend on the samples beside it.
        """
        check_is_fitted(self)
        name = self.backend_ if Fastest.wished(self.backend) else self.backend
        backend = get_backend(name, self.dtype)
        if not backend.rows_alike:
            backend = get_backend(name, "float64")
        x, _ = self._check_data(X, backend, reset=False)
        params = [
            (backend.asarray(weights), backend.asarray(bias)) for weights, bias in zip(self.coefs_, self.intercepts_, strict=True)
        ]
        function = function_of(self.activation)
        logits = np.empty((x.shape[0], len(self.classes_)))
        with np.errstate(all="ignore"):
            for start in range(0, x.shape[0], PIECE):
                piece = x[start : start + PIECE]
                outputs, _ = layer_outputs(backend, params, backend.asarray(piece.toarray()) if is_sparse(x) else piece, function)
                logits[start : start + PIECE] = backend.to_numpy(outputs[-1])
        return logits

    def _check_data(self, X: Any, backend: Backend, reset: bool, y: Any = None) -> tuple[Any, Any]:
        """Samples, as `as_samples` returns them, and labels; `reset` learns number and names of the features."""
        if backend.device != "cpu" and on_gpu(X):
            _check_n_features(self, X, reset=reset)
            given, labels = X, y
        elif not reset and y is None and self._is_plain(X):
            given, labels = X, None
        else:
            settings: dict[str, Any] = {"accept_sparse": "csr", "dtype": "numeric", "ensure_all_finite": False, "reset": reset}
            given = on_host(X) if is_tensor(X) else X
            if y is None:
                given, labels = validate_data(self, given, **settings), None
            else:
                given, labels = validate_data(self, given, y, **settings)
        if is_pixels(given) and not is_sparse(given):  # to the backend uint8 would mean pixels, which are scaled
            given = backend.xp.astype(backend.asarray(given), backend.float_dtype)
        return as_samples(given, backend, self.n_features_in_, names=getattr(self, "feature_names_in_", None)), labels

    def _is_plain(self, X: Any) -> bool:
        """Whether `validate_data` would find nothing in `X`, and convert nothing: it takes longer than to predict a row."""
        plain = type(X) is np.ndarray and X.dtype.kind in "fiu" and X.ndim == 2 and len(X) > 0
        return plain and X.shape[1] == self.n_features_in_ and not hasattr(self, "feature_names_in_")

    def _set_classes(self, labels: npt.NDArray[Any], known: bool) -> None:
        classes = np.unique(labels)
        if known and hasattr(self, "classes_") and not np.array_equal(classes, self.classes_):
            raise ValueError(f"`classes={classes}` is not the same as on last call to partial_fit, was: {self.classes_}")
        self.classes_ = classes

    def _class_indices(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """For each label the number of its class; ValueError for one that was not there in the first training."""
        found, indices = np.unique(labels, return_inverse=True)
        numbers = np.searchsorted(self.classes_, found)
        unknown = [
            str(label) for label, at in zip(found, numbers, strict=True) if at == len(self.classes_) or self.classes_[at] != label
        ]
        if unknown:
            raise ValueError(f"`y` has classes that were not there before: {', '.join(unknown)}; those were {self.classes_}")
        return numbers[indices.reshape(-1)].astype(np.int64)
