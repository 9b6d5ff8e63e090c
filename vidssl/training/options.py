"""Options of a training run, and what can be checked of them before anything is looked up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from vidssl.base.device import choose_device
from vidssl.base.errors import UsageError, nearest_name, require
from vidssl.clips.loader import batch_maker_class
from vidssl.methods import METHODS, METHODS_BY_STAGE, Method
from vidssl.recipes.recipe import Recipe, load_recipe, recipe_card
from vidssl.views import get_view
from vidssl.workspace.artifacts import check_name

PRECISIONS = ("bf16", "float32")


@dataclass(frozen=True)
class TrainingOptions:
    """What the user may say of a training run.

    Attributes:
        method: one of the stage's; None: the recipe's, or else the stage's first.
        recipe: a shipped recipe; None: `paper` with CUDA, `cpu` without.
        settings: (field, value) overrides of the recipe.
        name: of the artifact; None: STREAM-METHOD.
        resume: demand an unfinished run to continue.
        new: repeat a finished run under a new version.
        snapshot_epochs: also publish the checkpoint after these epochs.
        precision: of backbones, "bf16" or "float32"; None: bf16 with CUDA. (On a CPU torch's bf16
            kernels are not sound: docs/benchmarks.md.)
        recompute: compute activations twice to save memory.
        decode: who decodes JPEG, one of :data:`vidssl.clips.loader.DECODERS`.
        plan: only tell what it would take, by a few steps that are written nowhere.
        save_every: seconds between two writes of resume.pt.
    """

    stream: str = "rgb"
    method: str | None = None
    recipe: str | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    pack: str | None = None
    split: str | None = None
    name: str | None = None
    seed: int = 0
    resume: bool = False
    new: bool = False
    dry_run: bool = False
    device: str | None = None
    precision: str | None = None
    compile: bool = False
    recompute: bool = False
    decode: str = "host"
    plan: bool = False
    threads: int | None = None
    snapshot_epochs: tuple[int, ...] = ()
    save_every: float = 60.0


def check_options(options: TrainingOptions, stage: str) -> Recipe:
    """Checks what options say by themselves, and gives the recipe they mean.

    Stages do this before they look anything up: a mistyped word is told before a missing input.

    Raises:
        UsageError: the first that makes no sense.
    """
    get_view(options.stream)
    batch_maker_class(torch.device(choose_device(options.device)), options.decode)
    choose_precision(options)
    if options.compile and options.recompute:
        raise UsageError(
            "torch compiles no recomputed backbone: leave --compile or --recompute away"
        )
    if options.name is not None:
        check_name(options.name)
    recipe = choose_recipe(options, stage)
    METHODS[recipe.method].check_blocks(recipe.config, recipe.clip.blocks)
    last = recipe.train.epochs
    for epoch in options.snapshot_epochs:
        require("--snapshot-epochs", epoch, 1 <= epoch <= last, f"from 1 to {last}, the last one")
    return recipe


def choose_precision(options: TrainingOptions) -> str:
    """Returns what backbones compute in: bf16 with CUDA, else float32, unless the user says.

    Raises:
        UsageError: the name is unknown.
    """
    if options.precision is None:
        return "bf16" if choose_device(options.device) == "cuda" else "float32"
    if options.precision not in PRECISIONS:
        known = " and ".join(PRECISIONS)
        raise UsageError(f"there is no precision {options.precision}; there are {known}")
    return options.precision


def choose_recipe(options: TrainingOptions, stage: str) -> Recipe:
    """Loads the recipe the user named, or the machine's default, with the user's settings."""
    name = options.recipe or default_recipe(options.device)
    method = choose_method(stage, options.method, name)
    return load_recipe(name, method.name, options.stream, options.settings)


def choose_method(stage: str, wanted: str | None, recipe: str) -> type[Method]:
    """Returns the method a stage trains with: the one named, the recipe's, or the stage's first.

    Raises:
        UsageError: the stage has no such method, or the recipe is of another one.
    """
    methods = METHODS_BY_STAGE[stage]
    # Also by the name that checkpoints and recipes bear, where that is another word.
    by_name = {method.name: method for method in methods.values()} | methods
    own = recipe_card(recipe).method
    if own is not None and METHODS[own] not in methods.values():
        raise UsageError(
            f"recipe {recipe} is of {own}; try: vidssl {_stage_of(own)} --recipe {recipe}"
        )
    if wanted is None:
        return METHODS[own] if own is not None else next(iter(methods.values()))
    if wanted not in by_name:
        elsewhere = f"; {wanted} is of vidssl {_stage_of(wanted)}" if wanted in METHODS else ""
        raise UsageError(
            f"{stage} has no method {wanted}{nearest_name(wanted, methods)}; "
            f"it has {', '.join(methods)}{elsewhere}"
        )
    if own is not None and by_name[wanted].name != own:
        raise UsageError(f"recipe {recipe} is of {own}, not of {wanted}: leave --method away")
    return by_name[wanted]


def _stage_of(method: str) -> str:
    return next(s for s, methods in METHODS_BY_STAGE.items() if METHODS[method] in methods.values())


def default_recipe(device: str | None) -> str:
    """Returns `paper` with CUDA and `cpu` without."""
    return "paper" if choose_device(device) == "cuda" else "cpu"


def for_stream(options: TrainingOptions, stream: str) -> TrainingOptions:
    """Returns the same options for another stream."""
    return replace(options, stream=stream)
