"""Writes docs/cli.md, the reference of the command line, from the commands themselves.

    python docs/generate_cli.py

Reads signatures and docstrings, not what a terminal shows: the page is then the same for every
width, colour and release of Typer. tests/test_docs.py fails when the page is stale.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from vidssl.cli import app
from vidssl.cli.command import METAVARS, plain_type

PAGE = Path(__file__).with_name("cli.md")
EXAMPLE = "Example:"
HEAD = """\
# Command line

<!-- Made by docs/generate_cli.py from the commands themselves; edits here are lost. -->
"""
COMPLETION = """\
`vidssl --install-completion` lets the shell complete commands, options, and the names of views,
methods and recipes; `vidssl --show-completion` prints what it would install.
"""
EXIT_CODES = """\
## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | failed: a missing input, nothing usable, a damaged file; one sentence says which |
| 2 | a command or an option that makes no sense as given |
| 3 | done, but some videos were left out; they are listed with reasons |
| 130, 143, 138 | stopped by Ctrl-C, SIGTERM, SIGUSR1, after saving; the same command goes on |
"""


@dataclass(frozen=True)
class Parameter:
    """One argument or option: its names (none for an argument), what it takes, what it says."""

    names: tuple[str, ...]
    takes: str
    default: str
    help: str


@dataclass(frozen=True)
class Command:
    """One command: its docstring without the examples, the examples, and its parameters."""

    name: str
    text: str
    examples: tuple[str, ...]
    arguments: tuple[Parameter, ...]
    options: tuple[Parameter, ...]


def commands() -> list[Command]:
    """Returns all commands in the order of `vidssl --help`."""
    return list(_commands_of(app, ""))


def _commands_of(program: typer.Typer, before: str) -> Iterator[Command]:
    """Yields the commands of a program, and after a group's own command those in the group."""
    for info in program.registered_commands:
        assert info.callback is not None
        name = info.name or info.callback.__name__.replace("_", "-")
        yield _command(f"{before}{name}", info.callback)
    for group in program.registered_groups:
        assert group.typer_instance is not None
        callback = group.typer_instance.registered_callback
        assert callback is not None and callback.callback is not None
        yield _command(f"{before}{group.name}", callback.callback)
        yield from _commands_of(group.typer_instance, f"{before}{group.name} ")


def page() -> str:
    """Returns the whole page."""
    callback = app.registered_callback
    assert callback is not None and callback.callback is not None
    main = _command("", callback.callback)
    parts = [HEAD, main.text + "\n", _options_table(main.options), COMPLETION]
    parts.append("".join(f"- [`vidssl {c.name}`](#vidssl-{c.name.replace(' ', '-')}): {_title(c)}\n"
                         for c in commands()))  # fmt: skip
    parts += [_section(command) for command in commands()]
    return "\n".join([*parts, EXIT_CODES])


# ── reading ──────────────────────────────────────────────────────────────────────────────────


def _command(name: str, function: Callable[..., Any]) -> Command:
    text = re.sub(r"\[/?bold\]", "", inspect.getdoc(function) or "")
    lines = text.splitlines()
    examples = [line.removeprefix(EXAMPLE).strip() for line in lines if line.startswith(EXAMPLE)]
    rest = "\n".join(line for line in lines if not line.startswith(EXAMPLE))
    parameters = list(_parameters(function))
    return Command(
        name=name,
        text=re.sub(r"\n{3,}", "\n\n", rest).strip(),
        examples=tuple(examples),
        arguments=tuple(p for p in parameters if not p.names),
        options=tuple(p for p in parameters if p.names),
    )


def _parameters(function: Callable[..., Any]) -> Iterator[Parameter]:
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if hints[name] is typer.Context:
            continue
        kind, *about = get_args(hints[name])
        (info,) = (a for a in about if isinstance(a, typer.models.ParameterInfo))
        kind, repeats = plain_type(kind)
        word = name.replace("_", "-")
        text = info.help or ""
        if isinstance(info, typer.models.ArgumentInfo):
            required = parameter.default is inspect.Parameter.empty
            shown = info.metavar if required else f"[{info.metavar}]"
            yield Parameter((), f"{shown}..." if repeats else shown, "", text)
            continue
        takes = info.metavar or METAVARS[kind]
        text += " May be given several times." if repeats else ""
        text += f" Also by the environment: `{info.envvar}`." if info.envvar else ""
        yield Parameter(_names(info, word), takes, _default(parameter.default), text.strip())


def _names(info: typer.models.ParameterInfo, word: str) -> tuple[str, ...]:
    # Within Annotated[…] there is no default, and its place holds the first of the names.
    names = [n for n in (info.default, *(info.param_decls or ())) if isinstance(n, str)]
    if all(not name.startswith("--") for name in names):
        names.insert(0, f"--{word}")
    return tuple(names)


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty or value is None or isinstance(value, bool):
        return ""
    return f"`{value}`"


# ── writing ──────────────────────────────────────────────────────────────────────────────────


def _section(command: Command) -> str:
    usage = " ".join(["vidssl", command.name, *(a.takes for a in command.arguments), "[OPTIONS]"])
    lines = [f"## vidssl {command.name}", "", command.text, "", f"    {usage}", ""]
    if command.examples:
        lines += ["```sh", *command.examples, "```", ""]
    lines += [f"- `{a.takes}`: {a.help}" for a in command.arguments]
    return "\n".join([*lines, "", _options_table(command.options)])


def _options_table(options: tuple[Parameter, ...]) -> str:
    rows = ["| option | takes | default | |", "|---|---|---|---|"]
    for option in options:
        names = ", ".join(f"`{name}`" for name in option.names)
        cells = (names, option.takes, option.default, option.help)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _title(command: Command) -> str:
    return command.text.partition("\n")[0].rstrip(".")


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
