"""Every check that scikit-learn has for an estimator."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import parametrize_with_checks

from mlp_accel.backends import BACKENDS, unavailable
from mlp_accel.sklearn import MLPClassifier

ESTIMATORS = [MLPClassifier(backend=name, max_iter=20) for name in reversed(BACKENDS) if not unavailable(name)]
MARK = parametrize_with_checks(ESTIMATORS)
CHECKS = list(MARK.args[1])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("estimator", "check"), CHECKS, ids=MARK.kwargs["ids"])
def test_a_check_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def test_the_checks_are_there() -> None:
    """A run that collects next to none of them would be green too."""
    assert len(CHECKS) > 40 * len(ESTIMATORS)


def test_the_checks_of_array_apis_that_scikit_learn_skips_unless_scipy_is_told() -> None:
    code = """
import warnings
from tests.sklearn.test_checks import CHECKS
warnings.simplefilter("ignore")
for estimator, check in CHECKS:
    if "array_api" in str(check):
        check(estimator)
"""
    variables = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
