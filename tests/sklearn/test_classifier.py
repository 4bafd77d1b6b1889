"""The estimator does what scikit-learn's does, and works with what scikit-learn has around it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier as Reference
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlp_accel import Activation
from mlp_accel.sklearn import MLPClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
X = (X - X.mean(axis=0)) / X.std(axis=0)
ORDER = np.random.default_rng(0).permutation(len(X))
X, Y = X[ORDER], Y[ORDER]
NAMES = np.array(["setosa", "versicolor", "virginica"])


def fitted(**parameters: Any) -> MLPClassifier:
    return MLPClassifier(**{"hidden_layer_sizes": (8,), "max_iter": 15, "random_state": 0, **parameters}).fit(X, NAMES[Y])


@pytest.mark.parametrize("path", ["fastest", "loop"])
@pytest.mark.parametrize(
    "parameters",
    [
        {"solver": "sgd", "momentum": 0, "alpha": 0, "learning_rate_init": 0.1},
        {"solver": "sgd", "momentum": 0, "alpha": 2.0, "learning_rate_init": 0.1, "hidden_layer_sizes": (9, 7)},
        {"solver": "sgd", "nesterovs_momentum": False, "alpha": 0.5, "activation": "tanh"},
        {"solver": "sgd", "alpha": 0.5, "learning_rate": "invscaling", "learning_rate_init": 0.5},
        {"solver": "sgd", "alpha": 0, "learning_rate": "adaptive", "tol": 0.5, "n_iter_no_change": 2},
        {"solver": "adam", "alpha": 3.0, "activation": "logistic"},
        {"solver": "adam", "epsilon": 0.1, "activation": "identity", "learning_rate_init": 0.01},
        {"solver": "lbfgs", "alpha": 1.0, "activation": "tanh"},
    ],
    ids=lambda parameters: "-".join(str(value) for value in parameters.values()),
)
def test_every_parameter_is_scikit_learns(parameters: dict[str, Any], path: str, backend_name: str) -> None:
    """The same numbers as scikit-learn's own estimator, epoch by epoch, the last and shorter minibatch included."""
    settings = {"hidden_layer_sizes": (8,), "max_iter": 15, "random_state": 3, "shuffle": False, "batch_size": 40, **parameters}
    expected = Reference(**settings).fit(X, Y)
    how: dict[str, Any] = {"backend": backend_name, "path": None if path == "fastest" else path, "dtype": "float64"}
    found = MLPClassifier(**settings, **how).fit(X, Y)
    assert found.n_iter_ == expected.n_iter_
    for ours, theirs in zip([*found.coefs_, *found.intercepts_], [*expected.coefs_, *expected.intercepts_], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4 if settings["solver"] == "lbfgs" else 1e-8, atol=1e-6)
    np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), atol=1e-6)
    if settings["solver"] != "lbfgs":
        np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=0.05)  # the penalty is a mean of the epoch
        if not settings.get("alpha", 1e-4):
            np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=1e-10)


def test_two_classes_are_penalised_as_by_one_output() -> None:
    """Two outputs bear twice the penalty, or alpha would be half as strong in the last layer."""
    settings: dict[str, Any] = {"hidden_layer_sizes": (), "solver": "lbfgs", "alpha": 5.0, "max_iter": 500, "random_state": 0}
    expected, found = (kind(**settings, tol=1e-9).fit(X, Y > 0) for kind in (Reference, MLPClassifier))
    np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X), atol=1e-4)


def test_defaults_are_scikit_learns() -> None:
    ours, theirs = MLPClassifier().get_params(), Reference().get_params()
    assert {name: ours[name] for name in theirs} == theirs
    assert set(ours) - set(theirs) == {"backend", "path", "dtype"}


def test_labels_and_probabilities_go_together(backend_name: str) -> None:
    classifier = fitted(backend=backend_name, max_iter=100, learning_rate_init=0.02)
    probabilities = classifier.predict_proba(X)
    assert classifier.classes_.tolist() == NAMES.tolist()
    assert classifier.score(X, NAMES[Y]) > 0.95
    np.testing.assert_array_equal(classifier.predict(X), NAMES[probabilities.argmax(axis=1)])
    np.testing.assert_allclose(np.exp(classifier.predict_log_proba(X)), probabilities)
    assert classifier.backend_ == backend_name


