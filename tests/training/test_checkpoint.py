"""Checkpoints: a training that was cut off goes on to the bits of one that was not, and nothing is ever lost."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlp_accel import CheckpointError, History, NonFiniteLossError, OutputError, Snapshot, init_params, mini_batch_sgd
from mlp_accel.backends import Backend
from mlp_accel.backends.threads import available_cores
from mlp_accel.training import checkpoint as checkpoints
from mlp_accel.training import tensor_file
from mlp_accel.training.trainer import Trainer
from tests.training.test_training import TOY, bits, sparse_pixels, toy


class CutOffError(Exception):
    """What a training is cut off by."""


def cut_off_after(epochs: int) -> Any:
    def callback(history: History) -> None:
        if len(history) == epochs:
            time.sleep(0.01)
            raise CutOffError

    return callback


def train(file: Path | None, data: Any = toy, cut_off: int | None = None, **settings: Any) -> History:
    given: dict[str, Any] = {"backend": "numpy", "epochs": 6, "batch_size": 8, "optimizer": "adam", "validation": 0.2, **settings}
    if file is not None:
        given = {"checkpoint": file, "checkpoint_every": 0, **given}
    callbacks = [] if cut_off is None else [cut_off_after(cut_off)]
    x, y = data()
    return mini_batch_sgd(x, y, init_params(TOY), callbacks=callbacks, **given)


def started(tmp_path: Path, **settings: Any) -> Path:
    """A checkpoint of a training that was cut off."""
    path = tmp_path / "run.ckpt"
    with pytest.raises(CutOffError):
        train(path, cut_off=3, **settings)
    return path


@pytest.mark.parametrize("path", ["auto", "loop"])
@pytest.mark.parametrize("data", [toy, sparse_pixels])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_resumed_training_has_the_bits_of_one_that_was_not_cut_off(
    tmp_path: Path, backend: Backend, path: str, data: Any, optimizer: str
) -> None:
    settings: dict[str, Any] = {"backend": backend, "path": path, "optimizer": optimizer, "schedule": "one-cycle"}
    whole = train(None, data, **settings)
    for cut_off in (2, 5):
        with pytest.raises(CutOffError):
            train(tmp_path / "run.ckpt", data, cut_off, **settings)
    resumed = train(tmp_path / "run.ckpt", data, **settings)
    assert 1 <= resumed.resumed <= 5
    assert (resumed.loss, resumed.accuracy) == (whole.loss, whole.accuracy)
    assert (resumed.validation_loss, resumed.best_epoch) == (whole.validation_loss, whole.best_epoch)
    assert bits(resumed.params) == bits(whole.params)
    assert resumed.last is not None
    assert whole.last is not None
    assert bits(resumed.last.params) == bits(whole.last.params)
    assert (resumed.path, resumed.status) == (whole.path, "done")


def test_a_finished_training_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(tmp_path / "run.ckpt")
    before = (tmp_path / "run.ckpt").read_bytes()
    monkeypatch.setattr(Trainer, "epoch", None)
    again = train(tmp_path / "run.ckpt")
    assert (again.loss, again.seconds, again.resumed, again.status) == (first.loss, first.seconds, 6, "done")
    assert bits(again.params) == bits(first.params)
    assert (tmp_path / "run.ckpt").read_bytes() == before


def test_a_training_that_ran_out_of_patience_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(tmp_path / "run.ckpt", epochs=99, patience=1, min_delta=0.5)
    assert first.status == "stopped"
    monkeypatch.setattr(Trainer, "epoch", None)
    again = train(tmp_path / "run.ckpt", epochs=99, patience=1, min_delta=0.5)
    assert (again.status, again.reason, len(again)) == ("stopped", first.reason, len(first))
    assert bits(again.params) == bits(first.params)


def test_ctrl_c_is_written_and_gone_on_with(tmp_path: Path) -> None:
    def press_ctrl_c(history: History) -> None:
        if len(history) == 4:
            raise KeyboardInterrupt

    settings: dict[str, Any] = {"backend": "numpy", "epochs": 6, "checkpoint": tmp_path / "run.ckpt", "checkpoint_every": 1e9}
    history = mini_batch_sgd(*toy(), init_params(TOY), callbacks=[press_ctrl_c], **settings)
    assert (history.status, len(history)) == ("interrupted", 4)
    again = mini_batch_sgd(*toy(), init_params(TOY), **settings)
    assert (again.status, again.resumed, len(again)) == ("done", 4, 6)
    assert bits(again.params) == bits(mini_batch_sgd(*toy(), init_params(TOY), backend="numpy", epochs=6).params)


def test_more_epochs_may_be_asked_for_where_the_rates_do_not_depend_on_them(tmp_path: Path) -> None:
    for schedule in ("constant", "step"):
        path = tmp_path / schedule
        train(path, epochs=3, schedule=schedule)
        longer = train(path, epochs=5, schedule=schedule)
        assert longer.resumed == 3
        assert bits(longer.params) == bits(train(None, epochs=5, schedule=schedule).params)
        with pytest.raises(CheckpointError, match="epochs: 5 are trained there, 4 are asked for"):
            train(path, epochs=4, schedule=schedule)
    train(tmp_path / "linear", epochs=3, schedule="linear")
    with pytest.raises(CheckpointError, match="epochs: 3 there, 5 here, on which the schedule linear depends"):
        train(tmp_path / "linear", epochs=5, schedule="linear")


def own_rule(factor: float) -> Any:
    def rule(p: Any, g: Any, rate: Any = 0.1) -> Any:
        return p - factor * rate * g

    return rule


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"learning_rate": 0.5}, "learning_rate: 0.001 there, 0.5 here"),
        ({"batch_size": 9}, "batch_size: 8 there, 9 here"),
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"activation": "relu"}, "activation name: tanh there, relu here"),
        ({"gradient": "notebook"}, "gradient: exact there, notebook here"),
        ({"optimizer": "adamw"}, "optimizer name: adam there, adamw here"),
        ({"weight_decay": 0.1}, r"optimizer settings weight_decay: 0.0 there, 0.1 here"),
        ({"schedule": "cosine"}, "schedule name: constant there, cosine here"),
        ({"validation": None}, "validation: .* there, None here"),
        ({"validation": 0.3}, r"validation x shape: \[10, 6\] there, \[15, 6\] here"),
        ({"patience": 2}, "early_stopping patience: None there, 2 here"),
        ({"loss_average": "notebook"}, "loss_average: samples there, notebook here"),
        ({"data": sparse_pixels}, "x dtype: float64 there, uint8 here"),
        ({"data": lambda: toy(seed=1)}, "x: other values there"),
        ({"path": "sparse"}, "trained by the path loop; sparse is asked for"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_what_differs_from_the_checkpoint_is_named(tmp_path: Path, other: dict[str, Any], words: str) -> None:
    path = started(tmp_path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=words) as caught:
        train(path, **other)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_other_parameters_to_start_from_and_other_functions_of_one_name_are_other_trainings(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"backend": "numpy", "checkpoint": tmp_path / "run.ckpt", "epochs": 2, "optimizer": own_rule(1.0)}
    mini_batch_sgd(*toy(), init_params(TOY), **settings)
    with pytest.raises(CheckpointError, match="params: other values there"):
        mini_batch_sgd(*toy(), init_params(TOY, seed=1), **settings)
    with pytest.raises(CheckpointError, match="optimizer: other values there"):
        mini_batch_sgd(*toy(), init_params(TOY), **settings | {"optimizer": own_rule(2.0)})


@pytest.mark.skipif(available_cores() < 2, reason="one core: there is no second number of threads")
def test_another_number_of_threads_is_said_and_gone_on_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = started(tmp_path, threads=2)
    with caplog.at_level(logging.WARNING, "mlp_accel"):
        train(path, threads=1)
    assert "threads: 2 there, 1 here; the last bits may differ" in caplog.text


def test_a_training_may_start_from_a_snapshot(tmp_path: Path) -> None:
    first = mini_batch_sgd(*toy(), init_params(TOY), backend="numpy", epochs=2, optimizer="adam").last
    assert isinstance(first, Snapshot)
    whole = mini_batch_sgd(*toy(), first, backend="numpy", epochs=5, optimizer="adam")
    settings: dict[str, Any] = {"backend": "numpy", "epochs": 5, "optimizer": "adam"}
    settings |= {"checkpoint": tmp_path / "run.ckpt", "checkpoint_every": 0}
    with pytest.raises(CutOffError):
        mini_batch_sgd(*toy(), first, callbacks=[cut_off_after(2)], **settings)
    resumed = mini_batch_sgd(*toy(), first, **settings)
    assert bits(resumed.params) == bits(whole.params)
    assert resumed.loss == whole.loss


def test_two_trainings_do_not_share_a_checkpoint(tmp_path: Path) -> None:
    def second(_: History) -> None:
        with pytest.raises(CheckpointError, match="another training uses this checkpoint"):
            train(tmp_path / "run.ckpt")

    settings: dict[str, Any] = {"backend": "numpy", "epochs": 2, "checkpoint": tmp_path / "run.ckpt"}
    mini_batch_sgd(*toy(), init_params(TOY), callbacks=[second], **settings)
    mini_batch_sgd(*toy(), init_params(TOY), **settings)  # and when one has ended, the next may begin


def test_a_full_disk_ends_the_training_and_costs_no_more_than_the_last_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = started(tmp_path)
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OutputError("cannot write run.ckpt: No space left on device")

    monkeypatch.setattr(checkpoints, "write_tensors", full)
    with pytest.raises(OutputError, match="No space left"):
        train(path)
    assert path.read_bytes() == before
    monkeypatch.undo()
    assert bits(train(path).params) == bits(train(None).params)


def test_a_checkpoint_that_cannot_be_written_is_said_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "epoch", None)
    with pytest.raises(OutputError, match="there is no folder"):
        train(tmp_path / "nowhere" / "run.ckpt")
    with pytest.raises(OutputError, match="is a folder"):
        train(tmp_path)


def test_the_disk_is_written_to_as_seldom_as_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    write = tensor_file.write_tensors

    def counted(path: Path, arrays: Any, description: Any) -> None:
        written.append(len(description["history"]["history"]))
        write(path, arrays, description)

    monkeypatch.setattr(checkpoints, "write_tensors", counted)
    train(tmp_path / "seldom", epochs=50, checkpoint_every=1e9)
    assert written == [50]


def test_what_a_killed_process_left_beside_the_checkpoint_is_removed(tmp_path: Path) -> None:
    names = [".mlp-accel.run.ckpt.abcd_123", ".mlp-accel.run.ckpt.2.abcd_123", ".mlp-accel.other.abcd_123"]
    for name in names:
        (tmp_path / name).touch()
    train(tmp_path / "run.ckpt")
    assert {file.name for file in tmp_path.iterdir()} == {"run.ckpt", ".run.ckpt.lock", *names[1:]}


def test_a_run_that_diverges_keeps_the_last_good_epoch(tmp_path: Path) -> None:
    def too_fast(step: int, steps: int) -> float:
        return 1.0 if step < 20 else 1e30

    for _ in range(2):
        with pytest.raises(NonFiniteLossError) as caught:
            train(tmp_path / "run.ckpt", epochs=9, schedule=too_fast, activation="relu", optimizer="sgd")
    assert caught.value.history.resumed >= 1


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04", bytes(1000)])
def test_what_is_no_checkpoint_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"run\.ckpt: not a safetensors file"):
        train(tmp_path / "run.ckpt")
    assert (tmp_path / "run.ckpt").read_bytes() == content


def test_a_changed_bit_is_noticed(tmp_path: Path) -> None:
    path = started(tmp_path)
    content = bytearray(path.read_bytes())
    for position in np.random.default_rng(0).integers(0, len(content), 50):
        content[position] ^= 1
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            train(path)
        content[position] ^= 1


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"kind": "model"},
        {"history": {}},
        {"trained": {}},
        {"trained": {"epochs": 3, "steps": 15, "order": {}}},
        {"trained": {"epochs": 3, "steps": 15, "order": {"bit_generator": "MT19937"}}},
        {"settings": None},
    ],
    ids=str,
)
def test_a_description_of_another_form_is_a_damaged_file(tmp_path: Path, change: dict[str, Any]) -> None:
    path = started(tmp_path)
    arrays, description = tensor_file.read_tensors(path, CheckpointError)
    tensor_file.write_tensors(path, arrays, description | change)
    with pytest.raises(CheckpointError, match=r"damaged|not a checkpoint"):
        train(path)


SCRIPT = """
import sys
from tests.training.test_checkpoint import train
train({path!r} and __import__("pathlib").Path({path!r}), epochs=200)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no kill -9")
def test_a_process_that_is_killed_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", SCRIPT.format(path=str(path))]
    process = subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    while process.poll() is None and not path.exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = train(path, epochs=200)
    assert 1 <= resumed.resumed <= 200
    whole = train(None, epochs=200)
    assert (bits(resumed.params), resumed.loss) == (bits(whole.params), whole.loss)
