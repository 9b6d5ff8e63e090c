"""Recipes: the paper's numbers as docs/methods.md gives them, overrides, and refusals."""

from __future__ import annotations

import pytest

from vidssl.errors import UsageError
from vidssl.objectives import OBJECTIVES
from vidssl.recipes import load_recipe, recipe_names, recipe_title


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_the_paper_recipe_is_the_papers_run_on_ucf101(stream):
    for method, epochs, milestones in (("infonce", 300, (250, 280)), ("coclr", 100, (80,))):
        recipe = load_recipe("paper", method, stream)
        assert (recipe.network.backbone, recipe.network.project) == ("s3d", 128)
        assert (recipe.clip.frames, recipe.clip.stride, recipe.clip.size) == (32, 1, 128)
        train = recipe.train
        assert (train.epochs, train.milestones, train.gamma) == (epochs, milestones, 0.1)
        assert (train.optimizer, train.lr, train.weight_decay) == ("adam", 1e-3, 1e-5)
        assert (train.schedule, train.batch_size, train.warmup_epochs) == ("step", 64, 0)
        config = recipe.config
        assert (config.queue, config.momentum, config.temperature) == (2048, 0.999, 0.07)
    assert (config.k, config.drop_self_prob, config.wait_for_full_queue) == (5, 0.0, True)


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("method", OBJECTIVES)
@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_every_shipped_recipe_fits_every_method(name, method, stream):
    recipe = load_recipe(name, method, stream)
    assert recipe.as_dict()["method_name"] == method
    assert not recipe.explicit
    assert recipe_title(name)


def test_settings_override_and_are_remembered():
    settings = [("lr", "0.01"), ("train.epochs", "7"), ("milestones", "[3, 5]"), ("queue", 64)]
    recipe = load_recipe("paper", "coclr", "rgb", settings)
    assert recipe.train.lr == 0.01 and recipe.train.epochs == 7
    assert recipe.train.milestones == (3, 5) and recipe.config.queue == 64
    assert recipe.explicit == {"lr", "epochs", "milestones", "queue"}
    assert recipe.as_dict()["method"]["queue"] == 64


def test_a_recipe_is_plain_json_and_its_name_does_not_stand_in_for_its_numbers():
    one = load_recipe("cpu", "infonce", "rgb").as_dict()
    other = load_recipe("cpu", "infonce", "rgb", [("lr", 0.5)]).as_dict()
    assert one["recipe"] == other["recipe"] and one != other


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("papr", "infonce", "rgb"), "did you mean paper"),
        (("paper", "infonec", "rgb"), "did you mean infonce"),
        (("paper", "infonce", "rgb", [("temprature", "0.1")]), "did you mean temperature"),
        (("paper", "infonce", "rgb", [("k", "5")]), "has no setting k"),
        (("paper", "infonce", "rgb", [("epochs", "many")]), "epochs takes a"),
        (("paper", "infonce", "rgb", [("epochs", "true")]), "epochs takes a"),
        (("paper", "infonce", "rgb", [("schedule", "cosin")]), "did you mean cosine"),
        (("paper", "infonce", "rgb", [("epochs", "0")]), "epochs must be at least 1"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, told):
    with pytest.raises(UsageError, match=told) as caught:
        load_recipe(*arguments)
    assert "\n" not in str(caught.value)
