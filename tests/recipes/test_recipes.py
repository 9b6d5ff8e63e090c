"""Recipes: the paper's numbers as docs/methods.md gives them, overrides, and refusals."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import vidssl.recipes.recipe
from vidssl.augment import POLICIES
from vidssl.base.errors import UsageError
from vidssl.cli import app
from vidssl.evaluation.linear_probe import ProbeConfig, rate_for
from vidssl.methods import METHODS
from vidssl.recipes.recipe import PARTS, load_recipe, probe_config, recipe_card
from vidssl.recipes.recipe_file import recipe_names
from vidssl.views import VIEWS

FILES = Path(vidssl.recipes.recipe.__file__).parent
WORDS = {"title", "of", "base", "reports", "recorded_as"}
TABLES = {*PARTS, "probe"}
OWN_TABLES = {"finetune": {"evaluation"}, "linear": {"evaluation"}}  # of a method, beside the parts


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
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_every_shipped_recipe_fits_every_method(name, method, stream):
    recipe = load_recipe(name, method, stream)
    assert recipe.as_dict()["method_name"] == method
    assert not recipe.explicit
    assert recipe_card(name).title


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_has_no_table_that_nothing_reads(name):
    """A slip in a table's name would silently leave it out."""
    text = tomllib.loads((FILES / f"{name}.toml").read_text())
    assert text.keys() <= WORDS | TABLES | METHODS.keys()
    for method in METHODS.keys() & text.keys():
        parts = PARTS.keys() | OWN_TABLES.get(method, set())
        assert text[method].keys() <= parts | VIEWS.keys()
        for stream in VIEWS.keys() & text[method].keys():
            assert text[method][stream].keys() <= parts


@pytest.mark.parametrize("name", recipe_names())
def test_a_published_run_says_what_is_reported_of_it(name):
    card = recipe_card(name)
    assert bool(card.reports) == (card.method is not None)
    assert card.method is None or card.method in METHODS


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


def test_dpc_on_kinetics_with_a_deeper_network():
    recipe = load_recipe("dpc-k400-r34", "cpc", "rgb")
    assert (recipe.network.backbone, recipe.clip.size, recipe.clip.stride) == ("r2d3d_34", 224, 5)
    assert (recipe.train.epochs, recipe.train.batch_size) == (150, 44)
    assert (recipe.train.schedule, recipe.config.unit) == ("constant", False)


def test_the_command_lists_every_recipe_with_what_is_reported():
    shown = CliRunner().invoke(app, ["recipes"]).stdout
    listed = json.loads(CliRunner().invoke(app, ["recipes", "--json"]).stdout)
    assert list(listed) == recipe_names()
    for name in recipe_names():
        card = recipe_card(name)
        assert f"{name} " in shown and card.title in shown and card.reports in shown
        assert listed[name]["reports"] == card.reports


def test_vicc_has_the_published_hyperparameters():
    single = load_recipe("vicc-ucf101", "vicc", "rgb").config
    across = load_recipe("vicc-cross-ucf101", "vicc-cross", "rgb").config
    for config in (single, across):
        assert (config.prototypes, config.temperature, config.epsilon) == (300, 0.1, 0.05)
        assert config.sinkhorn_iterations == 3 and not config.published_gradient
    assert (single.queue_from_epoch, single.freeze_prototypes_epochs) == (200, 100)
    assert (across.queue_from_epoch, across.freeze_prototypes_epochs) == (25, 0)


# ── the probe ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_gives_a_probe(name):
    assert isinstance(probe_config(name), ProbeConfig)


@pytest.mark.parametrize("name", ["infonce-k400", "coclr-ucf101", "coclr-k400", "ubernce-ucf101"])
def test_the_probe_of_coclr_has_the_published_settings(name):
    config = probe_config(name)
    assert (config.epochs, config.lr, config.weight_decay, config.batch) == (100, 1.0, 1e-3, 1024)
    assert (config.decay_at, config.momentum) == ((0.6, 0.8), 0.9)
    assert rate_for(config.batch, config) == 1.0


@pytest.mark.parametrize("name", ["vicc-ucf101", "vicc-cross-ucf101"])
def test_the_probe_of_vicc_has_the_published_settings(name):
    config = probe_config(name)
    assert (config.epochs, config.lr, config.weight_decay, config.batch) == (100, 0.1, 1e-3, 128)
    assert (config.decay_at, config.momentum) == ((0.6, 0.8), 0.9)
    assert rate_for(config.batch, config) == 0.1


