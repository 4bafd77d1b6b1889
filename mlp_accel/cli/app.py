"""The command ``mlp-accel``; its subcommands are the modules beside this one."""

from __future__ import annotations

import errno
import io
import signal
import sys
import traceback
from typing import Annotated, NoReturn

import typer

import mlp_accel
from mlp_accel.cli.ab import ab
from mlp_accel.cli.bench import bench
from mlp_accel.cli.bisect import bisect
from mlp_accel.cli.compare import SidesCommand, compare
from mlp_accel.cli.config import configurable
from mlp_accel.cli.console import printable
from mlp_accel.cli.doctor import doctor
from mlp_accel.cli.export import export
from mlp_accel.cli.fleet import PASSED_ON, fleet
from mlp_accel.cli.predict import predict
from mlp_accel.cli.report import report
from mlp_accel.cli.train import train
from mlp_accel.cli.trend import trend
from mlp_accel.cli.tune import tune
from mlp_accel.errors import BackendUnavailableError, MlpAccelError, OutputError
from mlp_accel.exit_codes import INTERNAL_ERROR, INTERRUPTED, TRAINING_FAILED, UNAVAILABLE, WRONG_USAGE
from mlp_accel.files import discard_output, flush_output
from mlp_accel.training.history import NonFiniteLossError

app = typer.Typer(
    help="Train multilayer perceptrons on NumPy, Numba or CuPy, and measure it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


ENDING_SIGNALS = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What asks a process to end; Windows has one of them."""

for command in (train, predict, export, tune, bench, compare, report, ab, trend, bisect, doctor):
    app.command(cls=SidesCommand if command is compare else None)(configurable(command))
app.command(context_settings=PASSED_ON)(configurable(fleet, passes_on_to="bench"))


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version and exit")] = False) -> None:
    """Train multilayer perceptrons on NumPy, Numba or CuPy, and measure it."""
    if version:
        sys.stdout.write(f"mlp-accel {mlp_accel.__version__}\n")
        raise typer.Exit


def _end_by_signal(number: int, _: object) -> NoReturn:
    """End as after an error: workers and temporary folders go first. What comes while they do is ignored."""
    for name in ENDING_SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    sys.exit(128 + number)


def _heed_signals() -> None:
    """By default they would end this process at once; one that is ignored, as by ``nohup``, stays so."""
    for name in ENDING_SIGNALS:
        if signal.getsignal(getattr(signal, name)) == signal.SIG_DFL:
            signal.signal(getattr(signal, name), _end_by_signal)


def run() -> NoReturn:
    """Run the command; an expected error is one message and an exit code, never a traceback."""
    _heed_signals()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without × or – is no reason to lose a result
    try:
        try:
            app()
        finally:  # it ends with SystemExit
            flush_output()
        sys.exit(0)
    except BackendUnavailableError as error:
        _fail(error, UNAVAILABLE)
    except NonFiniteLossError as error:
        _fail(error, TRAINING_FAILED)
    except MlpAccelError as error:
        _fail(error, WRONG_USAGE)
    except MemoryError as error:
        _fail(MemoryError(f"out of memory: {error}; try smaller layers or batches"), WRONG_USAGE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            _report_bug()
        discard_output()
        _fail(OutputError(f"cannot write the output: {error.strerror}"), WRONG_USAGE)
    except Exception:
        _report_bug()


def _report_bug() -> NoReturn:
    traceback.print_exc()
    sys.stderr.write("mlp-accel: this is a bug in mlp_accel; please report the lines above\n")
    sys.exit(INTERNAL_ERROR)


def _fail(error: Exception, code: int) -> NoReturn:
    sys.stderr.write(f"mlp-accel: error: {printable(str(error))}\n")
    sys.exit(code)
