"""Shell completion: the right names, without PyTorch."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from vidssl.backbones.published_weights import PUBLISHED_METHODS
from vidssl.cli import app
from vidssl.cli.completion import complete_recipes, complete_views
from vidssl.clips.loader import DECODERS
from vidssl.methods import METHODS_BY_STAGE
from vidssl.optical_flow.algorithms import FLOW_METHODS
from vidssl.recipes.recipe_file import recipe_names
from vidssl.stages.export import FORMATS
from vidssl.training.options import PRECISIONS

SCRIPT = """
import sys
from vidssl.__main__ import main

sys.argv = ["vidssl"]
try:
    main()
finally:
    assert not {"torch", "av"} & sys.modules.keys()
"""


def completed(line: str) -> list[str]:
    """Returns what bash is told that the last word of a line may be."""
    words = line.split(" ")
    variables = {"_VIDSSL_COMPLETE": "complete_bash", "COMP_WORDS": line}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        env={**os.environ, **variables, "COMP_CWORD": str(len(words) - 1)},
    )
    assert not done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("vidssl ver", ["verify"]),
        ("vidssl pretrain --bat", ["--batch-size"]),
        ("vidssl pretrain --stream f", ["flow"]),
        ("vidssl probe --stream rgb,f", ["rgb,flow"]),
        ("vidssl cotrain --method c", ["coclr", "cmc", "cocon"]),
        ("vidssl finetune --recipe vicc", ["vicc-cross-ucf101", "vicc-ucf101"]),
        ("vidssl recipes show pap", ["paper"]),
    ],
)
def test_bash_completes_without_loading_pytorch(line, names):
    assert completed(line) == names


@pytest.mark.parametrize(
    ("command", "option", "names"),
    [
        ("pretrain", "method", METHODS_BY_STAGE["pretrain"]),
        ("cotrain", "method", METHODS_BY_STAGE["cotrain"]),
        ("extract-flow", "method", FLOW_METHODS),
        ("import", "method", PUBLISHED_METHODS),
        ("export", "format", FORMATS),
        ("pretrain", "precision", PRECISIONS),
        ("finetune", "decode", DECODERS),
    ],
)
def test_names_that_are_written_out_for_completion_are_all_there_are(command, option, names):
    callbacks = {c.name or c.callback.__name__: c.callback for c in app.registered_commands}
    annotation = inspect.signature(callbacks[command]).parameters[option].annotation
    (info,) = get_args(annotation)[1:]
    assert sorted(info.autocompletion("")) == sorted(names)


def test_views_of_the_users_own_are_completed_too(tmp_path, monkeypatch):
    assert complete_views("") == ["rgb", "flow", "pose", "mask"]
    assert complete_views("rgb,p") == ["rgb,pose"]
    monkeypatch.setenv("VIDSSL_VIEWS", str(tmp_path / "none.py"))
    assert complete_views("m") == ["mask"]


def test_recipes_are_completed_by_name_and_files_by_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    for name in ("my.toml", "mine/one.toml", "mine/one.txt"):
        Path(name).touch()
    assert complete_recipes("") == [*recipe_names(), "my.toml"]
    assert complete_recipes("m") == ["my.toml", "mine/"]
    assert complete_recipes("mine/") == ["mine/one.toml"]
