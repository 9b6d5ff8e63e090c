"""What help lists and where, and groups of options that several commands share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from vidssl.cli import app
from vidssl.cli.command import terminal_command
from vidssl.cli.terminal import Terminal

PANELS = {
    "Pipeline": "extract-flow extract-view pack pretrain cotrain import export",
    "Evaluation": "flow-diff probe finetune retrieve baselines compare report embed",
    "Workspace": "status verify demo recipes",
}


def panels(*words: str, of: typer.Typer = app) -> dict[str, list[str]]:
    """Returns {heading: first words of its rows} of a help text."""
    shown = CliRunner().invoke(of, [*words, "--help"], env={"COLUMNS": "160"}).stdout
    found: dict[str, list[str]] = {}
    for line in shown.splitlines():
        if heading := re.match(r"╭─ ([\w ]+) ─", line):
            rows = found.setdefault(heading[1], [])
        elif row := re.match(r"│ ([\w-]+) ", line):
            rows.append(row[1])
    return found


def test_commands_are_listed_by_what_they_are_for():
    listed = panels()
    options = listed.pop("Options")
    assert options == ["--version", "--install-completion", "--show-completion", "--help"]
    assert listed == {panel: names.split() for panel, names in PANELS.items()}


@pytest.mark.parametrize("name", ["pretrain", "cotrain", "finetune", "probe", "demo"])
def test_every_command_lists_its_shared_options_under_the_same_headings(name):
    listed = panels(name)
    assert listed["Every command"] == ["--workspace", "--json", "--quiet", "--verbose"]
    assert listed["Options"][-1] == "--help"
    for option, panel in {"--pack": "Data", "--recipe": "Recipe", "--device": "Run"}.items():
        if any(option in rows for rows in listed.values()):
            assert option in listed[panel]


def test_h_is_short_for_help_everywhere():
    for words in ([], ["pretrain"], ["recipes"], ["recipes", "show"]):
        short, long = (CliRunner().invoke(app, [*words, flag]) for flag in ("-h", "--help"))
        assert short.exit_code == 0 and short.stdout == long.stdout


@dataclass(frozen=True)
class Shape:
    width: Annotated[int, typer.Option(help="Of it.")] = 3
    names: Annotated[list[str] | None, typer.Option("--name", help="Of it.")] = None


def test_a_group_of_options_stands_where_its_parameter_does_and_arrives_as_one_object():
    program, seen = typer.Typer(add_completion=False), []

    @terminal_command(program, panel="Panel")
    def draw(
        terminal: Terminal,
        path: Annotated[Path, typer.Argument(help="Of it.")],
        *,
        before: Annotated[str | None, typer.Option(help="Of it.")] = None,
        shape: Shape,
        after: Annotated[bool, typer.Option("--after", help="Of it.")] = False,
    ) -> None:
        """Draw."""
        seen.append((path, before, shape, after))

    assert panels(of=program)["Options"] == ["--before", "--width", "--name", "--after", "--help"]
    for words in (["x"], ["x", "--after", "--width", "5", "--name", "a", "--name", "b"]):
        result = CliRunner().invoke(program, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert seen == [
        (Path("x"), None, Shape(), False),
        (Path("x"), None, Shape(5, ["a", "b"]), True),
    ]
