"""The documentation cannot go out of date unnoticed.

Commands in it parse, links and names lead somewhere, and the generated reference is fresh.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from patience import PATIENCE
from typer.testing import CliRunner

from vidssl.cli import app
from vidssl.optical_flow.algorithms import FLOW_METHODS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
USAGE = ROOT / "docs" / "usage.md"
PAGES = sorted([README, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
EVERYDAY = ("extract-flow", "pack", "pretrain", "cotrain", "probe", "retrieve")
SOURCES = sorted(
    path
    for folder in ("vidssl", "tests", "docs", ".ci")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".md", ".toml", ""} and path.is_file()
)
TESTED = "-m pytest"

sys.path.insert(0, str(ROOT / "docs"))
generate_cli = importlib.import_module("generate_cli")
COMMANDS = {command.name: command for command in generate_cli.commands()}


# ── commands ─────────────────────────────────────────────────────────────────────────────────


def parser(program: typer.Typer) -> typer.Typer:
    """The real commands with their real options, doing nothing."""
    copy = typer.Typer(no_args_is_help=False)
    for info in program.registered_commands:
        copy.command(info.name)(idle(info.callback))
    for group in program.registered_groups:
        copy.add_typer(parser(group.typer_instance), name=group.name)
    copy.callback(invoke_without_command=True)(idle(program.registered_callback.callback))
    return copy


def idle(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def nothing(**options: object) -> None:
        pass

    return nothing


PARSER = parser(app)


def complaint(line: str) -> str:
    """Returns what the command line says against a line that begins with vidssl; empty if
    nothing.
    """
    words = shlex.split(line.partition(" > ")[0], comments=True)
    result = CliRunner().invoke(PARSER, words[words.index("vidssl") + 1 :])
    return "" if result.exit_code == 0 else f"{line}\n{result.output}"


def commands_in_blocks(text: str) -> Iterator[str]:
    """Returns what code blocks call of vidssl: shell lines, cut at && and at pipes."""
    for line in code_lines(text):
        for part in re.split(r"&&|\||;", line):
            part = re.sub(r"^[$\s]*(\S*/)?vidssl\b", "vidssl", part)
            part = re.sub(r"^\s*(\S*/)?(python3?|torchrun)\b.*?-m vidssl\b", "vidssl", part)
            if re.match(r"vidssl( |$)", part) and "[OPTIONS]" not in part:
                yield part


def code_lines(text: str) -> list[str]:
    """Returns the lines of code blocks in a shell's language or in none, and indented ones."""
    lines, language = [], None
    for line in text.splitlines():
        fence = re.match(r"\s*```(\w*)", line)
        if fence:
            language = fence[1] if language is None else None
        elif language in ("sh", "console", "bash", "") or line.startswith("    "):
            lines.append(line)
    return lines


def commands_in_sentences(text: str) -> list[str]:
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return re.findall(r"`(vidssl [a-z][^`]*)`", prose)


def test_the_reference_is_fresh():
    assert (ROOT / "docs" / "cli.md").read_text() == generate_cli.page(), (
        "docs/cli.md is stale: run python docs/generate_cli.py"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_with_an_example_that_parses(name):
    command = COMMANDS[name]
    assert command.text, f"vidssl {name} has no help"
    assert command.examples, f"the help of vidssl {name} has no line 'Example:  vidssl {name} …'"
    for line in command.examples:
        assert f"vidssl {name}" in line
        assert not complaint(line)
    assert f"\n## vidssl {name}\n" in (ROOT / "docs" / "cli.md").read_text()
    assert calls(USAGE, name), f"docs/usage.md does not call vidssl {name}"


def calls(path: Path, name: str) -> bool:
    """Whether a code block of the page calls the command."""
    lines = (shlex.split(line, comments=True) for line in commands_in_blocks(path.read_text()))
    return any(words[1 : 1 + len(name.split())] == name.split() for words in lines)


@pytest.mark.parametrize("name", EVERYDAY)
def test_the_readme_calls_the_six_everyday_commands(name):
    assert calls(README, name)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name):
    known_by_name = {"--epochs"}
    for option in (*COMMANDS[name].options, *COMMANDS[name].arguments):
        assert option.help or set(option.names) & known_by_name, f"{name}: {option.names}"


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_reads_as_the_reference_does(name):
    shown = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "160"}).stdout
    usage = shown.partition("Usage: ")[2].partition("\n")[0].split()
    wanted = COMMANDS[name].arguments if name else ()
    assert [
        word for word in usage[2 + len(name.split()) :] if word not in ("COMMAND", "[ARGS]...")
    ] == [argument.takes for argument in wanted], usage
    flags = [o.names[0] for o in COMMANDS[name].options if not o.takes] if name else ["--version"]
    for flag in [*flags, "--help"]:
        row = re.search(rf"{flag} +(-\w)?  +\S", shown)
        assert row is not None, f"{name}: {flag} is shown as though it took something"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_line_that_calls_vidssl_parses(path):
    for line in commands_in_blocks(path.read_text()):
        assert not complaint(line), f"{path.name}: {complaint(line)}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_command_named_in_a_sentence_exists(path):
    for line in commands_in_sentences(path.read_text()):
        said = complaint(line)
        # A sentence may leave out what the command needs, but not invent an option.
        assert not said or "Missing argument" in said, f"{path.name}: {said}"


def test_the_python_example_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", USAGE.read_text(), flags=re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    shape, *neighbours = done.stdout.splitlines()
    assert "128" in shape and len(neighbours) == 3


