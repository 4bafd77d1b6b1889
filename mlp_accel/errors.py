"""The errors that a user can meet. Each says what was wrong, where it came from and what would be right."""

from __future__ import annotations


class MlpAccelError(Exception):
    """Base of the errors of this package."""


class SettingError(MlpAccelError, ValueError):
    """A setting (argument, option or environment variable) has a value that it cannot have."""


class RecordingError(SettingError, TypeError):
    """An elementwise function does something that cannot be recorded; the message says what to write instead."""


def check_choice(what: str, value: str, choices: tuple[str, ...]) -> str:
    """`value` if it is one of `choices`, else a SettingError that lists them."""
    if value not in choices:
        raise SettingError(f"unknown {what} {value!r}; choose one of {', '.join(choices)}")
    return value


class BackendUnavailableError(MlpAccelError, RuntimeError):
    """A backend was asked for by name and cannot run here.

    Parameters
    ----------
    name : str
        The backend.
    cause : str
        The kind of obstacle: ``"not installed"``, ``"broken installation"``, ``"CUDA libraries missing"``, ``"no driver"``,
        ``"no device"`` or ``"a kernel failed"``.
    detail : str
        What exactly was found.
    fix : str
        What to do about it, if possible a command.
    """

    def __init__(self, name: str, cause: str, detail: str, fix: str) -> None:
        self.name, self.cause, self.detail, self.fix = name, cause, detail, fix
        super().__init__(f"backend {name!r} cannot run here: {self.reason}. To fix it: {fix}")

    @property
    def reason(self) -> str:
        """Cause and detail, without the remedy."""
        return f"{self.cause} ({self.detail})"


class PeerUnavailableError(MlpAccelError, RuntimeError):
    """A peer cannot take part in a benchmark: its library is missing, or has no form of what is measured."""


class MissingPackageError(MlpAccelError, ImportError):
    """A package that an extra installs is missing.

    Parameters
    ----------
    package, extra : str
        The package, and the extra that it comes with.
    purpose : str
        What it is needed for, such as ``"to read table.csv"``.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{package} is needed {purpose} and is not installed: python -m pip install 'mlp-accel[{extra}]'")


class DatasetError(MlpAccelError, ValueError):
    """A data set is missing or malformed; the message names the file and the field."""


class ParameterFileError(MlpAccelError, ValueError):
    """A file of saved parameters is missing or malformed."""


class ModelFileError(ParameterFileError):
    """A model file is missing, malformed, or needs an activation that was not given."""


class CheckpointError(MlpAccelError, ValueError):
    """A checkpoint is damaged, of another training, or in use."""


class OutputError(MlpAccelError, OSError):
    """A file that was asked for cannot be written."""


class PathError(MlpAccelError, RuntimeError):
    """A path cannot train a task, for the reason that the message gives.

    Users meet it if they asked for the path by name; otherwise the next path of the backend is tried.
    """


class DeviceMemoryError(MlpAccelError, MemoryError):
    """The memory of a GPU does not suffice."""