def test_settings_of_a_probe_are_read_from_texts_and_override_the_recipe():
    texts = [("lr", "0.5"), ("decay_at", "[0.5]"), ("batch", "64"), ("weight_decay", "1")]
    config = probe_config("vicc-ucf101", texts)
    assert (config.lr, config.decay_at, config.batch, config.weight_decay) == (0.5, (0.5,), 64, 1.0)
    assert config.lr_batch == 128 and probe_config(None) == ProbeConfig()


def test_a_field_that_came_later_does_not_change_the_identity_of_earlier_probes():
    names = {"epochs", "lr", "momentum", "weight_decay", "decay_at", "batch"}
    assert ProbeConfig().as_dict().keys() == names
    assert ProbeConfig(lr_batch=128).as_dict().keys() == names | {"lr_batch"}


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("coclr-ucf10", [], "did you mean coclr-ucf101"),
        (None, [("weigth_decay", "1")], "did you mean weight_decay"),
        (None, [("epochs", "many")], "epochs takes a whole number"),
        (None, [("epochs", "1.5")], "epochs takes a whole number"),
        (None, [("batch", "true")], "batch takes a whole number"),
        (None, [("batch", "1")], "batch must be at least 2"),
        (None, [("lr", "fast")], "lr takes a number"),
        (None, [("decay_at", "0.6")], "decay_at takes a list of numbers"),
        (None, [("lr_batch", "0")], "lr_batch must be at least 1"),
    ],
)
def test_a_mistake_about_a_probe_is_one_sentence(name, settings, told):
    with pytest.raises(UsageError, match=told) as caught:
        probe_config(name, settings)
    assert "\n" not in str(caught.value)


# ── settings ─────────────────────────────────────────────────────────────────────────────────


def misspelt(name: str) -> list[str]:
    """Slips of the finger: a letter left out, one doubled, two swapped."""
    middle = len(name) // 2
    swapped = name[: middle - 1] + name[middle] + name[middle - 1] + name[middle + 1 :]
    return [
        name[:middle] + name[middle + 1 :],
        name[:middle] + name[middle] + name[middle:],
        swapped,
    ]


@pytest.mark.parametrize("method", METHODS)
def test_a_misspelt_setting_is_answered_with_the_right_one(method):
    """For every field of the method, and of all that a recipe has beside it."""
    recipe = load_recipe("paper", method, "rgb")
    fields = {
        field.name
        for attribute in PARTS.values()
        for field in dataclasses.fields(getattr(recipe, attribute))
    }
    assert {field.name for field in dataclasses.fields(METHODS[method].Config)} <= fields
    for name in fields - {"k", "lr"}:  # too short for a slip to be told from another word
        for wrong in set(misspelt(name)) - fields:
            with pytest.raises(UsageError) as caught:
                load_recipe("paper", method, "rgb", [(wrong, "1")])
            assert f"(did you mean {name}?)" in str(caught.value), (wrong, str(caught.value))


def test_a_setting_of_another_method_is_no_setting_of_this_one():
    for method, field in (("infonce", "k"), ("vicc", "momentum"), ("cpc", "prototypes")):
        with pytest.raises(UsageError, match=f"{method} has no setting {field}"):
            load_recipe("paper", method, "rgb", [(field, "1")])


def test_settings_override_and_are_remembered():
    settings = [("lr", "0.01"), ("train.epochs", "7"), ("milestones", "[3, 5]"), ("queue", 64)]
    recipe = load_recipe("paper", "coclr", "rgb", settings)
    assert recipe.train.lr == 0.01 and recipe.train.epochs == 7
    assert recipe.train.milestones == (3, 5) and recipe.config.queue == 64
    assert recipe.explicit == {"lr", "epochs", "milestones", "queue"}
    assert recipe.as_dict()["method"]["queue"] == 64


def test_settings_of_one_part_are_checked_together():
    settings = [("k", "300"), ("queue", "512")]  # k alone would be more than the recipe's queue
    for order in (settings, settings[::-1]):
        config = load_recipe("cpu", "coclr", "rgb", order).config
        assert (config.k, config.queue) == (300, 512)


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


# ── finetuning ───────────────────────────────────────────────────────────────────────────────

