"""The package as it is built and installed, and the habits its source keeps."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from vidssl.version import VERSION

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = sorted((ROOT / "vidssl").rglob("*.py"))
# What a distribution is imported as, where the two names differ.
IMPORTED_AS = {"scikit-learn": "sklearn", "opencv-contrib-python": "cv2"}


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in MODULES:
        yield path.relative_to(ROOT), ast.parse(path.read_text())


# ── pyproject.toml ───────────────────────────────────────────────────────────────────────────


def requirements() -> dict[str, str]:
    """Returns {distribution: bounds} of the package and all its extras."""
    listed = list(PROJECT["project"]["dependencies"])
    for extra in PROJECT["project"]["optional-dependencies"].values():
        listed += extra
    parts = [re.fullmatch(r"([\w-]+)(.*)", line.replace(" ", "")) for line in listed]
    return {match[1]: match[2] for match in parts if match}


def test_python_311_is_the_oldest():
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    assert PROJECT["tool"]["ruff"]["target-version"] == "py311"


@pytest.mark.parametrize("name", requirements())
def test_every_requirement_has_bounds(name):
    bounds = requirements()[name]
    assert ">=" in bounds
    if name not in ("torch", "torchvision"):  # an upper bound there would hold back drivers
        assert "<" in bounds, f"{name}{bounds} has no upper bound"


def test_torch_is_new_enough():
    needed = requirements()
    assert needed["torch"] == ">=2.11,<3" and needed["torchvision"] == ">=0.26,<1"


def test_all_that_is_imported_is_required():
    needed = {IMPORTED_AS.get(name, name).replace("-", "_") for name in requirements()}
    for path, tree in trees():
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            for name in names:
                top = name.partition(".")[0]
                assert top in needed | sys.stdlib_module_names | {"vidssl"}, f"{path}: {name}"


def test_what_is_installed_is_this_version():
    assert importlib.metadata.version("vidssl") == VERSION
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="vidssl")
    assert entry.value == "vidssl.__main__:main"


def test_type_checkers_and_recipes_find_their_files():
    data = PROJECT["tool"]["setuptools"]["package-data"]["vidssl"]
    assert "py.typed" in data and (ROOT / "vidssl" / "py.typed").exists()
    for path in (ROOT / "vidssl").rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            relative = path.relative_to(ROOT / "vidssl")
            assert any(relative.match(pattern) for pattern in data), f"{relative} is not packaged"


def test_every_folder_of_modules_is_a_package():
    for path in MODULES:
        assert (path.parent / "__init__.py").exists(), f"{path.parent} has no __init__.py"


def test_the_licence_is_apache_2():
    assert PROJECT["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text


# ── running it ───────────────────────────────────────────────────────────────────────────────


def test_the_module_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "vidssl", "--version"], capture_output=True, text=True
    )
    assert done.stdout == f"vidssl {VERSION}\n" and done.returncode == 0


def test_the_console_script_is_there():
    script = Path(sys.executable).with_name("vidssl")
    done = subprocess.run([script, "--version"], capture_output=True, text=True)
    assert done.stdout == f"vidssl {VERSION}\n"


# ── building and installing it ───────────────────────────────────────────────────────────────


def test_what_is_built_is_whole_and_installs_in_a_fresh_environment(tmp_path: Path):
    """The wheel is built from the source archive. Either is installed, and nothing downloaded."""
    source = copied_source(tmp_path / "source")
    called(sys.executable, "-m", "build", "--no-isolation", source)
    (archive,) = (source / "dist").glob("*.tar.gz")
    (wheel,) = (source / "dist").glob("*.whl")
    check_archive(archive)
    check_installed(archive, tmp_path / "from-source")
    check_installed(wheel, tmp_path / "from-wheel")


def copied_source(folder: Path) -> Path:
    """Copies what a distribution is built from, since a build leaves files beside its source."""
    folder.mkdir()
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("vidssl", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def check_archive(archive: Path) -> None:
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "docs/cli.md"} <= names
    package = [path for path in (ROOT / "vidssl").rglob("*") if path.suffix in (".py", ".toml")]
    assert {path.relative_to(ROOT).as_posix() for path in package} <= names


def check_installed(built: Path, fresh: Path) -> None:
    """Installs a distribution in an environment that borrows its dependencies from this one."""
    called(sys.executable, "-m", "venv", "--without-pip", fresh)
    python, program = fresh / "bin" / "python", fresh / "bin" / "vidssl"
    (site,) = (fresh / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    install = ("install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    called(sys.executable, "-m", "pip", "--python", python, *install, "--ignore-installed", built)
    where = called(python, "-c", "import vidssl; print(vidssl.__file__)")
    assert Path(where.strip()).is_relative_to(fresh)
    assert called(program, "--version") == f"vidssl {VERSION}\n"
    assert "coclr-ucf101" in called(program, "recipes")


def called(*command: object) -> str:
    """Runs a command that has to succeed, without the source tree; returns what it printed."""
    done = subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        cwd=sysconfig.get_path("stdlib"),
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ── changes ──────────────────────────────────────────────────────────────────────────────────


def test_the_changelog_begins_with_this_version():
    """Below what is not released yet."""
    versions = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(v for v in versions if v != "Unreleased") == VERSION


# ── habits ───────────────────────────────────────────────────────────────────────────────────


def test_every_module_says_what_it_is():
    for path, tree in trees():
        if tree.body:  # an empty __init__ has nothing to say
            assert ast.get_docstring(tree), f"{path} has no docstring"


def test_every_public_class_and_function_says_what_it_gives():
    missing = []
    for path, tree in trees():
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                missing += [] if ast.get_docstring(node) else [f"{path}: {node.name}"]
    assert not missing


def test_every_public_function_has_types():
    missing = []
    for path, tree in trees():
        for owner in (tree, *(n for n in tree.body if isinstance(n, ast.ClassDef))):
            for node in owner.body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    if any(ast.unparse(d).startswith("triton.jit") for d in node.decorator_list):
                        continue  # Triton reads annotations in a way of its own
                    arguments = [*node.args.args, *node.args.kwonlyargs]
                    bare = {a.arg for a in arguments if a.annotation is None} - {"self", "cls"}
                    if bare or node.returns is None:
                        missing.append(f"{path}: {node.name}")
    assert not missing


def test_nothing_is_printed_below_the_command_line():
    for path, tree in trees():
        if path.parent.name == "cli":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path}:{node.lineno} prints"


def test_errors_are_caught_by_name_and_names_are_imported_one_by_one():
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}:{node.lineno} has a bare except"
            if isinstance(node, ast.ImportFrom):
                assert all(a.name != "*" for a in node.names), f"{path}:{node.lineno}: star import"
            assert not isinstance(node, ast.Global), f"{path}:{node.lineno} has a global name"


def test_nothing_is_unpickled():
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in ("pickle", "cloudpickle", "dill"), f"{path}"
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert not called.startswith("pickle."), f"{path}:{node.lineno}"
                if called == "torch.load":
                    assert "weights_only=True" in ast.unparse(node), f"{path}:{node.lineno}"
