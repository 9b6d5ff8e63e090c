"""A collapsed run says so in plain words, on the way and at the end; a healthy one does not."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from cli_workspace import vidssl
from methods import BUILDERS, batch
from small_workspace import annotate, make_pack
from stubs import FixedBatches

from vidssl.engine.collapse import collapse_sentence, sentence, signs_of_collapse
from vidssl.engine.loop import RuntimeConfig, fit
from vidssl.engine.train_spec import TrainSpec
from vidssl.methods import METHODS_BY_STAGE as METHODS_OF
from vidssl.methods.modules.metrics import (
    feature_health,
    health_of_views,
    paired_cosines,
    prototype_usage,
)
from vidssl.recipes.recipe import load_recipe
from vidssl.training.encoders import new_encoder
from vidssl.workspace.checkpoints import save_encoder, weights_digest
from vidssl.workspace.summaries import headline
from vidssl.workspace.workspace import Workspace

HEALTHY = {"feature_std": 0.6, "feature_rank": 9.0, "prototype_usage": 0.5}
HEALTHY |= {"aligned": 0.9, "unaligned": 0.1}


# ── the figures ──────────────────────────────────────────────────────────────────────────────


def test_features_of_one_point_have_no_spread_and_those_of_a_line_have_rank_one():
    point = torch.nn.functional.normalize(torch.ones(16, 8), dim=1)
    assert feature_health(point)["feature_std"] == pytest.approx(0, abs=1e-6)
    ends = torch.cat([point[:8], -point[8:]])
    health = feature_health(ends)
    assert health["feature_std"] == pytest.approx(1)
    assert health["feature_rank"] == pytest.approx(1, abs=1e-4)
    corners = torch.eye(8).repeat(2, 1)
    assert feature_health(corners)["feature_rank"] == pytest.approx(7, rel=1e-3)


def test_of_several_views_the_least_counts():
    views = {"rgb": torch.eye(8), "flow": torch.ones(8, 8) / math.sqrt(8)}
    health = health_of_views(views)
    assert health["feature_std"] == health["feature_std_flow"] == pytest.approx(0, abs=1e-6)
    assert health["feature_std_rgb"] == pytest.approx(math.sqrt(7 / 8))


def test_cosines_of_pairs_are_those_of_the_whole_matrix():
    draw = torch.Generator().manual_seed(0)
    one, other = torch.randn(6, 5, generator=draw), torch.randn(6, 5, generator=draw)
    matrix = torch.nn.functional.cosine_similarity(one[:, None], other[None], dim=2)
    found = paired_cosines(one, other)
    torch.testing.assert_close(found["aligned"], matrix.diagonal().mean())
    off = matrix[~torch.eye(6, dtype=torch.bool)]
    torch.testing.assert_close(found["unaligned"], off.mean())


def test_usage_is_one_for_a_prototype_each_and_nothing_for_one_prototype():
    assert prototype_usage(torch.eye(6)).item() == pytest.approx(1)
    assert prototype_usage(torch.eye(6).repeat(3, 1)).item() == pytest.approx(1)
    assert prototype_usage(torch.eye(12, 40)).item() == pytest.approx(1), "as many as clips"
    assert prototype_usage(torch.eye(6)[:1].repeat(9, 1)).item() == pytest.approx(0)


# ── the verdict ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"feature_std": 0.01}, "all clips have nearly the same features"),
        ({"feature_rank": 1.02}, "all features lie on one line"),
        ({"prototype_usage": 0.0}, "the same few prototypes"),
        ({"aligned": 0.999, "unaligned": 0.998}, "no more alike than what does not"),
    ],
)
def test_every_sign_is_said_in_plain_words(figures, said):
    (sign,) = signs_of_collapse(HEALTHY | figures, clips=64)
    assert said in sign
    assert sentence([sign]).startswith("training has collapsed: ")
    assert "\n" not in sentence([sign])


@pytest.mark.parametrize(
    "figures",
    [
        {},
        {"feature_std": None, "feature_rank": math.nan},
        {"aligned": 0.6, "unaligned": 0.6},
        {"aligned": 0.999, "unaligned": 0.97},
    ],
)
def test_a_healthy_row_says_nothing(figures):
    assert sentence(signs_of_collapse(HEALTHY | figures, clips=64)) == ""
    assert signs_of_collapse({}, clips=64) == []


def test_rank_tells_nothing_of_few_clips_nor_of_classes_that_were_told():
    line = HEALTHY | {"feature_rank": 1.0, "prototype_usage": 0.0}
    assert signs_of_collapse(line, clips=2) == []
    assert len(signs_of_collapse(line, clips=64)) == 2
    assert len(signs_of_collapse(line, clips=64, supervised=True)) == 1


# ── every method through the engine ──────────────────────────────────────────────────────────

CLIPS = 8
LEARNERS = [name for name in BUILDERS if name != "linear"]  # whose encoder stays as it is


class Notes:
    """A progress that remembers its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def task(self, *_):
        return self

    def say(self, text):
        self.notes.append(text)

    note = say

    def advance(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def learnable(step: int, method) -> list:
    """Batches in which the clips of a source have a pattern in common."""
    (made,) = batch(step, method, CLIPS)
    for clips in made.clips.values():
        shape = clips.shape[2:3] + clips.shape[4:]
        for row, source in enumerate(made.source.tolist()):
            pattern = torch.randn(shape, generator=torch.Generator().manual_seed(source))
            clips[row] += 3 * pattern[None, :, None]
    return [made]


def trained(method: str, folder: Path, zeroed: bool = False) -> tuple[str, list[str], dict]:
    """Trains a few steps; gives the verdict at the end, what was noted on the way, the last row."""
    torch.manual_seed(0)
    built, notes = BUILDERS[method](), Notes()
    if zeroed:
        zero(built.encoders.values())
    spec = TrainSpec(epochs=1, batch_size=CLIPS, optimizer="adam", lr=1e-3, schedule="constant")
    last = fit(
        built,
        FixedBatches(8, lambda step: learnable(step, built)),
        spec,
        RuntimeConfig(torch.device("cpu"), log_every=2),
        folder,
        progress=notes,
    )
    return collapse_sentence(last, spec, built), notes.notes, last


@torch.no_grad()
def zero(encoders: Iterable[torch.nn.Module]) -> None:
    for encoder in encoders:
        for parameter in encoder.parameters():
            parameter.zero_()


@pytest.mark.parametrize("method", LEARNERS)
def test_a_collapsed_encoder_is_told_once_by_every_method(method, tmp_path):
    said, notes, last = trained(method, tmp_path, zeroed=True)
    assert said.startswith("training has collapsed: all clips have nearly the same features")
    assert len(notes) == 1 and "training has collapsed" in notes[0]
    if method.startswith("vicc"):
        assert "few prototypes" in said
        assert last["prototype_entropy"] > 0.3, "which alone would not have shown it"


@pytest.mark.parametrize("method", LEARNERS)
def test_a_healthy_run_reports_its_health_and_says_nothing(method, tmp_path):
    said, notes, last = trained(method, tmp_path)
    assert (said, notes) == ("", [])
    wanted = {"feature_std", "feature_rank", "top1"}
    if method not in METHODS_OF["finetune"]:
        wanted |= {"knn"}
    wanted |= {"coclr": {"purity"}, "cpc": {"aligned", "unaligned"}}.get(method, set())
    if method in ("cmc", "cocon"):
        wanted |= {f"{n}_{v}" for n in ("knn", "feature_std") for v in ("rgb", "flow")}
    if method == "cocon":
        wanted |= {"aligned", "unaligned"}
    if method.startswith("vicc"):
        wanted |= {"prototype_entropy", "prototype_usage"}
    assert wanted <= last.keys()
    assert all(math.isfinite(last[name]) for name in wanted)


# ── through the stages ───────────────────────────────────────────────────────────────────────

SMALL = ["--recipe", "cpu", "--epochs", 3, "--batch-size", 8, "--set", "frames=2"]
SMALL += ["--set", "size=32", "--set", "schedule=constant"]
RUNS = {
    "infonce": ["pretrain", "--set", "queue=8"],
    "vicc": ["pretrain", "--method", "vicc", "--set", "queue=8"],
    "cocon": ["cotrain", "--method", "cocon", "--set", "blocks=3", "--set", "predict=1"],
}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "workspace"
    workspace = Workspace(folder)
    annotate(workspace, make_pack(workspace, [0, 1, 2] * 8, ("rgb", "flow"), length=14))
    return folder


def zeroed_checkpoint(workspace: Workspace, method: str) -> str:
    """Publishes encoders that give the same for every clip; gives their checkpoint's name."""
    recipe = load_recipe("cpu", method, "rgb", settings_of(method))
    encoders = {view: new_encoder(recipe, view) for view in ("rgb", "flow")}
    zero(encoders.values())
    identity = {"stage": "pretrain", "stream": "rgb", "split": None, "seed": 0, "zeroed": method}
    parents = {"pack": workspace.newest("pack")}
    with workspace.open_run("checkpoint", f"{method}-zeroed", identity, parents) as run:
        for encoder in encoders.values():
            save_encoder(encoder, run.folder)
        return run.publish(weights_digest(encoders), {}).name


def settings_of(method: str) -> list[tuple[str, str]]:
    words = [str(word) for word in (*RUNS[method], *SMALL)]
    pairs = pairwise(words)
    return [tuple(value.split("=")) for word, value in pairs if word == "--set"]


@pytest.mark.parametrize("method", RUNS)
def test_a_collapsed_run_says_so_and_its_artifact_remembers(method, packed):
    start = zeroed_checkpoint(Workspace(packed), method)
    command = [*RUNS[method], *SMALL, "--init-from", start, "--name", f"{method}-collapsed"]
    made = vidssl(*command, workspace=packed)
    told = " ".join(made.out.split())
    assert told.count("training has collapsed: all clips have nearly the same features") == 1
    assert " ".join(made.err.split()).count("training has collapsed") == 1, "when it was noticed"
    artifact = Workspace(packed).resolve("checkpoint", f"{method}-collapsed")
    assert artifact.summary["collapsed"].startswith("training has collapsed")
    assert headline(artifact).startswith("collapsed, ")
    again = vidssl(*command, "--json", workspace=packed).json
    assert again["reused"] and artifact.summary["collapsed"] in again["notes"]
    assert "collapsed, " in vidssl("status", workspace=packed).out


@pytest.mark.parametrize("method", RUNS)
def test_a_healthy_run_has_no_such_sentence(method, packed):
    command = [*RUNS[method], *SMALL, "--name", f"{method}-healthy"]
    made = vidssl(*command, "--json", workspace=packed)
    assert "training has collapsed" not in made.out + made.err
    summary = made.json["summary"]
    assert {"feature_std", "feature_rank", "knn"} <= summary.keys() and "collapsed" not in summary