def test_messages_of_the_program_name_commands_that_exist():
    """An error that says `make it with: vidssl …` must not lead astray."""
    pattern = re.compile(r"vidssl ([a-z]+(?:-[a-z]+)*)((?: --[a-z-]+)*)")
    for path in sorted((ROOT / "vidssl").rglob("*.py")):
        for text in strings(path):
            if "\n" in text:
                continue  # a docstring
            for name, options in pattern.findall(text):
                if name in COMMANDS:
                    known = {n for option in COMMANDS[name].options for n in option.names}
                    assert set(options.split()) <= known, f"{path.name}: {text}"


def strings(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    return [n.value for n in ast.walk(tree)
            if isinstance(n, ast.Constant) and isinstance(n.value, str)]  # fmt: skip


# ── figures ──────────────────────────────────────────────────────────────────────────────────


def measured_flow() -> dict[tuple[str, str], str]:
    """Returns {(method, preset): "MS ms, PX px"} of the tables of docs/benchmarks.md."""
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    row = r"^\| (dis|farneback) ?(\w*) \| 240 \| ([\d.]+) \| ([\d.]+)"
    rows = re.findall(row, text, re.M)
    found = {(name, preset or "default"): tuple(of) for name, preset, *of in rows}
    for line in re.findall(r"^\| `tvl1[^\n]*", text, re.M):
        cells = [cell.strip(" `") for cell in line.strip("| ").split("|")]
        name, preset = cells[0].split()
        found[name, preset] = (cells[-1].split()[0], cells[1].split()[0])
    return {row: f"{ms} ms, {float(px):.2f} px" for row, (ms, px) in found.items()}


def test_help_lists_every_preset_of_flow_with_what_was_measured():
    (option,) = [o for o in COMMANDS["extract-flow"].options if "--preset" in o.names]
    (methods,) = [o for o in COMMANDS["extract-flow"].options if "--method" in o.names]
    measured = measured_flow()
    assert len(measured) == 3 + 3 + 3 + 1  # tvl1, tvl1-opencv, dis, farneback
    for name, method in FLOW_METHODS.items():
        assert re.search(rf"\b{name}\b(?!-)", methods.help)
        (said,) = re.findall(rf"(?:^|\. ){name}: (.*?)\.(?: |$)", option.help)
        for preset in method.presets:
            figures = rf" \({measured[name, preset]}" if (name, preset) in measured else ""
            assert re.search(rf"\b{preset}{figures}", said), (name, preset)


# ── set-up ───────────────────────────────────────────────────────────────────────────────────


def test_two_commands_do_all_the_setting_up():
    commands = [line for line in code_lines(README.read_text()) if "-m venv" in line]
    demo, tests = commands
    assert demo.endswith("vidssl demo")
    assert tests.endswith(TESTED)
    first_screen = README.read_text().splitlines()[:30]
    assert demo in first_screen and tests in first_screen


def test_continuous_integration_runs_the_readmes_test_command():
    (command,) = [line for line in code_lines(README.read_text()) if line.endswith(TESTED)]
    assert command.strip() in [
        line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()
    ]


# ── links and names ──────────────────────────────────────────────────────────────────────────


def anchors(path: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = path if not file else (path.parent / file).resolve()
        assert there.exists(), f"{path.name} links to {target}"
        if anchor:
            assert anchor in anchors(there), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_exist(path):
    pattern = r"(?<![\w/.-])((?:vidssl|tests|docs|\.ci)/[\w./-]*\w)"
    for name in re.findall(pattern, path.read_text(errors="replace")):
        if Path(name).suffix in {".py", ".md", ".toml", ".npz", ".h5"}:
            assert (ROOT / name).exists(), f"{path.relative_to(ROOT)} names {name}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_dotted_names_exist(path):
    """A page that says `vidssl.engine.loop.fit` points at something that is there."""
    for name in re.findall(r"`(vidssl(?:\.\w+)+)", path.read_text()):
        assert resolves(name), f"{path.name} names {name}"


def resolves(name: str) -> bool:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        try:
            functools.reduce(lambda at, part: member(at, part), parts[length:], found)
        except AttributeError:
            return False
        return True
    return False


def member(owner: object, name: str) -> object:
    """A field of a dataclass without a default is no attribute of the class, but it is there."""
    if name in getattr(owner, "__dataclass_fields__", {}):
        return None
    return getattr(owner, name)


def test_the_readmes_tree_is_the_package():
    named = re.findall(r"^ {4}([\w/]+)/ ", tree_of_readme(), flags=re.MULTILINE)
    there = {
        path.parent.relative_to(ROOT / "vidssl").as_posix()
        for path in (ROOT / "vidssl").rglob("__init__.py")
    } - {"."}
    assert sorted(named) == sorted(there), "the tree in README.md is not what lies in vidssl/"


def tree_of_readme() -> str:
    return README.read_text().partition("## The source")[2].partition("\n## ")[0]


def test_the_first_pages_are_short():
    """What somebody reads first must not grow into a second manual."""
    assert len(README.read_text().splitlines()) < 180
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 50


# ── the author's machine ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", [*SOURCES, README], ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_names_a_path_of_one_machine(path):
    places = "home|root|work|tmp|Users|mnt|scratch"
    found = re.findall(rf"(?<![\w.}}>/])/(?:{places})/\w+", path.read_text(errors="replace"))
    assert not found, f"{path.relative_to(ROOT)} names {found}"