COCLR = ("adam", 1e-3, 1e-3, 64, 500, (400, 450), 0.9, 0.1)
VICC = ("sgd", 0.1, 1e-3, 128, 500, (200, 300, 400, 450), 0.9, 0.1)
DPC = ("adam", 1e-3, 1e-3, 128, 300, (60, 80), 0.5, 1.0)
COCON = ("adam", 1e-3, 1e-5, 8, 100, (50, 70), 0.5, 1.0)
FINETUNED = {
    # name: training, policy, crops, hop
    "paper": (COCLR, "truthful", "ten", None),
    "infonce-ucf101": (COCLR, "coclr-finetune", "ten", None),
    "infonce-k400": (COCLR, "coclr-finetune", "ten", None),
    "ubernce-ucf101": (COCLR, "coclr-finetune", "ten", None),
    "coclr-ucf101": (COCLR, "coclr-finetune", "ten", None),
    "coclr-k400": (COCLR, "coclr-finetune", "ten", None),
    "vicc-ucf101": (VICC, "coclr-finetune", "ten", None),
    "vicc-cross-ucf101": (VICC, "coclr-finetune", "ten", None),
    "dpc-ucf101": (DPC, "dpc-finetune", "centre", 60),
    "dpc-k400": (DPC, "dpc-finetune", "centre", 60),
    "cocon-ucf101": (COCON, "cocon-finetune", "centre", 60),
    "cocon-k400": (COCON, "cocon-finetune", "centre", 60),
    "cocon-hmdb51": (COCON, "cocon-finetune", "centre", 90),
}


@pytest.mark.parametrize("name", FINETUNED)
def test_a_published_finetuning_has_the_published_numbers(name):
    numbers, policy, crops, hop = FINETUNED[name]
    recipe = load_recipe(name, "finetune", "rgb")
    train, config = recipe.train, recipe.config
    assert numbers == (
        *(train.optimizer, train.lr, train.weight_decay, train.batch_size, train.epochs),
        *(train.milestones, config.dropout, config.backbone_rate),
    )
    assert (train.schedule, train.gamma, train.sgd_momentum) == ("step", 0.1, 0.9)
    assert (config.relu, config.freeze_context) == (numbers is DPC, numbers is COCON)
    assert config.state_dropout == 0.1
    augment = recipe.augment
    assert (augment.policy, augment.jitter, augment.gray, augment.blur) == (policy, 0.3, 0, 0)
    assert augment.one_clip == 0 and augment.strong == 1 and augment.per_frame == "nothing"
    assert augment.crop_attempts == 10 and augment.crop_fallback == "square"
    tested = recipe.evaluation
    assert (tested.crops, tested.hop) == (crops, hop)
    weights = [
        load_recipe(name, "finetune", stream).evaluation.weight
        for stream in ("rgb", "flow", "mask", "pose")
    ]
    assert weights == ([2, 2, 1, 1] if numbers is COCON else [1, 1, 1, 1])
    if numbers in (DPC, COCON):
        assert (recipe.clip.frames, recipe.clip.stride, recipe.clip.blocks) == (5, 3, 8)


@pytest.mark.parametrize("name", [*FINETUNED, "dpc-k400-r34"])
def test_a_published_linear_probe_on_fresh_clips_has_the_published_numbers(name):
    """CoCLR's and ViCC's; where none was published the numbers are CoCLR's, above a context."""
    recipe, finetuned = (load_recipe(name, method, "rgb") for method in ("linear", "finetune"))
    train = recipe.train
    batch = 128 if name.startswith("vicc") else 64
    numbers = (train.optimizer, train.lr, train.weight_decay, train.batch_size, train.epochs)
    assert numbers == ("sgd", 0.1, 1e-3, batch, 100)
    assert (train.milestones, train.schedule, train.gamma) == ((60, 80), "step", 0.1)
    assert train.sgd_momentum == 0.9 and train.warmup_epochs == 0
    assert recipe.augment == finetuned.augment and recipe.clip == finetuned.clip
    assert recipe.network == finetuned.network
    assert recipe.config.relu == finetuned.config.relu
    for stream in ("rgb", "flow", "mask"):
        alike = [load_recipe(name, method, stream) for method in ("linear", "finetune")]
        assert alike[0].evaluation == alike[1].evaluation


def test_finetuning_policies_are_as_published():
    ours, theirs = POLICIES["truthful"], POLICIES["coclr-finetune"]
    assert (theirs.crop_area_min, theirs.crop_ratio) == (0.2, "uniform-or-inverse")
    assert (theirs.resize, theirs.motion_as_picture) == ("bicubic", True)
    jitter = ("brightness", "contrast", "saturation", "hue")
    assert [getattr(theirs, name) for name in jitter] == [getattr(ours, name) for name in jitter]
    dpc, cocon = POLICIES["dpc-finetune"], POLICIES["cocon-finetune"]
    assert (dpc.crop_area_min, dpc.crop_ratio) == (0.5, "uniform-or-inverse")
    assert [getattr(dpc, name) for name in jitter] == [0.5, 0.5, 0.5, 0.25]
    assert cocon == replace(dpc, policy="cocon-finetune", presentation="cocon")
