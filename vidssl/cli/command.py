"""Registers functions as commands, with the options that all commands have."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from inspect import Parameter
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import typer

from vidssl.base.errors import UsageError
from vidssl.cli.command_group import Command
from vidssl.cli.options import JsonOption, QuietOption, VerboseOption, WorkspaceOption
from vidssl.cli.terminal import Terminal

# What help says that an option takes.
METAVARS = {bool: "", int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}
OF_EVERY_COMMAND: dict[str, Any] = {
    "workspace": WorkspaceOption,
    "json": JsonOption,
    "quiet": QuietOption,
    "verbose": VerboseOption,
}


def terminal_command(
    app: typer.Typer,
    name: str | None = None,
    *,
    panel: str,
    workspace: Path = Path("vidssl-workspace"),
    damaged: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function as a command that also takes the options every command has.

    The function's first parameter is a :class:`Terminal`, made from these options. A parameter
    whose type is a dataclass stands for a group of options, one for each field: the command takes
    them in the group's place, and the function gets them as one object.

    Args:
        name: of the command; None: the function's.
        panel: the heading under which `vidssl --help` lists it.
        workspace: where the command works unless it is told otherwise.
        damaged: whether it works where workspace.json is damaged, too.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        groups: dict[str, Any] = {p.name: p.annotation for p in own if is_dataclass(p.annotation)}
        defaults = {"workspace": workspace, "json": False, "quiet": False, "verbose": False}
        options = [option for p in own for option in _expanded(p)]
        options += [_option(n, kind, defaults[n]) for n, kind in OF_EVERY_COMMAND.items()]
        for option in options:
            set_metavar(option)

        def run(**given: Any) -> None:
            place, json, quiet, _ = (given.pop(option) for option in OF_EVERY_COMMAND)
            for parameter, group in groups.items():
                given[parameter] = group(**{f.name: given.pop(f.name) for f in fields(group)})
            function(Terminal.open(place, json, quiet, damaged), **given)

        # typer reads options from the signature, help from the docstring.
        run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        run.__annotations__ = {option.name: option.annotation for option in options}
        run.__name__, run.__doc__ = function.__name__, function.__doc__
        app.command(name, cls=Command, rich_help_panel=panel)(run)
        return function

    return register


def _expanded(parameter: Parameter) -> list[Parameter]:
    """Returns an option as it is, and a group of options as one parameter for each of them."""
    group = parameter.annotation
    if not is_dataclass(group):
        return [_option(parameter.name, group, parameter.default)]
    kinds = get_type_hints(group, include_extras=True)
    return [_option(field.name, kinds[field.name], field.default) for field in fields(group)]


def _option(name: str, kind: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind, default=default)


def set_metavar(parameter: Parameter) -> None:
    """Sets what help shows that an option takes, or an argument's name, unless that is set."""
    kind, info = get_args(parameter.annotation)[:2]
    if plain_type(kind)[0] is Path:
        info.parser = path
    if info.metavar is None:
        argument = isinstance(info, typer.models.ArgumentInfo)
        info.metavar = parameter.name.upper() if argument else METAVARS[plain_type(kind)[0]]


def path(text: str | Path) -> Path:
    """Returns a path of the command line.

    Raises:
        UsageError: the text is empty, which would else mean the current folder.
    """
    if text == "":
        raise UsageError("a path is empty: is a variable of the shell not set?")
    return Path(text)


def plain_type(kind: Any) -> tuple[type, bool]:
    """Returns the type of one value of an option, and whether several may be given."""
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(k for k in get_args(kind) if k is not types.NoneType)
    if get_origin(kind) is list:
        return get_args(kind)[0], True
    return kind, False
