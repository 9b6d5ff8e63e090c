"""Recipes: the paper's numbers as docs/methods.md gives them, overrides, and refusals."""

from __future__ import annotations

import pytest

from vidssl.errors import UsageError
from vidssl.objectives import OBJECTIVES
from vidssl.recipes import load_recipe, recipe_card, recipe_names


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
    assert recipe_card(name).title


PUBLISHED = {
    # name: method, epochs, milestones, batch, queue
    "infonce-ucf101": ("infonce", 300, (250, 280), 64, 2048),
    "infonce-k400": ("infonce", 300, (250, 280), 128, 16384),
    "ubernce-ucf101": ("ubernce", 300, (250, 280), 64, 2048),
    "coclr-ucf101": ("coclr", 100, (80,), 64, 2048),
    "coclr-k400": ("coclr", 50, (40,), 64, 16384),
    "vicc-ucf101": ("vicc", 500, None, 192, 1920),
    "vicc-cross-ucf101": ("vicc-cross", 100, None, 96, 1920),
}


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_a_published_run_has_the_published_numbers(name, stream):
    method, epochs, milestones, batch, queue = PUBLISHED[name]
    assert recipe_card(name).method == method
    recipe = load_recipe(name, method, stream)
    assert (recipe.network.backbone, recipe.network.project) == ("s3d", 128)
    assert (recipe.clip.frames, recipe.clip.stride, recipe.clip.size) == (32, 1, 128)
    train = recipe.train
    assert (train.epochs, train.batch_size, recipe.config.queue) == (epochs, batch, queue)
    if milestones is not None:
        assert (train.schedule, train.milestones, train.gamma) == ("step", milestones, 0.1)
        assert (train.optimizer, train.lr, train.weight_decay) == ("adam", 1e-3, 1e-5)
    else:
        assert (train.optimizer, train.lr, train.weight_decay) == ("larc", 0.6, 1e-6)
        assert (train.schedule, train.final_lr, train.sgd_momentum) == ("cosine", 6e-4, 0.9)


def test_vicc_has_the_published_hyperparameters():
    single = load_recipe("vicc-ucf101", "vicc", "rgb").config
    across = load_recipe("vicc-cross-ucf101", "vicc-cross", "rgb").config
    for config in (single, across):
        assert (config.prototypes, config.temperature, config.epsilon) == (300, 0.1, 0.05)
        assert config.sinkhorn_iterations == 3 and not config.published_gradient
    assert (single.queue_from_epoch, single.freeze_prototypes_epochs) == (200, 100)
    assert (across.queue_from_epoch, across.freeze_prototypes_epochs) == (25, 0)


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
