"""Options of a training run: what the user may say, and what it means on this machine.

A stage resolves its options once, before it looks anything up. All later steps read the result, so
that the device is asked for once and the recipe is read once, and a mistyped word is told before a
missing input.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
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
class RunOptions:
    """Options that are used as they were given.

    Attributes:
        pack, split: what is trained on; None: the stage's default.
        name: of the artifact; None: VIEW-METHOD.
        resume: demand an unfinished run to continue.
        new: repeat a finished run under a new version.
        dry_run: only tell what would be done.
        compile: torch.compile on backbones.
        recompute: compute activations twice to save memory.
        decode: who decodes JPEG, one of :data:`vidssl.clips.loader.DECODERS`.
        trial: only tell what the run would take, by a few steps that are written nowhere.
        threads: that read and decode; None: one for each core.
        snapshot_epochs: also publish the checkpoint after these epochs.
        save_every: seconds between two writes of resume.pt.
    """

    pack: str | None = None
    split: str | None = None
    name: str | None = None
    seed: int = 0
    resume: bool = False
    new: bool = False
    dry_run: bool = False
    compile: bool = False
    recompute: bool = False
    decode: str = "host"
    trial: bool = False
    threads: int | None = None
    snapshot_epochs: tuple[int, ...] = ()
    save_every: float = 60.0


@dataclass(frozen=True)
class TrainingOptions(RunOptions):
    """What the user may say of a training run.

    Attributes:
        stream: the view that is trained.
        method: one of the stage's; None: the recipe's, or else the stage's first.
        recipe: a shipped recipe; None: `paper` with CUDA, `cpu` without.
        settings: (field, value) overrides of the recipe.
        device: "cuda" or "cpu"; None: CUDA where there is a device for it.
        precision: of backbones, "bf16" or "float32"; None: bf16 with CUDA. (On a CPU torch's bf16
            kernels are not sound: docs/benchmarks.md.)
    """

    stream: str = "rgb"
    method: str | None = None
    recipe: str | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    device: str | None = None
    precision: str | None = None


@dataclass(frozen=True, kw_only=True)
class ResolvedOptions(RunOptions):
    """What options mean for one view on this machine; nothing is left to be chosen.

    Attributes:
        view: that is trained.
        recipe: with the user's settings. What a stage changes in it afterwards (the network of the
            encoder it starts from, the fit to the data) it changes here.
        device: "cuda" or "cpu".
        precision: of backbones, one of :data:`PRECISIONS`.
    """

    view: str
    recipe: Recipe
    device: str
    precision: str

    @property
    def method_class(self) -> type[Method]:
        """The method that is trained."""
        return METHODS[self.recipe.method]


@dataclass(frozen=True)
class Choice:
    """What a command chooses once for all of its views.

    Attributes:
        recipe_name: of the shipped recipe.
    """

    device: str
    recipe_name: str
    method_class: type[Method]


def resolve(options: TrainingOptions, stage: str) -> ResolvedOptions:
    """Checks what options say by themselves, and returns what they mean.

    Args:
        stage: of :data:`vidssl.methods.METHODS_BY_STAGE`.

    Raises:
        UsageError: the first that makes no sense.
    """
    get_view(options.stream)
    return resolve_view(options, choose(options, stage), options.stream)


def choose(options: TrainingOptions, stage: str) -> Choice:
    """Chooses the device, the recipe's name and the method: the user's, or the defaults.

    Raises:
        UsageError: there is no such device, recipe or method, or they do not fit together.
    """
    device = choose_device(options.device)
    recipe_name = options.recipe or default_recipe(device)
    return Choice(device, recipe_name, choose_method(stage, options.method, recipe_name))


def resolve_view(options: TrainingOptions, choice: Choice, view: str) -> ResolvedOptions:
    """Checks all other options, and returns what they mean for one view.

    Raises:
        UsageError: the first that makes no sense.
    """
    get_view(view)
    batch_maker_class(torch.device(choice.device), options.decode)
    precision = choose_precision(options.precision, choice.device)
    if options.compile and options.recompute:
        raise UsageError(
            "torch compiles no recomputed backbone: leave --compile or --recompute away"
        )
    if options.name is not None:
        check_name(options.name)
    recipe = load_recipe(choice.recipe_name, choice.method_class.name, view, options.settings)
    choice.method_class.check_blocks(recipe.config, recipe.clip.blocks)
    _check_snapshots(options.snapshot_epochs, recipe)
    as_given = {field.name: getattr(options, field.name) for field in fields(RunOptions)}
    return ResolvedOptions(
        **as_given, view=view, recipe=recipe, device=choice.device, precision=precision
    )


def _check_snapshots(snapshot_epochs: tuple[int, ...], recipe: Recipe) -> None:
    """Checks what is known before the data; :func:`vidssl.training.fit_to_data.fit_options` checks
    where the number of epochs depends on them.
    """
    last = recipe.train.epochs
    by_steps = recipe.train.steps and "epochs" not in recipe.explicit
    for epoch in () if by_steps else snapshot_epochs:
        require("--snapshot-epochs", epoch, 1 <= epoch <= last, f"from 1 to {last}, the last one")


def default_recipe(device: str) -> str:
    """Returns `paper` for "cuda" and `cpu` for "cpu"."""
    return "paper" if device == "cuda" else "cpu"


def choose_precision(wanted: str | None, device: str) -> str:
    """Returns what backbones compute in: bf16 with CUDA, else float32, unless the user says.

    Raises:
        UsageError: the name is unknown.
    """
    if wanted is None:
        return "bf16" if device == "cuda" else "float32"
    if wanted not in PRECISIONS:
        raise UsageError(f"there is no precision {wanted}; there are {' and '.join(PRECISIONS)}")
    return wanted


def choose_method(stage: str, wanted: str | None, recipe_name: str) -> type[Method]:
    """Returns the method a stage trains with: the one named, the recipe's, or the stage's first.

    Raises:
        UsageError: the stage has no such method, or the recipe is of another one.
    """
    of_stage = METHODS_BY_STAGE[stage]
    # Also by the name that checkpoints and recipes have, where that is another word.
    by_name = {method_class.name: method_class for method_class in of_stage.values()} | of_stage
    own = recipe_card(recipe_name).method
    if own is not None and METHODS[own] not in of_stage.values():
        raise UsageError(
            f"recipe {recipe_name} is of {own}; try: vidssl {_stage_of(own)} --recipe {recipe_name}"
        )
    if wanted is None:
        return METHODS[own] if own is not None else next(iter(of_stage.values()))
    if wanted not in by_name:
        elsewhere = f"; {wanted} is of vidssl {_stage_of(wanted)}" if wanted in METHODS else ""
        raise UsageError(
            f"{stage} has no method {wanted}{nearest_name(wanted, of_stage)}; "
            f"it has {', '.join(of_stage)}{elsewhere}"
        )
    if own is not None and by_name[wanted].name != own:
        raise UsageError(f"recipe {recipe_name} is of {own}, not of {wanted}: leave --method away")
    return by_name[wanted]


def _stage_of(method_name: str) -> str:
    wanted = METHODS[method_name]
    return next(stage for stage, known in METHODS_BY_STAGE.items() if wanted in known.values())
