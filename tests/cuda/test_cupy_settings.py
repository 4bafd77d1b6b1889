"""What is asked of the CuPy backend, and what goes wrong with a GPU: each a clear message or a stated fall to another path."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mlp_accel import BackendUnavailableError, DeviceMemoryError, SettingError, get_backend, init_params, mini_batch_sgd
from mlp_accel.backends import Backend
from mlp_accel.backends.cupy_backend import CupyBackend
from mlp_accel.backends.cupy_paths import PathError, PathSettings
from mlp_accel.training import SGDStep, Trainer
from tests.cuda.fake_cupy import FakeCupy, OutOfMemoryError
from tests.cuda.small import SIZES, backend_by, data
from tests.reference import ReferenceBackend

# TF32, devices, settings ----------------------------------------------------------------------------------------------------------


def test_tf32_is_off_unless_asked_for_whatever_cupy_is_set_to(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLP_ACCEL_TF32", raising=False)
    cupy.compute_types["float32"] = 7
    x, y = data(20)
    mini_batch_sgd(x, y, init_params(SIZES), epochs=1, batch_size=10, backend=backend_by("ops"))
    assert {entry for entry in cupy.log if entry.startswith("product")} == {"product (compute type 1)"}
    assert cupy.compute_types["float32"] == 7
    assert CupyBackend().versions()["tf32"] == "off"
    monkeypatch.setenv("MLP_ACCEL_TF32", "1")
    backend = CupyBackend()
    assert backend.versions()["tf32"] == "on"
    cupy.log.clear()
    backend.dense(*(backend.asarray(np.ones(shape)) for shape in ((2, 3), (3, 4), (4,))))
    assert "product (compute type 7)" in cupy.log


def test_the_path_may_be_named_in_the_environment(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLP_ACCEL_CUPY_PATH", "cluster:4")
    settings = CupyBackend().settings
    assert (settings.path, settings.cluster) == ("cluster", 4)
    for wrong in ("clusters", "cluster:3", "ops:2"):
        monkeypatch.setenv("MLP_ACCEL_CUPY_PATH", wrong)
        with pytest.raises(SettingError, match="from the environment variable MLP_ACCEL_CUPY_PATH is no path; choose one of auto"):
            CupyBackend()
    with pytest.raises(SettingError, match="the path 'ops' has no cluster"):
        PathSettings("ops", cluster=4)
    with pytest.raises(SettingError, match="a cluster has 1, 2, 4, 8 or 16 thread blocks; got 3"):
        PathSettings(cluster=3)
    monkeypatch.setenv("MLP_ACCEL_CUPY_PATH", "")
    assert CupyBackend().settings.path == "auto"


@pytest.mark.parametrize("name", ["cupy", "cupy:1"])
def test_a_number_picks_one_of_several_devices(install: Callable[..., FakeCupy], name: str) -> None:
    cupy = install(devices=2)
    backend = get_backend(name)
    expected = 1 if ":" in name else 0
    assert backend.device == f"cuda:{expected} Emulated GPU {expected}"
    cupy.current_device = 0
    seen = []

    def take(*arguments: Any, **keywords: Any) -> Any:
        seen.append(cupy.current_device)
        return np.take(*arguments, **keywords).view(cupy.ndarray)

    backend.xp.take = take
    x, y = data(10)
    backend.minibatch(backend.asarray(x), backend.asarray(y), backend.asarray(np.arange(3)))
    assert seen == [expected]
    assert cupy.current_device == 0


def test_a_device_that_is_not_there_is_an_error_that_says_which_are(install: Callable[..., FakeCupy]) -> None:
    install(devices=2)
    with pytest.raises(BackendUnavailableError, match=r"there is no device 2.*choose cupy:0 to cupy:1"):
        get_backend("cupy:2")
    for name in ("numpy:1", "cupy:", "cupy:x", "cupy:-1"):
        with pytest.raises(SettingError, match="choose one of auto, cupy, numba, numpy, or cupy:1 for the second device"):
            get_backend(name)


# Failures -------------------------------------------------------------------------------------------------------------------------


def test_out_of_memory_says_how_much_there_is_and_what_to_do(cupy: FakeCupy) -> None:
    backend = CupyBackend()
    cupy.fail["allocate"] = OutOfMemoryError("Out of memory allocating 47,040,000 bytes")
    with pytest.raises(
        DeviceMemoryError, match=r"cuda:0 Emulated GPU 0: .*47,040,000 bytes.* 3.0 of 140.0 GiB are free; use fewer"
    ):
        backend.asarray(np.zeros((60000, 784), np.uint8))
    x, y = data(20)
    del cupy.fail["allocate"]
    trainer = Trainer(x, y, init_params(SIZES), SGDStep(0.1), backend, batch_size=10)
    trainer.epoch()
    cupy.fail["allocate"] = OutOfMemoryError("Out of memory allocating 1 byte")
    with pytest.raises(DeviceMemoryError):
        trainer.epoch()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA_ERROR_INVALID_CLUSTER_SIZE: Invalid cluster size"),
        RuntimeError("CUDA_ERROR_UNSUPPORTED_PTX_VERSION: the provided PTX was compiled with an unsupported toolchain."),
    ],
)
def test_a_launch_that_fails_costs_its_path_alone_and_is_said(
    cupy: FakeCupy, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    cupy.fail["train_epoch"] = error
    x, y = data(40)
    backend = CupyBackend()
    with caplog.at_level(logging.WARNING, "mlp_accel"):
        ours = mini_batch_sgd(x, y, init_params(SIZES), epochs=1, batch_size=16, backend=backend)
    theirs = mini_batch_sgd(x, y, init_params(SIZES), epochs=1, batch_size=16, backend=ReferenceBackend("float64"))
    np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-5)
    assert backend.epoch_path.startswith("graph of fused steps; not cluster: it fails (RuntimeError: CUDA_ERROR")
    assert str(error).split(":")[0] in caplog.text
    with pytest.raises(PathError, match="CUDA_ERROR"):
        mini_batch_sgd(x, y, init_params(SIZES), epochs=1, batch_size=16, backend=backend_by("cluster"))


def test_without_nvrtc_the_backend_is_unavailable(install: Callable[..., FakeCupy]) -> None:
    cupy = install()
    cupy.fail["allocate"] = RuntimeError("CuPy failed to load libnvrtc.so.13: OSError: cannot open shared object file")
    with pytest.raises(BackendUnavailableError, match=r"CUDA libraries missing .*libnvrtc.*\[ctk\]"):
        get_backend("cupy")


def test_a_kernel_with_wrong_results_is_not_used(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlp_accel.backends.cupy_fused import ClusterPath

    right = ClusterPath.train_each

    def wrong(self: ClusterPath, *arguments: Any) -> Any:
        params, losses, hits = right(self, *arguments)
        params[1][1][0, 0] += 0.01
        return params, losses, hits

    monkeypatch.setattr(ClusterPath, "train_each", wrong)
    x, y = data(40)
    backend = CupyBackend()
    mini_batch_sgd(x, y, init_params(SIZES), epochs=1, batch_size=16, backend=backend)
    assert "not cluster: its results are wrong: after two steps they differ from the ops by" in backend.epoch_path


def test_the_backend_is_one(cupy: FakeCupy) -> None:
    assert isinstance(get_backend("cupy"), Backend)
