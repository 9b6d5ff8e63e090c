"""Fits a recipe's defaults to the videos there are, and refuses what cannot be fitted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeVar

from vidssl.base import distributed
from vidssl.base.errors import MissingInput, UsageError, VidsslError, require
from vidssl.base.text import agree, counted
from vidssl.methods import METHODS
from vidssl.recipes.recipe import Recipe
from vidssl.training.data import TrainingData
from vidssl.training.options import ResolvedOptions

Options = TypeVar("Options", bound=ResolvedOptions)


def fit_options(options: Options, data: TrainingData) -> tuple[Options, list[str]]:
    """Returns the options with their recipe fitted to the data, and a sentence for each change.

    Raises:
        VidsslError: as :func:`fit_to_data` and :func:`require_labels`.
    """
    recipe, notes = fit_to_data(options.recipe, len(data.videos))
    require_labels(recipe, data)
    last = recipe.train.epochs
    for epoch in options.snapshot_epochs:
        require("--snapshot-epochs", epoch, 1 <= epoch <= last, f"from 1 to {last}, the last one")
    return replace(options, recipe=recipe), notes


def fit_to_data(recipe: Recipe, videos: int) -> tuple[Recipe, list[str]]:
    """Makes the defaults of batch size, epochs and queue fit a small set; what the user set stays.

    A batch larger than the set cannot be filled, nor can one that processes and micro-batches
    cannot share. A recipe that says how many steps a network needs takes as many epochs as they
    last. A queue longer than an epoch would hold the same video twice, as its own negative.

    Returns:
        The recipe, and a sentence for each change.

    Raises:
        VidsslError: there is only one video.
        UsageError: the user's queue is shorter than a batch, or the user's k leaves no negatives.
    """
    if videos < 2:
        raise VidsslError(f"contrastive training needs at least 2 videos, and there is {videos}")
    recipe, notes = _fit_batch(recipe, videos)
    recipe, of_epochs = _fit_epochs(recipe, videos)
    recipe, of_queue = _fit_queue(recipe, videos)
    return recipe, notes + of_epochs + of_queue


def _fit_batch(recipe: Recipe, videos: int) -> tuple[Recipe, list[str]]:
    batch = recipe.train.batch_size
    share = distributed.launched() * recipe.train.accumulate
    if not batch > videos >= share or "batch_size" in recipe.explicit:
        return recipe, []
    fitted = videos // share * share
    why = f"there {agree(videos, 'is', 'are')} {counted(videos, 'training video')}"
    divided = f", and batches are divided by {share}" if fitted < videos else ""
    note = f"batch size {batch} → {fitted}: {why}{divided}"
    return recipe.override("train", batch_size=fitted), [note]


def _fit_epochs(recipe: Recipe, videos: int) -> tuple[Recipe, list[str]]:
    """Turns the steps of training and of its warm-up into epochs."""
    train, per_epoch = recipe.train, max(videos // recipe.train.batch_size, 1)
    by_epochs = "epochs" in recipe.explicit and "steps" not in recipe.explicit
    epochs = train.epochs if by_epochs else max(train.epochs, math.ceil(train.steps / per_epoch))
    warmup = train.warmup_steps / per_epoch if train.warmup_steps else train.warmup_epochs
    recipe = recipe.override("train", epochs=epochs, steps=0, warmup_epochs=warmup, warmup_steps=0)
    if epochs == train.epochs:
        return recipe, []
    steps = f"{counted(train.steps, 'step')} of training take as many, {per_epoch} an epoch"
    return recipe, [f"epochs {train.epochs} → {epochs}: {steps}"]


def _fit_queue(recipe: Recipe, videos: int) -> tuple[Recipe, list[str]]:
    batch, queue = recipe.train.batch_size, getattr(recipe.config, "queue", None)
    most = max(videos // batch, 1) * batch
    if queue is not None and queue > most and "queue" not in recipe.explicit:
        note = f"queue {queue} → {most}: a longer one would hold videos twice"
        recipe, more = _with_shorter_queue(recipe, most)
        return recipe, [note, *more]
    if queue and queue < batch <= videos and METHODS[recipe.method].queues_batches:
        if "queue" in recipe.explicit:
            raise UsageError(
                f"a queue of {queue} has no room for a batch of {batch}: give --set queue={batch} "
                f"or more, or --batch-size {queue} or less"
            )
        note = f"queue {queue} → {batch}: it has to hold a batch"
        return recipe.override("config", queue=batch), [note]
    return recipe, []


def _with_shorter_queue(recipe: Recipe, queue: int) -> tuple[Recipe, list[str]]:
    """Returns the recipe with a shorter queue, of which at most half may be positives.

    Raises:
        UsageError: the user asked for as many positives as there would be keys.
    """
    k = getattr(recipe.config, "k", 0)
    if k < queue:
        return recipe.override("config", queue=queue), []
    if "k" in recipe.explicit:
        raise UsageError(
            f"the queue has room for {queue} keys of so few videos, and k {k} would take all of "
            f"them for positives: give --k {max(queue // 2, 1)} or less"
        )
    fewer = queue // 2
    note = f"k {k} → {fewer}: of {queue} keys all would be positives, and nothing negative"
    return recipe.override("config", queue=queue, k=fewer), [note]


def without_steps(recipe: Recipe, videos: int) -> list[str]:
    """Returns a sentence if all steps only fill the queue, so that nothing is learned."""
    batch, queue = recipe.train.batch_size, getattr(recipe.config, "queue", 0)
    steps = videos // batch * recipe.train.epochs
    waits = getattr(recipe.config, "wait_for_full_queue", False)
    if not waits or steps * batch > queue:
        return []
    return [
        f"nothing will be learned: {counted(steps, 'step')} only {agree(steps, 'fills', 'fill')} "
        f"the queue of {queue} keys, before which no positives are looked for; train more epochs"
    ]


def require_labels(recipe: Recipe, data: TrainingData) -> None:
    """Checks that all training videos have labels where the method learns from labels.

    Raises:
        MissingInput: some have none; the sentence says how labels are given.
    """
    lacking = int((data.videos.label < 0).sum())
    if METHODS[recipe.method].supervised and lacking:
        raise MissingInput(
            f"{recipe.method} learns from labels, and {lacking} of the {len(data.videos)} training "
            f"videos of {data.pack.label} {agree(lacking, 'has', 'have')} none: give each class a "
            "folder of its own, or name a table of labels with: "
            "vidssl pack VIDEOS --labels FILE.csv"
        )
