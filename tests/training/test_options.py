"""Options are resolved once, before anything is looked up, and later steps read the result."""

from __future__ import annotations

from collections import Counter
from dataclasses import FrozenInstanceError

import pytest
from small_workspace import annotate, make_checkpoint, make_pack

from vidssl.base.errors import MissingInput, UsageError
from vidssl.methods import InfoNCE
from vidssl.stages import cotrain, finetune, pretrain
from vidssl.training import options as options_module
from vidssl.training.options import TrainingOptions, resolve
from vidssl.workspace.workspace import Workspace

FEW = (("epochs", 1), ("batch_size", 4), ("queue", 8))
COMMANDS = {
    "pretrain": (pretrain.run, pretrain.PretrainOptions(settings=FEW, dry_run=True)),
    "cotrain": (cotrain.run, cotrain.CotrainOptions(settings=(*FEW, ("k", 2)), dry_run=True)),
    "cmc": (cotrain.run, cotrain.CotrainOptions(method="cmc", settings=FEW, dry_run=True)),
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """A pack of two views with labels, and an untrained encoder of each view."""
    made = Workspace(tmp_path_factory.mktemp("options") / "workspace")
    pack = make_pack(made, [n % 3 for n in range(12)], ("rgb", "flow"))
    table = annotate(made, pack)
    for view in ("rgb", "flow"):
        make_checkpoint(made, pack, table, view)
    return made


@pytest.mark.parametrize("command", COMMANDS)
def test_device_method_and_recipe_are_chosen_once(workspace, command, monkeypatch):
    asked: Counter[str] = Counter()

    def counted(name: str) -> None:
        real = getattr(options_module, name)

        def ask(*given, **named):
            asked[name] += 1
            return real(*given, **named)

        monkeypatch.setattr(options_module, name, ask)

    names = ("choose_device", "choose_precision", "choose_method", "load_recipe")
    for name in names:
        counted(name)
    run, options = COMMANDS[command]
    assert run(workspace, options).plan is not None
    assert asked == dict.fromkeys(names, 1)


def test_what_is_resolved_is_whole_and_stays_as_it_is():
    resolved = resolve(TrainingOptions(stream="flow", device="cpu", settings=FEW), "pretrain")
    assert (resolved.view, resolved.device, resolved.precision) == ("flow", "cpu", "float32")
    assert resolved.recipe.name == "cpu" and resolved.recipe.train.epochs == 1
    assert resolved.method_class is InfoNCE
    with pytest.raises(FrozenInstanceError):
        resolved.device = "cuda"


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        (pretrain.run, pretrain.PretrainOptions),
        (cotrain.run, cotrain.CotrainOptions),
        (finetune.run, finetune.FinetuneOptions),
    ],
    ids=["pretrain", "cotrain", "finetune"],
)
def test_a_mistyped_word_is_told_before_a_missing_input(tmp_path, run, kind):
    empty = Workspace(tmp_path / "empty")
    for wrong, told in (
        ({"settings": (("epoch", 3),)}, "did you mean epochs"),
        ({"precision": "fp16"}, "no precision fp16"),
        ({"device": "tpu"}, "no device tpu"),
        ({"recipe": "papr"}, "did you mean paper"),
        ({"compile": True, "recompute": True}, "leave --compile or --recompute away"),
    ):
        with pytest.raises(UsageError, match=told):
            run(empty, kind(**wrong))
    with pytest.raises(MissingInput):
        run(empty, kind())