def test_a_prediction_does_not_depend_on_the_samples_beside_it(backend_name: str, dtype: str) -> None:
    digits, labels = load_digits(return_X_y=True)
    classifier = MLPClassifier(max_iter=2, random_state=0, backend=backend_name, dtype=dtype).fit(digits, labels)
    whole = classifier.predict_proba(digits)
    np.testing.assert_allclose(classifier.predict_proba(digits[300:]), whole[300:], rtol=0, atol=1e-12)
    np.testing.assert_allclose(classifier.predict_proba(digits[1233:1234]), whole[1233:1234], rtol=0, atol=1e-12)


def test_early_stopping_returns_the_best_parameters() -> None:
    classifier = fitted(early_stopping=True, max_iter=200, learning_rate_init=0.5, n_iter_no_change=4, validation_fraction=0.2)
    scores = classifier.validation_scores_
    assert scores is not None
    assert classifier.n_iter_ == len(scores) == len(classifier.loss_curve_) < 200
    assert classifier.best_validation_score_ == max(scores)
    assert classifier.best_loss_ is None
    best = scores.index(max(scores)) + 1
    again = fitted(early_stopping=True, max_iter=best, learning_rate_init=0.5, n_iter_no_change=4, validation_fraction=0.2)
    for ours, theirs in zip(classifier.coefs_, again.coefs_, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_partial_fit_goes_on_where_it_was() -> None:
    parameters: dict[str, Any] = {"hidden_layer_sizes": (8,), "shuffle": False, "random_state": 0, "batch_size": 50}
    whole = MLPClassifier(**parameters, max_iter=4, tol=0).fit(X, Y)
    parts = MLPClassifier(**parameters)
    for _ in range(4):
        parts.partial_fit(X, Y, classes=[0, 1, 2])
    for ours, theirs in zip(parts.coefs_, whole.coefs_, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert parts.t_ == 4 * len(X)
    np.testing.assert_array_equal(parts.loss_curve_, whole.loss_curve_)


def test_partial_fit_may_see_some_of_the_classes_only() -> None:
    classifier = MLPClassifier((8,), random_state=0)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        classifier.partial_fit(X[:5], Y[:5])
    classifier.partial_fit(X[Y == 1], Y[Y == 1], classes=[0, 1, 2])
    classifier.partial_fit(X[Y == 2], Y[Y == 2])
    assert classifier.predict_proba(X).shape == (150, 3)
    with pytest.raises(ValueError, match="classes that were not there before: 7"):
        classifier.partial_fit(X[:2], [1, 7])


def test_warm_start_goes_on() -> None:
    classifier = fitted(warm_start=True, max_iter=5)
    before = [weights.copy() for weights in classifier.coefs_]
    classifier.fit(X, NAMES[Y])
    assert len(classifier.loss_curve_) == 10
    assert classifier.loss_curve_[-1] < classifier.loss_curve_[4]
    assert not np.array_equal(before[0], classifier.coefs_[0])
    with pytest.raises(ValueError, match="classes that were not there before"):
        classifier.fit(X, Y)


def test_pickle_and_clone_give_the_same_predictions() -> None:
    classifier = fitted()
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict_proba(X), classifier.predict_proba(X))
    other = clone(classifier)
    with pytest.raises(NotFittedError):
        other.predict(X)
    np.testing.assert_array_equal(other.fit(X, NAMES[Y]).predict_proba(X), classifier.predict_proba(X))


@pytest.mark.parametrize("joblib_backend", ["loky", "threading"])
def test_a_grid_is_searched_in_processes_and_in_threads(joblib_backend: str) -> None:
    import joblib

    grid = GridSearchCV(MLPClassifier((8,), max_iter=10, random_state=0), {"learning_rate_init": [0.001, 0.05]}, cv=2, n_jobs=2)
    alone = GridSearchCV(grid.estimator, grid.param_grid, cv=2).fit(X, Y)
    with joblib.parallel_backend(joblib_backend, n_jobs=2):
        grid.fit(X, Y)
    np.testing.assert_array_equal(grid.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])
    assert grid.best_params_ == {"learning_rate_init": 0.05}


def test_pipelines_cross_validation_and_calibration() -> None:
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((8,), learning_rate_init=0.05, max_iter=30, random_state=0))
    assert cross_val_score(pipeline, X * 100 + 7, Y, cv=3).mean() > 0.9
    calibrated = CalibratedClassifierCV(pipeline, cv=2).fit(X, Y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)


