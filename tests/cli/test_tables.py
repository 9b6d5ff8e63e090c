"""Tables on a narrow terminal: lines instead, with every figure."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from vidssl.cli.tables import fitted, typed
from vidssl.cli.terminal import Terminal
from vidssl.workspace.workspace import Workspace


def shown(what: object, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(fitted(what, console))
    return console.file.getvalue()


def figures() -> Table:
    table = Table(title=Text("probe of [a]"), title_justify="left")
    table.add_column("stream")
    table.add_column("top-1 %", no_wrap=True)
    table.add_column("of classes", overflow="fold")
    table.add_row("rgb", "33.3 ± 27.2", "a" * 30)
    table.add_row(Text("[flow]"), "66.7 ± 27.2", "")
    return table


@pytest.mark.parametrize("width", [24, 34, 38])
def test_a_table_without_room_is_lines_that_have_all_of_it(width: int) -> None:
    lines = shown(figures(), width).splitlines()
    assert "probe of [a]" in lines
    assert {"  stream: rgb", "  top-1 %: 33.3 ± 27.2", "  stream: [flow]"} <= set(
        line.rstrip() for line in lines
    )
    assert "".join(lines).count("a" * 8) >= 2
    assert "┃" not in "".join(lines) and "…" not in "".join(lines)


@pytest.mark.parametrize("width", [39, 60])
def test_a_table_with_room_stays_one(width: int) -> None:
    text = shown(Group(Text("head"), figures()), width)
    assert "head" in text and "┃" in text
    assert "33.3 ± 27.2" in text and "…" not in text


def test_the_first_of_two_cells_is_the_head_of_the_other() -> None:
    table = Table("setting", "value")
    table.add_row("recipe.train.optimizer", "adam")
    assert "".join(shown(table, 20).split()) == "recipe.train.optimizer:adam"


def test_a_command_to_be_copied_stays_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    shown = Group(Text("Go on with this:"), typed("vidssl", "status", "-w", Path("my demo/space")))
    Terminal(Workspace("none"), json=False, quiet=False).show(shown)
    assert capsys.readouterr().out.splitlines()[1] == "  vidssl status -w 'my demo/space'"


def test_a_table_without_heads_keeps_its_rows() -> None:
    table = Table(title="plan")
    table.show_header = False
    for _ in range(3):
        table.add_column()
    table.add_row("memory", Text("1.5 GB"), "measured")
    assert shown(table, 20).split() == ["plan", "memory", "1.5", "GB", "measured"]
    assert "│" in shown(table, 80)
