"""Defaults are made to fit a small set of videos; what the user set is left alone."""

from __future__ import annotations

import pytest

from vidssl.base.errors import UsageError, VidsslError
from vidssl.recipes.recipe import load_recipe
from vidssl.training.fit_to_data import fit_to_data, without_steps


def fitted(videos: int, **settings: int) -> tuple[int, int, list[str]]:
    recipe, notes = fit_to_data(load_recipe("tiny", "infonce", "rgb", settings.items()), videos)
    return recipe.train.batch_size, recipe.config.queue, notes


def test_a_batch_and_a_queue_are_no_longer_than_the_set():
    assert fitted(15) == (
        15,
        15,
        [
            "batch size 32 → 15: there are 15 training videos",
            "queue 256 → 15: a longer one would hold videos twice",
        ],
    )
    assert fitted(70)[:2] == (32, 64)
    assert fitted(1000) == (32, 256, [])
    assert fitted(15, batch_size=20, queue=300) == (20, 300, [])
    assert fitted(1000, batch_size=300) == (300, 300, ["queue 256 → 300: it has to hold a batch"])
    with pytest.raises(UsageError, match=r"queue of 16 has no room for a batch of 32: .* queue=32"):
        fitted(1000, queue=16)
    assert fitted(1000, queue=32, batch_size=32) == (32, 32, [])


def test_features_that_vicc_remembers_may_be_fewer_than_a_batch():
    recipe = load_recipe("tiny", "vicc", "rgb", {"queue": 8}.items())
    assert fit_to_data(recipe, 1000) == (recipe, [])


def test_a_single_video_is_no_set():
    with pytest.raises(VidsslError, match="at least 2 videos"):
        fitted(1)


def test_what_is_left_of_a_batch_can_be_shared_among_processes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    batch, queue, notes = fitted(15)
    assert (batch, queue) == (14, 14)
    assert notes[0] == (
        "batch size 32 → 14: there are 15 training videos, and batches are divided by 2"
    )
    assert fitted(15, accumulate=3)[0] == 12
    assert fitted(3, accumulate=2)[0] == 32  # too few: training tells


def coclr(**settings: int):
    return load_recipe("tiny", "coclr", "rgb", settings.items())


def test_of_the_keys_of_a_small_set_not_all_are_positives():
    recipe, notes = fit_to_data(coclr(), 4)
    assert (recipe.config.queue, recipe.config.k) == (4, 2)
    assert notes[-1] == "k 5 → 2: of 4 keys all would be positives, and nothing negative"
    assert fit_to_data(coclr(k=3), 4)[0].config.k == 3
    assert fit_to_data(coclr(), 6)[0].config.k == 5
    with pytest.raises(UsageError, match=r"k 100 would take all of them .* give --k 16 or less"):
        fit_to_data(coclr(k=100), 48)


def test_a_run_that_only_fills_its_queue_is_told():
    recipe, _ = fit_to_data(coclr(epochs=1), 48)
    (told,) = without_steps(recipe, 48)
    assert told.startswith("nothing will be learned: 1 step only fills the queue of 32 keys")
    assert not without_steps(fit_to_data(coclr(epochs=2), 48)[0], 48)
    assert not without_steps(load_recipe("tiny", "infonce", "rgb", [("epochs", 1)]), 48)
