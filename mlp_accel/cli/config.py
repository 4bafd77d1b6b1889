"""``--config FILE`` and ``--print-config``, which every command has: its options in a TOML file."""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from mlp_accel.errors import SettingError
from mlp_accel.files import flush_output

OWN = ("config", "print_config", "help")

PASSED_ON = "passed_on"

CONFIG_HELP = "Take options from a TOML file: those at its top, and those in the command's table; the command line goes before them"


def configurable(function: Callable[..., None], passes_on_to: str | None = None) -> Callable[..., None]:
    """A command that takes its options from a file as well: what is on the command line goes before what is in the file.

    A command that passes what it does not know on to another one has a parameter `passed_on`: the options for that one, those from
    its table of the file first.
    """
    signature = inspect.signature(function, eval_str=True)
    parameters_of_function = {name: parameter for name, parameter in signature.parameters.items() if name != PASSED_ON}
    kinds = {name: _kind(parameter.annotation) for name, parameter in parameters_of_function.items()}

    @wraps(function)
    def with_config(context: typer.Context, config: Path | None, print_config: bool, **given: Any) -> None:
        if print_config:
            typer.echo("\n".join(config_lines(context, given)))
            flush_output()
        elif passes_on_to is None:
            function(**given)
        else:
            function(**given, **{PASSED_ON: [*context.meta.get(PASSED_ON, []), *context.args]})

    def read(context: typer.Context, path: Path | None) -> Path | None:
        if path is not None:
            content = _read_toml(path)
            if passes_on_to is not None:
                context.meta[PASSED_ON] = _as_arguments(path, content.get(passes_on_to, {}))
            context.default_map = options_of(path, content, context, kinds)
        return path

    config = typer.Option("--config", metavar="FILE", help=CONFIG_HELP, callback=read, is_eager=True)
    print_config = typer.Option("--print-config", help="Print the options as such a file, and exit")
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("context", keyword, annotation=typer.Context),
        *(parameter.replace(kind=keyword) for parameter in parameters_of_function.values()),
        inspect.Parameter("config", keyword, default=None, annotation=Annotated[Path | None, config]),
        inspect.Parameter("print_config", keyword, default=False, annotation=Annotated[bool, print_config]),
    ]
    vars(with_config).pop("__wrapped__")  # or its signature would be looked at
    vars(with_config)["__signature__"] = inspect.Signature(parameters)
    with_config.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_config


def _read_toml(path: Path) -> dict[str, Any]:
    """What is in a file; SettingError if it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"cannot read {path} from --config: {error.strerror or error}") from error
    except ValueError as error:  # neither UTF-8 nor TOML
        raise SettingError(f"{path} from --config is no TOML file: {error}") from error


def _as_arguments(path: Path, table: Any) -> list[str]:
    """A table of the file as the arguments of the command that it is for."""
    arguments: list[str] = []
    for key, value in table.items() if isinstance(table, dict) else ():
        text = _as_on_the_command_line(path, key, value, bool if isinstance(value, bool) else str)
        if text is not False:
            arguments += [f"--{key.replace('_', '-')}"] if text is True else [f"--{key.replace('_', '-')}", text]
    return arguments


def options_of(path: Path, content: Mapping[str, Any], context: typer.Context, kinds: Mapping[str, type]) -> dict[str, Any]:
    """What a file says for a command: its values as they would be written on the command line, by the names of the parameters.

    Parameters
    ----------
    kinds : mapping of str to type
        What each parameter of the command is.

    Raises
    ------
    SettingError
        If the file has an option that the command does not have, or a value that the option cannot have.
    """
    command, values = str(context.info_name), {}
    known = {name.replace("-", "_"): parameter.name for parameter in _parameters(context) for name in _names(parameter)}
    for key, value in _of_command(content, command):
        name = known.get(key.replace("-", "_"))
        if name is None:
            names = ", ".join(_names(parameter)[0] for parameter in _parameters(context))
            raise SettingError(f"{path}: {command} has no option {key}; it has {names}")
        values[name] = _as_on_the_command_line(path, key, value, kinds[name])
    return values


def config_lines(context: typer.Context, given: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a file with the options as they are; those that are not given are comments."""
    yield f"[{context.info_name}]"
    for parameter in _parameters(context):
        name, value = _names(parameter)[0], given[parameter.name]
        if value is None or value == [] or value is False:
            yield f"# {name}: {getattr(parameter, 'help', None) or 'not given'}"
        else:
            yield f"{name} = {json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)}"


def _of_command(content: Mapping[str, Any], command: str) -> Iterator[tuple[str, Any]]:
    """What a file says for a command: at its top, then in the table of that name. Tables of other names are for other commands."""
    yield from ((key, value) for key, value in content.items() if not isinstance(value, dict))
    table = content.get(command)
    yield from table.items() if isinstance(table, dict) else ()


def _as_on_the_command_line(path: Path, key: str, value: Any, kind: type) -> Any:
    """A value of TOML as it would be written behind the option; true and false as they are."""
    if kind is bool:
        if not isinstance(value, bool):
            raise SettingError(f"{path}: {key} must be true or false; got {value!r}")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str | list):
        raise SettingError(f"{path}: {key} must be a number, a string or a list; got {value!r}")
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    try:
        kind(text)
    except ValueError:
        raise SettingError(f"{path}: {key} must be {'a whole' if kind is int else 'a'} number; got {value!r}") from None
    return text


def _kind(annotation: Any) -> type:
    """What a parameter is, such as int for ``Annotated[int | None, ...]``."""
    inside = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    kinds = [kind for kind in (inside, *get_args(inside)) if kind in (bool, int, float, Path, str)]
    return kinds[0] if kinds else str


def _parameters(context: typer.Context) -> list[Any]:
    """The options and arguments of a command, without those that every command has."""
    parameters = context.command.params
    return [parameter for parameter in parameters if parameter.name not in OWN and not getattr(parameter, "hidden", False)]


def _names(parameter: Any) -> list[str]:
    """By which names a file may call an option, the usual one first."""
    return [name.lstrip("-") for name in parameter.opts if name.startswith("--") or not name.startswith("-")]
