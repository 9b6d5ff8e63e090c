"""The layout holds: imports run downward, files and functions stay small, one file per subject.

The floors are those of the table in docs/architecture.md. A module may import packages on lower
floors and modules of its own package; nothing imports in a circle. Imports inside functions count
as well.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "vidssl").rglob("*.py"))
}


def floors() -> dict[str, int]:
    """Returns {module or package: floor} from the page's table."""
    section = PAGE.read_text().partition("\n## Floors\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \|([^|]*)\|", section, flags=re.MULTILINE)
    return {name: int(floor) for floor, names in rows for name in re.findall(r"`([\w.]+)`", names)}


FLOORS = floors()


def place(module: str) -> str | None:
    """Returns the entry of the table that a module falls under: the most exact one."""
    parts = module.removeprefix("vidssl.").split(".")
    names = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((name for name in names if name in FLOORS), None)


def imports(module: str) -> set[str]:
    """Returns the modules of vidssl that a module imports, anywhere in its file."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in FILES else str(node.module))
    return {name for name in found if name == "vidssl" or name.startswith("vidssl.")}


MODULES = [name for name in FILES if name != "vidssl"]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_stands_on_a_floor(module):
    assert place(module) is not None, f"{module} is missing in the floors of {PAGE.name}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downward(module):
    own = place(module)
    for other in imports(module) - {"vidssl"}:
        there = place(other)
        below = FLOORS[there] < FLOORS[own]
        assert below or there == own, (
            f"{module} (floor {FLOORS[own]}) imports {other} (floor {FLOORS[there]})"
        )


def test_nothing_imports_in_a_circle():
    # A package's own __init__ gathers its modules; what they import of it is itself gathered.
    graph = {module: imports(module) - {module, "vidssl"} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None


def test_the_table_names_nothing_that_is_gone():
    for name in FLOORS:
        assert f"vidssl.{name}" in FILES, f"{PAGE.name} has {name}, and vidssl has not"


def third_parties(module: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    return found


READS_VIDEO = {"vidssl.dataset.decoding", "vidssl.dataset.synthetic"}


def test_only_video_files_need_av_and_only_the_command_line_needs_typer_and_rich():
    for module in MODULES:
        found = third_parties(module)
        assert "av" not in found or module in READS_VIDEO, module
        assert not found & {"typer", "rich", "click"} or place(module) == "cli", module


def test_only_kernels_import_triton():
    for module in MODULES:
        assert "triton" not in third_parties(module) or place(module) == "kernels", module


# ── small files, one subject each ────────────────────────────────────────────────────────────

LONGEST_FILE, LONGEST_FUNCTION = 400, 60  # lines


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_are_short(module):
    text = FILES[module].read_text()
    lines = len(text.splitlines())
    assert lines <= LONGEST_FILE, f"{module} has {lines} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and not is_command(node):
            long = (node.end_lineno or 0) - node.lineno + 1
            assert long <= LONGEST_FUNCTION, f"{module}.{node.name} has {long} lines"


def is_command(node: ast.FunctionDef) -> bool:
    """Whether it is a command, whose signature has a line for each option."""
    return any("command" in ast.unparse(decorator) for decorator in node.decorator_list)


def modules_in(package: str) -> set[str]:
    """Returns the names of a package's own modules, without its __init__."""
    return {path.stem for path in (ROOT / "vidssl" / package).glob("*.py")} - {"__init__"}


def test_there_is_one_file_per_method():
    from vidssl.methods import METHODS

    wanted = {method.__module__.rpartition(".")[2] for method in METHODS.values()}
    assert len(wanted) == len(METHODS), "two methods share a file"
    assert modules_in("methods") == wanted | {"method"}  # the contract of all of them


# Commands whose stage bears another name: `import` is no name for a Python module, and
# `vidssl retrieve` is two stages: a query's neighbours, and the measure of --evaluate.
# `vidssl probe` is one for each --mode; probe and retrieve are also run over several splits.
STAGES = {
    "import": {"import_checkpoint"},
    "retrieve": {"retrieve", "evaluate_retrieval", "over_splits"},
    "probe": {"probe", "probe_knn", "over_splits"},
}


def test_there_is_one_file_per_command():
    from vidssl.cli import app

    commands = {str(info.name or info.callback.__name__) for info in app.registered_commands}
    wanted = {stage for name in commands for stage in STAGES.get(name, {name.replace("-", "_")})}
    assert modules_in("stages") == wanted


def test_there_is_one_file_per_recipe():
    assert modules_in("recipes") == {"recipe", "recipe_file"}  # which read the others
    assert list((ROOT / "vidssl" / "recipes").glob("*.toml"))


# ── what a training machine needs ────────────────────────────────────────────────────────────

TRAINING = ("pretrain", "cotrain", "finetune", "probe", "evaluate_retrieval", "baselines")
CHECK = """
import sys
import vidssl.dataset.synthetic
{imports}
flow, networks = "vidssl.optical_flow.algorithms", "vidssl.views.torchvision_networks"
heavy = {{"av", "vidssl.dataset.video", "vidssl.dataset.decoding", flow, networks}}
heavy &= sys.modules.keys()
assert not heavy, sorted(heavy)
"""


def test_training_and_evaluation_load_neither_a_decoder_nor_a_flow_algorithm():
    lines = "\n".join(f"import vidssl.stages.{stage}" for stage in TRAINING)
    run(CHECK.format(imports=lines))


def test_training_works_without_av_installed():
    hidden = "import sys; sys.modules['av'] = None"  # importing it then raises ImportError
    run("\n".join([hidden, *(f"import vidssl.stages.{stage}" for stage in TRAINING)]))


def test_the_help_loads_no_network():
    """`vidssl --help` must be instant, and PyTorch takes seconds."""
    run("import sys, vidssl.cli; assert not {'torch', 'cv2', 'h5py', 'av'} & sys.modules.keys()")


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
