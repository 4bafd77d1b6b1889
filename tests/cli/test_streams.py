"""The command on what it may be connected to: a terminal of any kind, a pipe that is closed, a full disk; and Ctrl-C at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlp_accel.exit_codes import BROKEN_PIPE
from tests.cli.test_cli import on_a_terminal, start


@pytest.mark.parametrize("module", ["numpy.", "typer.", "mlp_accel.cli.console"])
def test_ctrl_c_during_start_up_is_quiet(module: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "mlp_accel", "train", "--epochs", "100000", "--backend", "numpy"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:  # it names each module when it has been loaded
                if module in line:
                    break
            process.send_signal(signal.SIGINT)
            errors = process.stderr.read()
            assert process.wait(timeout=120) == 130, errors
        finally:
            process.kill()
    assert "Traceback" not in errors


def test_a_reader_that_goes_away_ends_the_command_quietly(clouds: Path) -> None:
    with start("train", "--data", clouds, "--epochs", 100_000, "--backend", "numpy") as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == ""
            assert process.wait(timeout=120) == BROKEN_PIPE
        finally:
            process.kill()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["train", "--epochs", "1"], ["train", "--epochs", "1", "--json", "-"], ["--version"]])
def test_a_full_disk_is_a_clear_error(clouds: Path, arguments: list[str]) -> None:
    options = ["--data", str(clouds), "--backend", "numpy"] if arguments[0] == "train" else []
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "mlp_accel", *arguments, *options]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    assert result.returncode == 2
    assert "No space left on device" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


def test_a_terminal_that_cannot_move_the_cursor_gets_plain_lines(clouds: Path) -> None:
    shown = on_a_terminal("train", "--epochs", 2, "--data", clouds, "--backend", "numpy", terminal="dumb")
    assert "\x1b" not in shown
    assert "Epoch 1/2 - Loss" in shown


@pytest.mark.parametrize("columns", [40, 60, 79])
def test_on_a_narrow_terminal_no_number_is_cut(clouds: Path, columns: int) -> None:
    shown = on_a_terminal("bench", "--epochs", 1, "--data", clouds, "--backends", "numpy", columns=columns)
    results = shown.rpartition("Seconds per epoch")[2]
    assert "…" not in results
    for heading in ("median", "quartiles", "cold start", "transfer", "test acc."):
        assert f"{heading}: " in results
