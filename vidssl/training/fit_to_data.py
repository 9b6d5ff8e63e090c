"""Fits the defaults of a recipe to the videos that there are, and refuses what cannot be fitted."""

from __future__ import annotations

from vidssl.base import distributed
from vidssl.base.errors import MissingInput, UsageError, VidsslError
from vidssl.base.text import agree, counted
from vidssl.methods import METHODS
from vidssl.recipes.recipe import Recipe
from vidssl.training.data import TrainingData


def fit_to_data(recipe: Recipe, videos: int) -> tuple[Recipe, list[str]]:
    """Makes defaults fit a small set; what the user set is left alone.

    A batch larger than the set cannot be filled, nor one that processes and micro-batches cannot
    share, and a queue longer than an epoch would hold the
    same video twice, as its own negative.

    Returns:
        The recipe, and a sentence for each change.

    Raises:
        VidsslError: there is one video, or the user's queue is shorter than a batch.
    """
    if videos < 2:
        raise VidsslError(f"contrastive training needs at least 2 videos, and there is {videos}")
    notes = []
    batch = recipe.train.batch_size
    share = distributed.launched() * recipe.train.accumulate
    if batch > videos >= share and "batch_size" not in recipe.explicit:
        batch = videos // share * share
        why = f"there {agree(videos, 'is', 'are')} {counted(videos, 'training video')}"
        divided = f", and batches are divided by {share}" if batch < videos else ""
        notes.append(f"batch size {recipe.train.batch_size} → {batch}: {why}{divided}")
        recipe = recipe.override("train", batch_size=batch)
    queue = getattr(recipe.config, "queue", None)
    most = max(videos // batch, 1) * batch
    if queue is not None and queue > most and "queue" not in recipe.explicit:
        notes.append(f"queue {queue} → {most}: a longer one would hold videos twice")
        recipe, more = _with_queue(recipe, most)
        notes += more
    elif queue and queue < batch <= videos and METHODS[recipe.method].queues_batches:
        if "queue" in recipe.explicit:
            raise UsageError(
                f"a queue of {queue} has no room for a batch of {batch}: give --set queue={batch} "
                f"or more, or --batch-size {queue} or less"
            )
        notes.append(f"queue {queue} → {batch}: it has to hold a batch")
        recipe = recipe.override("config", queue=batch)
    return recipe, notes


def _with_queue(recipe: Recipe, queue: int) -> tuple[Recipe, list[str]]:
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
    """Returns a sentence if all steps would go into filling the queue, and none into training."""
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
    """Refuses a set with unlabelled videos where the method learns from labels.

    Raises:
        MissingInput: the sentence says how labels are given.
    """
    lacking = int((data.videos.label < 0).sum())
    if METHODS[recipe.method].supervised and lacking:
        raise MissingInput(
            f"{recipe.method} learns from labels, and {lacking} of the {len(data.videos)} training "
            f"videos of {data.pack.label} {agree(lacking, 'has', 'have')} none: give each class a "
            "folder of its own, or name a table of labels with: "
            "vidssl pack VIDEOS --labels FILE.csv"
        )
