"""What docs/security.md promises of the whole source: it is read here, and so is the page.

Behaviour is tested beside the code that it is of; the page names those tests.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from patience import PATIENCE

from vidssl.base.errors import VidsslError
from vidssl.evaluation.feature_file import load_features, save_features
from vidssl.evaluation.features import Features
from vidssl.workspace.checkpoints import load_encoder
from vidssl.workspace.workspace import Workspace

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "security.md"
TREES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8"))
    for path in sorted((ROOT / "vidssl").rglob("*.py"))
}


def calls():
    """Yields (file, called name with dots, call) of every call in the source."""
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield file, ast.unparse(node.func), node


def options(call: ast.Call) -> dict[str, str]:
    return {k.arg: ast.unparse(k.value) for k in call.keywords if k.arg}


def imported() -> dict[str, set[str]]:
    """Returns {module: files that import it}, modules with dots and by their first name."""
    found: dict[str, set[str]] = {}
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            for name in names:
                found.setdefault(name, set()).add(file)
                found.setdefault(name.partition(".")[0], set()).add(file)
    return found


# ── code


def test_nothing_is_unpickled_and_no_text_is_run_as_code():
    for file, name, call in calls():
        last = name.rpartition(".")[2]
        assert name not in ("eval", "exec", "os.system", "os.popen"), f"{file}: {name}"
        assert not (name.startswith(("pickle.", "marshal.", "shelve.")) and "load" in last), file
        if name == "torch.load":
            assert options(call).get("weights_only") == "True", f"{file} unpickles"
        if name in ("np.load", "numpy.load"):
            assert options(call).get("allow_pickle", "False") == "False", f"{file} unpickles"
    assert not imported().keys() & {"dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}


def test_only_views_that_the_user_names_are_run_as_code():
    runs = {file for file, name, _ in calls() if name.endswith(("exec_module", "import_module"))}
    assert runs == {"vidssl/views/plugins.py"}


# ── network


def test_nothing_but_torchrun_and_dask_speaks_to_the_network():
    modules = imported()
    for module in ("socket", "urllib", "http", "requests", "ftplib", "smtplib", "ssl", "asyncio"):
        assert module not in modules, f"{module} is imported by {modules.get(module)}"
    assert modules["distributed"] == {"vidssl/extraction/dask_pool.py"}  # --dask
    assert modules["torch.distributed"] == {"vidssl/base/distributed.py"}  # torchrun
    for file, name, call in calls():
        assert "download" not in name and not name.startswith("torch.hub.load"), f"{file}: {name}"
        if name.endswith("models.get_model"):  # or torchvision would download weights
            assert options(call)["weights"] == "None", file


# ── text


OTHER_OPENS = r"(os|av|Terminal|cls|DerivedView|zipfile|entries)\.open"  # those of no text file


def test_every_text_file_is_read_and_written_as_utf8_by_name():
    """Else a locale without UTF-8 decides how labels, recipes and manifests are read."""
    for file, name, call in calls():
        last = name.rpartition(".")[2]
        given = [ast.unparse(a) for a in call.args]
        encoding = options(call).get("encoding", "")
        where = f"{file}:{call.lineno}: {name}"
        if last == "read_text" and name != "read_text":
            assert "'utf-8" in " ".join([*given, encoding]), where
        elif last == "write_text":
            assert "'utf-8" in " ".join([*given[1:], encoding]), where
        elif last == "open" and not re.match(OTHER_OPENS, name):
            mode = " ".join([*given, options(call).get("mode", "")])
            assert re.search(r"'\w+b\+?'|'\w\+?b\+?'", mode) or "'utf-8" in encoding, where


UNDER_C = """
import sys
from pathlib import Path
from vidssl.dataset.labels import label_videos
from vidssl.dataset.video import find_videos
from vidssl.recipes.recipe_file import read_recipe
assert sys.getfilesystemencoding() != "utf-8" and sys.argv[1:] == ["x"]
(listed,), (found,) = find_videos(Path("liste.txt")), find_videos(Path("videos"))
assert found.path.stat().st_size == 1 and listed.path == found.path.absolute()
(row,) = label_videos([listed], "labels.csv").rows
print(ascii([found.name, listed.name, row["label"], read_recipe("r.toml")["title"]]))
"""


def test_every_text_is_utf8_whatever_the_locale_says(tmp_path: Path):
    (tmp_path / "videos/é").mkdir(parents=True)
    (tmp_path / "videos/é/ü.mp4").write_bytes(b"x")
    (tmp_path / "liste.txt").write_text("videos/é/ü.mp4\n", "utf-8")
    (tmp_path / "labels.csv").write_text("path,label\nvideos/é/ü.mp4,Größe\n", "utf-8")
    (tmp_path / "r.toml").write_text('title = "Größe"\n', "utf-8")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", UNDER_C, "x"], cwd=tmp_path, env=os.environ | plain,
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert eval(done.stdout) == ["é/ü.mp4", "videos/é/ü.mp4", "Größe", "Größe"]


# ── files of numbers


@pytest.fixture
def features(tmp_path) -> Path:
    path = tmp_path / "features.h5"
    windows = np.eye(2, dtype=np.float32)
    save_features(Features(("a", "b"), windows, np.array([0, 0]), np.array([0, 1, 2])), path)
    assert load_features(path).ids == ("a", "b")
    return path


def external_link(file):
    del file["windows"]
    file["windows"] = h5py.ExternalLink("/etc/passwd", "/windows")


def external_storage(file):
    del file["windows"]
    file.create_dataset("windows", (2, 2), "<f4", external=[("/etc/passwd", 0, 16)])


def virtual(file):
    layout = h5py.VirtualLayout((2, 2), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "windows", (2, 2))
    del file["windows"]
    file.create_virtual_dataset("windows", layout)


def filtered(file):
    del file["windows"]
    file.create_dataset("windows", data=np.eye(2, dtype=np.float32), compression="gzip")


def huge(file):
    del file["windows"]
    file.create_dataset("windows", (10**7, 10**6), "<f4")


@pytest.mark.parametrize("change", [external_link, external_storage, virtual, filtered, huge])
def test_features_come_from_their_own_file_alone(features, change):
    with h5py.File(features, "r+") as file:
        change(file)
    with pytest.raises(VidsslError, match=r"features\.h5 is damaged: "):
        load_features(features)


TABLE = b'{"a":{"dtype":"F32","shape":[99999999],"data_offsets":[0,4]}}'
# The bytes that a header says it has, and those that follow.
HEADERS = {1 << 40: b"{}", 1 << 62: b"", 200_000_000: b"{}", 2: b"[]", len(TABLE): TABLE}


@pytest.mark.parametrize(
    "head", [b"", b"\x80\x02", *(n.to_bytes(8, "little") + rest for n, rest in HEADERS.items())]
)
def test_the_header_of_safetensors_is_bounded(tmp_path, head):
    path = tmp_path / "encoder.rgb.safetensors"
    path.write_bytes(head)
    with pytest.raises(VidsslError, match=r"encoder\.rgb\.safetensors"):
        load_encoder(path)


def test_a_tensor_of_another_shape_builds_nothing(tmp_path):
    path = tmp_path / "encoder.rgb.safetensors"
    spec = (
        '{"view": "rgb", "backbone": "tiny", "channels": 3, "frames": 8, "stride": 1, "size": 32}'
    )
    about = {"vidssl": f'{{"kind": "encoder", "format": 1, "spec": {spec}}}'}
    safetensors.torch.save_file({"evil\x1b[2J": torch.zeros(1)}, path, about)
    with pytest.raises(VidsslError, match="does not fit the backbone tiny"):
        load_encoder(path)


def test_nothing_is_written_through_a_work_folder_or_a_lock_that_is_a_link(tmp_path):
    workspace, outside = Workspace(tmp_path / "w"), tmp_path / "outside"
    outside.mkdir()
    for link, place in (("{}", outside), ("{}.lock", outside / "lock")):
        run = workspace.open_run("pack", "main", {"stage": "pack"}, {})
        path = Path(link.format(run.folder))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(place)
        with pytest.raises(VidsslError, match="a link"), run:
            pass
        path.unlink()
    assert list(outside.iterdir()) == []


# ── the page


def test_every_test_that_the_page_names_is_there():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text("utf-8"))
    assert len(named) > 20
    for file, test in named:
        assert re.search(rf"^def {test}\(", (ROOT / file).read_text("utf-8"), re.M), (file, test)
