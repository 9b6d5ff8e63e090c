"""Recipes in files of the user's: printed whole, read back, checked, and told apart by content."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from cli_workspace import vidssl
from small_workspace import small_workspace
from typer.testing import CliRunner

from vidssl.base.errors import UsageError
from vidssl.cli import app
from vidssl.methods import METHODS
from vidssl.recipes.recipe import load_recipe, probe_config, recipe_card, resolve
from vidssl.recipes.recipe_file import is_file_name, merge, recipe_names, recipe_text, whole_recipe
from vidssl.workspace.workspace import Workspace


def shown(*words: str) -> str:
    result = CliRunner().invoke(app, ["recipes", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def written(folder: Path, text: str, name: str = "my.toml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


# ── from a shipped recipe to a file and back ─────────────────────────────────────────────────


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_as_a_file_is_the_same_recipe(name, tmp_path):
    """The same numbers for every method and stream, and the same identity of a run."""
    file = written(tmp_path, shown("show", name), f"{name}.toml")
    for method in METHODS:
        for stream in ("rgb", "flow", "mask"):
            own, shipped = (load_recipe(which, method, stream) for which in (file, name))
            assert own == shipped and own.as_dict() == shipped.as_dict()
    assert probe_config(file) == probe_config(name)
    assert recipe_card(file) == recipe_card(name)


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_shown_whole_as_toml_and_as_json(name):
    content = tomllib.loads(shown("show", name))
    assert "base" not in content
    assert json.loads(shown("show", name, "--json")) == content == whole_recipe(name)
    assert json.loads(shown("--json", "show", name)) == content


def test_a_recipe_without_a_base_is_shown_with_its_comments():
    assert "# 4 GPUs of 48" in recipe_text("paper")


@pytest.mark.parametrize(
    "over",
    [
        {"train": {"epochs": 5}, "coclr": {"flow": {"train": {"lr": 0.5}}}},
        {"augment": {"blur": 0.25}},
        {"augment": {"policy": "cocon"}},
        {"coclr": {"augment": {"policy": "dpc-finetune", "jitter": 0.5}}},
        {"coclr": {"train": {"lr": 0.25}, "augment": {"gray": 0.125}}},
    ],
    ids=str,
)
def test_recipes_on_each_other_say_the_same_when_they_are_made_one(over):
    """A later one's table for all methods overrides an earlier one's for a single method."""
    base = {
        "train": {"epochs": 10, "batch_size": 16},
        "augment": {"policy": "truthful", "jitter": 0.75},
        "coclr": {
            "train": {"epochs": 20, "lr": 0.125},
            "augment": {"policy": "coclr", "blur": 0.5},
            "flow": {"train": {"epochs": 30}, "augment": {"gray": 0.5}},
        },
    }
    for method in ("coclr", "infonce"):
        for stream in ("rgb", "flow"):
            apart = resolve("it", [base, over], method, stream)
            assert resolve("it", [merge([base, over])], method, stream) == apart


# ── a file of the user's ─────────────────────────────────────────────────────────────────────


def test_a_file_is_named_by_a_path_or_its_suffix():
    assert is_file_name("./my") and is_file_name("my.toml") and is_file_name("recipes/my.toml")
    assert not is_file_name("paper") and not is_file_name("coclr-ucf101")


def test_a_shipped_name_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("paper").write_text("[train]\nepochs = 3")
    assert load_recipe("paper", "infonce", "rgb").train.epochs == 300
    assert load_recipe("./paper", "infonce", "rgb").train.epochs == 3


def test_a_file_may_be_based_on_a_shipped_recipe_and_is_known_by_its_name_alone(tmp_path):
    text = 'base = "coclr-ucf101"\n[coclr.train]\nepochs = 7\n[finetune.evaluation]\nhop = 9\n'
    ours = load_recipe(written(tmp_path, text), "coclr", "rgb")
    base = load_recipe("coclr-ucf101", "coclr", "rgb")
    assert ours == replace(base.override("train", epochs=7), name="my")
    (tmp_path / "elsewhere").mkdir()
    assert load_recipe(written(tmp_path / "elsewhere", text), "coclr", "rgb") == ours
    tested = load_recipe(written(tmp_path, text), "finetune", "rgb").evaluation
    assert (tested.crops, tested.hop) == ("ten", 9)


def test_a_run_is_the_same_for_the_same_content_wherever_the_file_lies(tmp_path):
    small_workspace(tmp_path / "ws", clips=4)
    few = ["--epochs", 1, "--batch-size", 4, "--set", "queue=8", "--set", "frames=4"]
    few += ["--set", "size=32"]

    def pretrained(recipe: str) -> dict:
        command = ["pretrain", "--recipe", recipe, *few, "--json"]
        return vidssl(*command, workspace=tmp_path / "ws").json

    first = pretrained("cpu")
    again = pretrained(written(tmp_path, shown("show", "cpu"), "cpu.toml"))
    assert again["reused"] and again["artifact"] == first["artifact"]
    changed = shown("show", "cpu").replace("temperature = 1.0", "temperature = 0.9")
    other = pretrained(written(tmp_path, changed, "cpu.toml"))
    assert not other["reused"]
    artifact = Workspace(tmp_path / "ws").newest("checkpoint")
    assert artifact.recipe["recipe"] == "cpu" and artifact.recipe["method"]["temperature"] == 0.9


def test_finetuning_and_probing_take_a_file(tmp_path):
    small_workspace(tmp_path / "ws", clips=4)
    text = shown("show", "cpu").replace('crops = "centre"', 'crops = "centre"\nhop = 3')
    file = written(tmp_path, f"{text}\n[probe]\nepochs = 4\n")
    tuned = ["finetune", "--recipe", file, "--dry-run", "--json"]
    assert '"hop": 3' in vidssl(*tuned, workspace=tmp_path / "ws").out
    probed = ["probe", "--recipe", file, "--dry-run", "--json"]
    assert '"epochs": 4' in vidssl(*probed, workspace=tmp_path / "ws").out


# ── mistakes ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[train]\nepochs = = 3", "is no TOML"),
        ("epochs = 3", "a recipe has no table epochs"),
        ("[trian]\nepochs = 3", r"no table trian \(did you mean train\?\)"),
        ("train = 3", r"train is a table of fields, which begins with \[train\]"),
        ("[train]\nepoch = 3", r"no field epoch \(did you mean epochs\?\)"),
        ("[train]\nepochs = 'many'", "epochs takes a whole number"),
        ("[train]\nepochs = 0", "epochs must be at least 1"),
        ("[infonce.methods]\nqueue = 3", r"infonce has no table methods \(did you mean method\?\)"),
        ("[infonce]\nmethod = 3", r"infonce.method is a table"),
        ("[infonce.evaluation]\nhop = 3", "infonce has no table evaluation"),
        ("[infonce.rbg.train]\nlr = 1.0", r"infonce has no table rbg \(did you mean rgb\?\)"),
        ("[infonce.rgb.rgb.train]\nlr = 1.0", "infonce.rgb has no table rgb"),
        ("[infonce.rgb.train]\nlrr = 1.0", r"no field lrr \(did you mean lr\?\)"),
        ("[coclr.method]\nmomentun = 1.0", r"no field momentun \(did you mean momentum\?\)"),
        ("[finetune.evaluation]\nhops = 3", r"no setting hops \(did you mean hop\?\)"),
        ("[probe]\nepoch = 3", r"a probe has no setting epoch \(did you mean epochs\?\)"),
        ("of = 'infonec'", r"no method infonec \(did you mean infonce\?\)"),
        ("base = 'papr'", r"no recipe papr \(did you mean paper\?\)"),
        ("title = 3", "title takes a text"),
        ("title = " + "[" * 5000 + "]" * 5000, "its lists are nested too deep"),
        ("title = " + "[" * 20 + "]" * 20, "nested more than 16 deep"),
        (f"[{'.'.join('a' * 5000)}]", "nested more than 16 deep"),
        ("[train]\nepochs = " + "9" * 40, "epochs takes a whole number"),
        ("[train]\nepochs = " + "9" * 5000, "is no TOML"),
        ("[train]\nlr = " + "9" * 400, "lr takes a number"),
        ("[train]\nlr = 1e999", "lr takes a number"),
        ("#" * (1 << 21), "is damaged: it has more than 1048576 bytes"),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence_that_names_the_file(tmp_path, text, told):
    """Also in a table that the run at hand does not read."""
    file = written(tmp_path, text)
    with pytest.raises(UsageError, match=told) as caught:
        load_recipe(file, "infonce", "flow")
    said = str(caught.value)
    assert said.startswith(f"{file}") and "\n" not in said


def test_a_setting_of_the_user_is_no_mistake_of_the_file(tmp_path):
    file = written(tmp_path, "[train]\nepochs = 3")
    with pytest.raises(UsageError, match=r"^infonce has no setting epoch"):
        load_recipe(file, "infonce", "rgb", [("epoch", 3)])


@pytest.mark.parametrize("command", ["pretrain", "cotrain", "finetune", "probe"])
def test_a_file_that_is_not_there_is_told_as_such(tmp_path, command):
    said = vidssl(command, "--recipe", "./none.toml", workspace=tmp_path / "ws", code=2).err
    assert "there is no recipe file ./none.toml" in said


def test_a_file_that_is_no_text_is_told_as_such(tmp_path):
    (tmp_path / "my.toml").write_bytes(b"\xff\xfe[\x00t\x00")
    with pytest.raises(UsageError, match="is no TOML"):
        load_recipe(str(tmp_path / "my.toml"), "infonce", "rgb")


def test_only_a_regular_file_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    for path in (tmp_path / "pipe.toml", f"{tmp_path}/"):
        with pytest.raises(UsageError, match="is no regular file"):
            load_recipe(str(path), "infonce", "rgb")


def test_an_unknown_name_is_answered_with_the_nearest():
    for words in (["show", "coclr-ucf10"], ["show", "coclr-ucf10", "--json"]):
        result = CliRunner().invoke(app, ["recipes", *words])
        assert result.exit_code == 2
        assert "(did you mean coclr-ucf101?)" in result.stderr.replace("\n", " ")
    assert json.loads(result.stdout)["exit_code"] == 2
