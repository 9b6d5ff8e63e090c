"""What a training did beyond nothing: paired shares, the sentence, and the mark on the terminal."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cli_workspace import vidssl
from methods import BUILDERS
from small_workspace import annotate, make_pack

from vidssl.evaluation.features import Features
from vidssl.methods.modules.nce_loss import mil_nce, own_key_alone
from vidssl.training import learned_verdict
from vidssl.training.learned_verdict import Share, Verdict, verdict_figures, verdict_sentence
from vidssl.workspace.workspace import Workspace


def features(rows: list[list[float]], counts: list[int]) -> Features:
    offsets = np.concatenate([[0], np.cumsum(counts)])
    windows = np.array(rows, np.float32)
    return Features(tuple(map(str, counts)), windows, np.zeros(len(rows), np.int64), offsets)


def test_a_window_finds_its_own_video():
    rows = [[1, 0], [0.9, 0.1], [0, 1], [-1, 0.1], [-0.1, 1]]
    found = learned_verdict._own_found(features(rows, [2, 1, 2]))
    # The second video has one window, and no other to find; the last window is nearer to it.
    assert found.tolist() == [True, True, True, False]


def test_a_video_finds_its_class_in_other_groups():
    rows = [[1, 0], [0.95, 0.05], [0.9, 0.3], [-1, 0], [-0.9, 0.2]]
    label, group = np.array([0, 1, 0, 1, -1]), np.array([0, 0, 1, 2, 3])
    found = learned_verdict._label_found(features(rows, [1] * 5), label, group)
    # The first one's nearest is of its own group, and does not count; the last has no label, and
    # nobody may find it.
    assert found.tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("trained", "untrained", "better"),
    [([1] * 60 + [0] * 40, [1] * 40 + [0] * 60, True), ([1, 0] * 50, [0, 1] * 50, False)],
)
def test_better_is_beyond_two_errors_of_the_paired_difference(trained, untrained, better):
    share = learned_verdict._paired(np.array(trained, bool), np.array(untrained, bool))
    apart = np.array(trained) - np.array(untrained)
    assert share.error == pytest.approx(apart.std() / math.sqrt(100))
    assert share.better == better
    assert learned_verdict._paired(np.array([], bool), np.array([], bool)) is None


def test_the_sentence_has_loss_chance_and_both_shares():
    little = Verdict("rgb", Share(0.12, 0.11, 0.02, 90), None)
    much = Verdict("flow", Share(0.9, 0.1, 0.02, 90), None)
    assert verdict_sentence("rgb-infonce", [little], 3.481, 3.496) == (
        "rgb-infonce learned little: loss 3.48, chance 3.50; own video found 12 % (untrained 11 %)"
    )
    assert verdict_sentence("both", [little, much], 1.0, 1.0) is None
    assert verdict_sentence("none", [], None, None) is None
    seldom = Verdict("rgb", Share(0.12, 0.11, 0.02, learned_verdict.FEWEST - 1), None)
    assert verdict_sentence("few", [seldom], 1.0, 1.0) is None
    assert verdict_figures([little, much]) == {
        "own_video_rgb": 0.12, "own_video_untrained_rgb": 0.11,
        "own_video_flow": 0.9, "own_video_untrained_flow": 0.1,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["infonce", "infonce-batch", "cmc", "cmc-batch", "vicc"])
def test_chance_is_the_loss_of_equal_scores(name: str):
    method, samples = BUILDERS[name](), 4
    if name == "vicc":
        wanted = math.log(method.config.prototypes)
    else:
        queued = name in ("infonce", "cmc")
        others = method.config.queue + 1 if queued else {"infonce-batch": 7, "cmc-batch": 4}[name]
        alone = own_key_alone(samples, others, torch.device("cpu"))
        wanted = mil_nce(torch.zeros(samples, others), alone).item() * (2 if "cmc" in name else 1)
    assert method.chance_loss(samples) == pytest.approx(wanted, rel=1e-6)


# ── on the command line ──────────────────────────────────────────────────────────────────────

SMALL = ["--batch-size", "4", "--set", "frames=4", "--set", "size=32", "--set", "backbone=tiny"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("verdict") / "w")
    pack = make_pack(made, [n % 3 for n in range(12)], ("rgb",))
    annotate(made, pack, splits={"split1": ["train"] * 12})
    return made


def test_a_training_that_learned_little_is_marked_and_says_so(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
):
    little = Verdict("rgb", Share(0.1, 0.1, 0.02, 90), None)
    monkeypatch.setattr("vidssl.training.training_run.compare", lambda *given: little)
    still = ["pretrain", *SMALL, "--epochs", "1", "--name", "still"]
    done = vidssl(*still, workspace=place.root)
    assert "⚠ checkpoint/still/v001" in done.out and "✓" not in done.out
    said = " ".join(done.out.split())
    assert "still learned little: loss" in said and "chance 1.95" in said  # ln of 2·4 − 1
    assert "own video found 10 % (untrained 10 %)" in said
    assert "learned little" in vidssl("status", workspace=place.root).out
    again = vidssl(*still, "--json", workspace=place.root).json
    assert again["reused"] and "learned little" in " ".join(again["notes"])


def test_the_comparison_draws_nothing_from_the_training(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
):
    """The weights are those of a training without it."""
    words = ["pretrain", *SMALL, "--epochs", "2"]
    vidssl(*words, "--name", "one", workspace=place.root)
    monkeypatch.setattr("vidssl.training.training_run._verdict", lambda *given: {})
    vidssl(*words, "--name", "other", workspace=place.root)
    one, other = (place.resolve("checkpoint", name) for name in ("one", "other"))
    assert one.digest == other.digest
    assert "own_class" in one.summary and "own_class" not in other.summary
