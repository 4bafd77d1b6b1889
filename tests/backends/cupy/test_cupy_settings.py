"""What is asked of the CuPy backend, and what goes wrong with a GPU: each a clear message or a stated fall to another path."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlp_accel import BackendUnavailableError, DeviceMemoryError, SettingError, get_backend, init_params, mini_batch_sgd
from mlp_accel import backends as registry
from mlp_accel.backends import Backend
from mlp_accel.backends.cupy.backend import CupyBackend
from mlp_accel.backends.cupy.paths.steps import GraphPath
from mlp_accel.bench.gate.worker import BuildWorker
from mlp_accel.errors import PathError
from mlp_accel.harness import MeasuredTraining
from mlp_accel.network import backward, forward, sgd
from mlp_accel.optimizers import OPTIMIZERS
from tests.backends.cupy.fake_cupy import FakeCupy, OutOfMemoryError
from tests.backends.cupy.small import SIZES, Reference, data, trainer_by

# TF32, devices, settings ----------------------------------------------------------------------------------------------------------


def test_tf32_is_off_unless_asked_for_whatever_cupy_is_set_to(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLP_ACCEL_TF32", raising=False)
    cupy.compute_types["float32"] = 7
    x, y = data(20)
    mini_batch_sgd(x, y, init_params(SIZES), epochs=1, batch_size=10, backend=CupyBackend(), path="loop")
    assert {entry for entry in cupy.events if entry.startswith("product")} == {"product (compute type 1)"}
    assert cupy.compute_types["float32"] == 7
    assert CupyBackend().versions()["tf32"] == "off"
    monkeypatch.setenv("MLP_ACCEL_TF32", "1")
    backend = CupyBackend()
    assert backend.versions()["tf32"] == "on"
    assert CupyBackend(tf32=False).versions()["tf32"] == "off"
    cupy.events.clear()
    backend.dense(*(backend.asarray(np.ones(shape)) for shape in ((2, 3), (3, 4), (4,))))
    assert "product (compute type 7)" in cupy.events
    cupy.compute_types["float32"] = 1
    with backend.gpu.computing():
        assert cupy.compute_types["float32"] == 7
    assert cupy.compute_types["float32"] == 1
    monkeypatch.setenv("MLP_ACCEL_TF32", "yes")
    with pytest.raises(SettingError, match="'yes' from the environment variable MLP_ACCEL_TF32 is neither 1 nor 0"):
        CupyBackend()


def test_threads_do_not_change_each_others_compute_type(cupy: FakeCupy) -> None:
    """It is one for the whole process: a product in TF32 of one backend must not make those of another less exact."""
    exact, fast = CupyBackend(tf32=False), CupyBackend(tf32=True)
    arrays = [exact.asarray(np.ones((4, 4), np.float32)) for _ in range(3)]
    with ThreadPoolExecutor(1) as other:
        with fast.gpu.computing():
            product = other.submit(exact.gpu.matmul, *arrays)
            with pytest.raises(TimeoutError):
                product.result(timeout=0.2)
            assert cupy.compute_types["float32"] == 7
        product.result(timeout=60)
    assert [entry for entry in cupy.events if entry.startswith("product")] == ["product (compute type 1)"]


def test_each_thread_trains_on_a_stream_of_its_own(cupy: FakeCupy) -> None:
    gpu = CupyBackend().gpu

    def stream() -> Any:
        with gpu.training_stream():
            return cupy.cuda.get_current_stream()

    with ThreadPoolExecutor(1) as other:
        theirs = other.submit(stream).result()
    assert stream() is stream()
    assert stream() is not theirs


@pytest.mark.parametrize("name", ["cupy", "cupy:1"])
def test_a_number_picks_one_of_several_devices(install: Callable[..., FakeCupy], name: str) -> None:
    cupy = install(devices=2)
    backend = get_backend(name)
    expected = 1 if ":" in name else 0
    assert backend.device == f"cuda:{expected} Emulated GPU {expected}"
    cupy.current_device = 0
    cupy.used.clear()
    for path in ("cluster", "graph", "steps", "loop"):
        trainer = trainer_by(path, backend)
        trainer.epoch()
        trainer.keep([0])
    params = [(backend.asarray(w), backend.asarray(b)) for w, b in init_params(SIZES)]
    images, labels = (backend.asarray(array) for array in data())
    outputs, y_hat = forward(backend, params, images)
    sgd(backend, params, backward(backend, params, outputs, y_hat, labels), 0.1)
    assert cupy.used == {expected}
    assert cupy.current_device == 0


def test_a_device_that_is_not_there_is_an_error_that_says_which_are(install: Callable[..., FakeCupy]) -> None:
    install(devices=2)
    with pytest.raises(BackendUnavailableError, match=r"there is no device 2.*choose cupy:0 to cupy:1"):
        get_backend("cupy:2")
    for name in ("numpy:1", "cupy:", "cupy:x", "cupy:-1"):
        with pytest.raises(SettingError, match="choose one of auto, fastest, cupy, numba, numpy, or cupy:1 for the second device"):
            get_backend(name)


def test_auto_passes_over_a_gpu_that_should_be_slower_than_the_cpu_and_says_so(install: Callable[..., FakeCupy]) -> None:
    install(capability="70")
    backend = get_backend("auto")
    numba_runs = registry.unavailable("numba") is None
    assert backend.name == ("numba" if numba_runs else "cupy")
    if numba_runs:
        assert "cupy: Emulated GPU 0 is predicted to be slower: compute capability 7.0 is too low for any" in backend.selection
    assert get_backend("cupy").name == "cupy"
    install(capability="90")
    assert get_backend("auto").name == "cupy"


def test_auto_takes_a_slow_gpu_where_what_is_faster_cannot_run(
    install: Callable[..., FakeCupy], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(capability="70")
    lacking = BackendUnavailableError("numba", "not installed", "no module named numba", "pip install numba")
    there = registry.unavailable
    monkeypatch.setattr(registry, "unavailable", lambda name: lacking if name == "numba" else there(name))
    assert get_backend("auto").name == "cupy"


# Failures -------------------------------------------------------------------------------------------------------------------------


def test_out_of_memory_says_how_much_there_is_and_what_to_do(cupy: FakeCupy) -> None:
    backend = CupyBackend()
    cupy.fail["allocate"] = OutOfMemoryError("Out of memory allocating 47,040,000 bytes")
    with pytest.raises(
        DeviceMemoryError, match=r"cuda:0 Emulated GPU 0: .*47,040,000 bytes.* 3.0 of 140.0 GiB are free; use fewer"
    ):
        backend.asarray(np.zeros((60000, 784), np.uint8))
    del cupy.fail["allocate"]
    for path in ("cluster", "loop"):
        trainer = trainer_by(path, backend)
        trainer.epoch()
        cupy.fail["allocate"] = OutOfMemoryError("Out of memory allocating 1 byte")
        with pytest.raises(DeviceMemoryError):
            trainer.epoch()
        with pytest.raises(DeviceMemoryError):  # nor does it cost a path alone
            trainer_by(path, backend)
        del cupy.fail["allocate"]


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
    with caplog.at_level(logging.WARNING, "mlp_accel"):
        ours = mini_batch_sgd(x, y, init_params(SIZES), epochs=1, batch_size=16, backend=CupyBackend())
    theirs = mini_batch_sgd(x, y, init_params(SIZES), epochs=1, batch_size=16, backend=Reference("float64"))
    np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-5)
    ((passed_over, reason),) = ours.passed_over
    assert (ours.path, passed_over) == ("graph", "cluster")
    assert reason.startswith("it fails (RuntimeError: CUDA_ERROR")
    assert str(error).split(":")[0] in caplog.text
    with pytest.raises(PathError, match="CUDA_ERROR"):
        mini_batch_sgd(x, y, init_params(SIZES), epochs=1, batch_size=16, backend=CupyBackend(), path="cluster")


def test_a_size_of_a_cluster_that_the_gpu_has_no_room_for_is_passed_over(
    cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlp_accel.backends.cupy.paths.cluster import ClusterRun

    train, sizes = ClusterRun._train, []

    def only_portable(self: ClusterRun, *arguments: Any) -> None:
        sizes.append(self.shape.cluster)
        if self.shape.cluster > 8:
            raise RuntimeError("CUDA_ERROR_INVALID_CLUSTER_SIZE: Invalid cluster size")
        train(self, *arguments)

    monkeypatch.setattr(ClusterRun, "_train", only_portable)
    backend = CupyBackend()
    for _ in range(2):
        trainer_by("cluster", backend).epoch()
    assert sizes == [16, 8, 8, 8]  # the trials, an epoch; the next time neither
    assert "clusters of 16 is not taken: it fails (RuntimeError: CUDA_ERROR_INVALID_CLUSTER_SIZE" in caplog.text


def test_without_nvrtc_the_backend_is_unavailable(install: Callable[..., FakeCupy]) -> None:
    cupy = install()
    cupy.fail["allocate"] = RuntimeError("CuPy failed to load libnvrtc.so.13: OSError: cannot open shared object file")
    with pytest.raises(BackendUnavailableError, match=r"CUDA libraries missing .*libnvrtc.*\[ctk\]"):
        get_backend("cupy")


@pytest.mark.parametrize("plane", [0, 1], ids=["parameters", "slots"])
def test_a_kernel_with_wrong_results_is_not_used(cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, plane: int) -> None:
    from mlp_accel.backends.cupy.paths.cluster import ClusterRun

    right = ClusterRun._train

    def wrong(self: ClusterRun, *arguments: Any) -> None:
        right(self, *arguments)
        self.networks[0, plane, -1] += 0.01

    monkeypatch.setattr(ClusterRun, "_train", wrong)
    backend = CupyBackend()
    for _ in range(2):  # it is not remembered as right
        taken = trainer_by(None, backend, optimizers=[OPTIMIZERS["momentum"]]).taken
        assert taken.name == GraphPath.name
        assert "not cluster: its results are wrong: after two steps they differ from the loop by" in str(taken)


def test_a_kernel_that_was_right_is_tried_once(cupy: FakeCupy) -> None:
    backend = CupyBackend()
    for _ in range(2):
        trainer_by("cluster", backend).epoch()
    assert cupy.events.count("launch train_epoch") == 1 + 2


def test_the_backend_is_one(cupy: FakeCupy) -> None:
    assert isinstance(get_backend("cupy"), Backend)


def test_the_gate_times_launches_by_events(cupy: FakeCupy) -> None:
    x, y = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32), np.arange(40) % 3
    settings: dict[str, Any] = {
        "backend": "cupy",
        "dtype": "float32",
        "threads": 1,
        "batch_size": 8,
        "learning_rate": 0.1,
        "activation": "tanh",
        "gradient": "exact",
        "optimizer": "sgd",
        "settings": {},
        "seed": 0,
    }
    events: list[str] = []
    cupy.cuda.Event = lambda: SimpleNamespace(record=lambda: events.append("recorded"), synchronize=lambda: None)
    cupy.cuda.get_elapsed_time = lambda start, end: 2.5
    for path, seconds in (("steps", 0.0025), ("loop", None)):
        events.clear()
        training = MeasuredTraining(x, y, init_params([6, 5, 3]), path=path, **settings)
        assert training.device_seconds() is None, "nothing has been launched"
        worker = object.__new__(BuildWorker)
        worker._turns = itertools.cycle([training])
        answer = worker.epoch()
        assert answer.get("device_seconds") == seconds
        assert answer["seconds"] > 0
        assert len(events) == (2 if seconds else 0)