def arrays(kind: str) -> Any:
    if kind in ("torch", "jax", "pandas", "polars"):
        library = pytest.importorskip(kind)
        names = ["a", "b", "c", "d"]
        make = {
            "torch": lambda: library.tensor(X),
            "jax": lambda: library.numpy.asarray(X),
            "pandas": lambda: library.DataFrame(X, columns=names),
            "polars": lambda: library.DataFrame(X, schema=names, orient="row"),
        }
        return make[kind]()
    return X.tolist() if kind == "list" else getattr(scipy.sparse, kind)(X)


@pytest.mark.parametrize("kind", ["list", "csr_matrix", "csc_array", "torch", "jax", "pandas", "polars"])
def test_any_array(kind: str) -> None:
    given = arrays(kind)
    classifier = MLPClassifier((8,), max_iter=5, random_state=0, path="loop").fit(given, NAMES[Y])
    probabilities = classifier.predict_proba(given)
    assert type(probabilities) is (type(given) if kind in ("torch", "jax") else np.ndarray)
    np.testing.assert_allclose(np.asarray(probabilities), fitted(max_iter=5, path="loop").predict_proba(X), atol=1e-6)
    assert hasattr(classifier, "feature_names_in_") == (kind in ("pandas", "polars"))


def test_a_sparse_matrix_goes_to_the_sparse_path_and_uint8_is_no_pixel() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (200, 30), dtype=np.uint8) * (rng.random((200, 30)) < 0.1)
    x, y = x.astype(np.uint8), rng.integers(0, 2, 200)
    results: list[npt.NDArray[Any]] = []
    for samples in (x, x.astype(np.float64), scipy.sparse.csr_array(x), scipy.sparse.csr_array(x.astype(np.float32))):
        classifier = MLPClassifier((8,), max_iter=5, random_state=0, backend="numba").fit(samples, y)
        assert classifier.path_ == "sparse"
        results.append(classifier.predict_proba(samples))
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], atol=1e-6)


def test_a_value_that_is_not_finite_is_named() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b", "c", "d"])
    classifier = MLPClassifier((8,), max_iter=2).fit(frame, Y)
    frame.iloc[7, 2] = np.nan
    for call in (lambda: classifier.predict(frame), lambda: classifier.fit(frame, Y)):
        with pytest.raises(ValueError, match=r"Input X contains NaN: row 7, column 2 \(c\)"):
            call()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"hidden_layer_sizes": (8, 0)}, "hidden_layer_sizes must be a whole number above 0"),
        ({"activation": "swish"}, "activation must be one of logistic, identity, tanh, relu"),
        ({"solver": "rmsprop"}, "solver must be one of sgd, adam, lbfgs"),
        ({"alpha": -1}, "alpha must be a number, 0 or more; got -1"),
        ({"learning_rate_init": 0}, "learning_rate_init must be a number above 0"),
        ({"momentum": 1}, "momentum must be a number, 0 or more and below 1"),
        ({"max_iter": 0}, "max_iter must be a whole number, 1 or more"),
        ({"batch_size": "all"}, "batch_size must be a whole number"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64"),
        ({"backend": "tpu"}, "unknown backend 'tpu'"),
        ({"path": "magic"}, "has no path 'magic'"),
        ({"solver": "sgd", "learning_rate_init": 1e30}, "scale the data, or try a smaller learning_rate_init"),
    ],
)
def test_a_parameter_out_of_range_is_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted(**parameters)


def test_an_activation_of_ones_own() -> None:
    square = Activation(lambda z: z * z, lambda z: 2.0 * z, of_input=True, name="square")
    classifier = fitted(activation=square, max_iter=60, learning_rate_init=0.02)
    assert classifier.score(X, NAMES[Y]) > 0.9


def test_the_end_without_convergence_is_a_warning() -> None:
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\) reached"):
        fitted(max_iter=2)
    with pytest.warns(ConvergenceWarning, match="lbfgs did not converge in 2 iterations"):
        fitted(max_iter=2, solver="lbfgs")


def test_verbose_writes_a_line_for_each_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    classifier = fitted(max_iter=2, verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"Iteration {i}, loss = {loss:.8f}" for i, loss in enumerate(classifier.loss_curve_, start=1)]


def test_without_scikit_learn_the_error_names_the_extra(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = """
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "sklearn" else real(name, *rest)
import mlp_accel.sklearn
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingPackageError: scikit-learn is needed for mlp_accel.sklearn" in done.stderr
    assert "pip install 'mlp-accel[sklearn]'" in done.stderr
