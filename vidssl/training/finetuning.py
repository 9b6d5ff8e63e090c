"""Plans of `vidssl finetune`: a classifier above an encoder, trained on the labels of a split."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch.nn import BatchNorm1d

from vidssl.base import distributed
from vidssl.base.errors import UsageError
from vidssl.evaluation.labelled_split import LabelledSplit
from vidssl.methods import METHODS, Method
from vidssl.recipes.recipe import Recipe
from vidssl.training.data import data_of_split
from vidssl.training.encoders import like_encoder, new_encoder, with_clip_spec
from vidssl.training.fit_to_data import fit_options
from vidssl.training.options import ResolvedOptions
from vidssl.training.training_run import TrainingPlan
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_encoder, checkpoint_spec
from vidssl.workspace.parent_roles import start_parents


@dataclass(frozen=True)
class Start:
    """The encoder that the training of one view starts from, or fresh weights.

    Attributes:
        checkpoint: None: fresh weights.
        name: of the figures of its test.
        trained_name: of the checkpoint that the training makes.
    """

    view: str
    pack: Artifact
    checkpoint: Artifact | None
    name: str
    trained_name: str

    @property
    def label(self) -> str:
        """What the user is told about it."""
        return f"a fresh {self.view} network" if self.checkpoint is None else self.checkpoint.label


def plan_finetuning(
    start: Start, labelled: LabelledSplit, options: ResolvedOptions
) -> TrainingPlan:
    """Fits one view's recipe to its encoder and to the data; trains nothing."""
    data = data_of_split(start.pack, labelled)
    recipe = _recipe_for(start, len(labelled.classes), options)
    options, notes = fit_options(replace(options, recipe=recipe), data)
    parents = {"pack": start.pack, "annotations": labelled.artifact}
    if start.checkpoint is not None:
        parents |= start_parents([start.checkpoint])
    return TrainingPlan(
        stage="finetune",
        name=start.trained_name,
        options=options,
        data=data,
        parents=parents,
        make_method=lambda: _make_method(options.recipe, start, options.seed),
        notes=notes,
        more={"classes": list(labelled.classes), "split_seed": labelled.split_seed},
    )


def _recipe_for(start: Start, classes: int, options: ResolvedOptions) -> Recipe:
    """Returns the recipe with the encoder's network, and with its clip unless told otherwise.

    Raises:
        UsageError: a setting that does not fit the encoder.
    """
    recipe = options.recipe
    if start.checkpoint is not None:
        spec = checkpoint_spec(start.checkpoint, start.view)
        explicit = recipe.explicit
        recipe = like_encoder(replace(recipe, explicit=explicit | recipe.own_clip), spec)
        recipe = replace(recipe, explicit=explicit)
    recipe = recipe.override("network", project=0)  # a classifier has no use for a head
    return recipe.override("config", classes=classes)


def _make_method(recipe: Recipe, start: Start, seed: int) -> Method:
    """Returns a classifier above the start's encoder, or above a fresh one.

    Raises:
        UsageError: the classifier has a BatchNorm, and a batch holds one video only.
    """
    clip = recipe.clip
    if start.checkpoint is None:
        encoder = new_encoder(recipe, start.view, context="gru" if clip.blocks > 1 else None)
    else:
        encoder = with_clip_spec(checkpoint_encoder(start.checkpoint, start.view), clip)
    method = METHODS[recipe.method].build(recipe.config, {start.view: encoder}, seed)
    clips = recipe.train.batch_size // (recipe.train.accumulate * distributed.world_size())
    if clips < 2 and any(isinstance(module, BatchNorm1d) for module in method.modules()):
        raise UsageError(
            "this classifier normalises over the batch, which must hold two videos or more: give "
            "a larger --batch-size"
        )
    return method
