"""The estimator for scikit-learn (extra ``sklearn``)."""

from __future__ import annotations

from importlib.util import find_spec

from mlp_accel.errors import MissingPackageError

if find_spec("sklearn") is None:
    raise MissingPackageError("scikit-learn", "sklearn", "for mlp_accel.sklearn")

from mlp_accel.sklearn.classifier import MLPClassifier

__all__ = ["MLPClassifier"]
