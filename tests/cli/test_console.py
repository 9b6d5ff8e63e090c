"""Nothing that a file says reaches the terminal raw, and no broken output ends the work."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE
from rich.console import Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from vidssl.base.errors import VidsslError
from vidssl.base.text import UNPRINTABLE, printable
from vidssl.cli.console import PlainConsole, Unbroken
from vidssl.cli.progress_bars import PlainProgress, RichProgress
from vidssl.cli.terminal import Terminal, plan_table
from vidssl.stages.status import Status, UnfinishedRun
from vidssl.workspace.workspace import Workspace

EVIL = (
    "\x1b[2J\x9b31m\x07\rok\n✓ done\u202egpj.\u2066\u200f\ufeff\x00\udce9\U000e0041[red]x[/red][/]"
)
SHOWN = (
    r"\x1b[2J\x9b31m\x07\x0dok\x0a✓ done\u202egpj.\u2066\u200f\ufeff\x00\udce9\U000e0041"
    "[red]x[/red][/]"
)


def printed(renderable, width=400) -> str:
    out = io.StringIO()
    PlainConsole(file=out, width=width).print(renderable, crop=False)
    return out.getvalue()


def test_every_character_that_shows_nothing_is_escaped():
    assert printable(EVIL) == SHOWN
    assert printable("Größe 走る فارسی‌ها 👩‍👧 – “x”") == "Größe 走る فارسی‌ها 👩‍👧 – “x”"
    for number in [*range(32), *range(0x7F, 0xA0)]:
        assert printable(f"a{chr(number)}b") == f"a\\x{number:02x}b"


def test_whatever_is_printed_goes_through_one_place():
    table = Table(EVIL, title=EVIL, caption=Text(EVIL))
    table.add_column(Text(EVIL))
    table.add_row(EVIL, Text(EVIL, "bold"))
    tree = Tree(EVIL)
    tree.add(Text.assemble(("left out: ", "yellow"), EVIL))
    for shown in (EVIL, Text(EVIL, "red"), table, tree, Group(table, Text(EVIL), EVIL)):
        said = printed(shown)
        assert not UNPRINTABLE.search(said.replace("\n", "")), said
        assert "[red]x[/red][/]" in said and r"\u202egpj." in said


def test_styles_stay_where_they_were():
    out = io.StringIO()
    console = PlainConsole(file=out, width=80, force_terminal=True, color_system="standard")
    console.print(Text.assemble(("a\x1bb", "red"), "c\x1bd", ("e", "green")))
    assert out.getvalue() == "\x1b[31ma\x1b[0m\\x1b\x1b[31mb\x1b[0mc\\x1bd\x1b[32me\x1b[0m\n"


@pytest.mark.parametrize("kind", [PlainProgress, RichProgress])
def test_progress_escapes_names_and_figures(kind):
    out = io.StringIO()
    progress = kind(PlainConsole(file=out, width=600))
    progress.say(EVIL)
    with progress.task(EVIL, 2, "video") as task:
        task.note(EVIL)
        task.advance(2, video=EVIL)
    assert not UNPRINTABLE.search(out.getvalue().replace("\n", ""))
    assert out.getvalue().count(r"\x9b31m") >= 3


def test_tables_and_the_tree_of_the_status_escape(tmp_path, capsys):
    terminal = Terminal(Workspace(tmp_path), json=False, quiet=True)
    from vidssl.cli.status_table import status_tree
    from vidssl.stages.status import tree

    run = UnfinishedRun("pack", "main", "pack", "x", False, failed=EVIL, differs={EVIL: EVIL})
    status = Status(str(tmp_path), [], [run], [EVIL])
    terminal.show(status_tree(status, tree(status)))
    terminal.show(plan_table({EVIL: EVIL, "more": {"label": EVIL}}))
    terminal.notes([EVIL])
    terminal.show(EVIL)
    terminal._list_quarantined([(EVIL, EVIL)])
    said = capsys.readouterr().out
    assert not UNPRINTABLE.search(said.replace("\n", "")) and said.count("[/red][/]") >= 6
    Terminal(Workspace(tmp_path), json=True, quiet=True).json_out({"video": EVIL})
    said = capsys.readouterr().out
    assert not UNPRINTABLE.search(said.replace("\n", "")) and json.loads(said) == {"video": EVIL}


def test_an_error_is_one_line_whatever_it_quotes(monkeypatch):
    from typer.testing import CliRunner

    from vidssl.cli import app
    from vidssl.stages import status

    def fail(workspace: Workspace) -> None:
        raise VidsslError(f"no label {EVIL}")

    monkeypatch.setattr(status, "run", fail)
    for more in ([], ["--verbose"]):
        done = CliRunner().invoke(app, ["status", *more])
        assert done.exit_code == 1 and done.stderr.endswith(f"vidssl: no label {SHOWN}\n")
        assert not UNPRINTABLE.search(done.stderr.replace("\n", ""))


# ── outputs that break ───────────────────────────────────────────────────────────────────────


class Broken(io.StringIO):
    """A stream whose reader is gone, whose disk is full, or whose terminal was closed."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.tries = number, 0

    def write(self, text: str) -> int:
        self.tries += 1
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("kind", [PlainProgress, RichProgress])
def test_progress_that_cannot_be_shown_does_not_end_the_work(kind, number):
    stream = Broken(number)
    progress = kind(PlainConsole(file=Unbroken(stream), force_terminal=kind is RichProgress))
    done = 0
    with progress.task("training", 100, "step") as task:
        for step in range(100):
            task.advance(1, loss=1.0)
            task.note("a note")
            done += step >= 0
    progress.say("the end")
    assert done == 100 and stream.tries == 1  # after the first failure nothing is tried


@pytest.mark.parametrize("arguments", [["recipes"], ["status"], ["status", "--json"]])
def test_a_result_that_nobody_reads_ends_without_a_word(tmp_path, arguments):
    """As for any program in a pipe, when the reader has gone: `| head -1`."""
    read, write = os.pipe()
    os.close(read)
    place = [] if arguments == ["recipes"] else ["-w", str(tmp_path / "w")]
    done = subprocess.run(
        [sys.executable, "-m", "vidssl", *arguments, *place],
        stdout=write, stderr=subprocess.PIPE, text=True, timeout=PATIENCE,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_error_with_nobody_to_read_it_keeps_its_exit_code(tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "vidssl", "verify", "-w", str(tmp_path / "none")],
        stdout=subprocess.PIPE, stderr=write, timeout=PATIENCE,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stdout) == (1, b"")


def test_only_this_file_makes_consoles():
    """So nothing can be printed beside the one place that escapes."""
    package = Path(__file__).parents[2] / "vidssl"
    made = {p.name for p in package.rglob("*.py") if "Console(" in p.read_text("utf-8")}
    assert made == {"console.py", "terminal.py"}
    assert "PlainConsole(" in (package / "cli/terminal.py").read_text("utf-8")
    assert " Console(" not in (package / "cli/terminal.py").read_text("utf-8")
