"""Every number of the verdict is that of an independent computation from the artifacts' tables."""

from __future__ import annotations

import csv
import io
import math
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_workspace import vidssl
from reported_workspace import measure
from small_workspace import make_checkpoint, small_workspace

from vidssl.evaluation.paired_bootstrap import Bootstrap
from vidssl.report.comparable_runs import unlike_runs
from vidssl.report.measured_rows import LEARNED, Row
from vidssl.report.verdict import find_verdict
from vidssl.report.verdict_words import split_words
from vidssl.workspace.workspace import Workspace


def hits(place: Path, kind: str, name: str) -> dict[str, bool]:
    """Returns {test video: whether it was right}, from the table that the evaluation left."""
    folder = place / kind / name / "v001"
    if kind == "probe":
        rows = list(csv.DictReader((folder / "predictions.csv").open()))
        return {row["id"]: row["class_1"] == row["label"] for row in rows}
    rows = list(csv.DictReader((folder / "neighbours.csv").open()))
    nearest = [row for row in rows if row["rank"] == "1"]
    return {row["query"]: row["neighbour_label"] == row["label"] for row in nearest}


def share(found: dict[str, bool]) -> float:
    return sum(found.values()) / len(found)


NAMES = {
    "first": "first",
    "second": "second",
    "colour-histogram": "baseline-colour-histogram",
    "mean-frame": "baseline-mean-frame",
}


def test_every_figure_is_that_of_the_tables(place: Path):
    (split,) = vidssl("compare", "--json", workspace=place).json["splits"]
    assert {run["name"] for run in split["runs"]} == set(NAMES)
    for run in split["runs"]:
        for figure, kind in (("R@1", "retrieval"), ("linear probe", "probe")):
            found = hits(place, kind, NAMES[run["name"]])
            told = run["figures"][figure]
            p, n = share(found), len(found)
            wanted = math.sqrt(p * (1 - p) / n) if 0 < p < 1 else 1 / (n + 1)
            assert math.isclose(told["share"], p) and math.isclose(told["error"], wanted)
            assert told["artifact"] == f"{kind}/{NAMES[run['name']]}/v001"
            assert run["test_videos"] == n


def test_chance_is_that_of_a_shuffled_gallery(place: Path):
    (split,) = vidssl("compare", "--json", workspace=place).json["splits"]
    rows = list(csv.DictReader((place / "annotations/main/v001/annotations.csv").open()))
    train = Counter(row["label"] for row in rows if row["one"] == "train")
    test = [row["label"] for row in rows if row["one"] == "test"]
    gallery = sum(train.values())
    wanted = sum(train[label] / gallery for label in test) / len(test)
    assert math.isclose(split["chance"]["R@1"], wanted)
    assert math.isclose(split["chance"]["linear probe"], max(Counter(test).values()) / len(test))


def test_a_difference_is_over_the_same_videos(place: Path):
    (split,) = vidssl("compare", "--json", workspace=place).json["splits"]
    compared = [each for each in split["comparisons"] if each["other"] != "chance"]
    assert {(each["run"], each["other"]) for each in compared if each["figure"] == "R@1"} == {
        (run, other) for run in ("first", "second") for other in NAMES if other != run
    }
    for each in compared:
        kind = "retrieval" if each["figure"] == "R@1" else "probe"
        own, theirs = (hits(place, kind, NAMES[each[which]]) for which in ("run", "other"))
        apart = [own[video] - theirs[video] for video in own]
        assert math.isclose(each["difference"], sum(apart) / len(apart), abs_tol=1e-12)
        low, high = resampled(apart, list(range(len(apart))))
        one_video = 1 / len(apart) + 1e-9  # the ends of both intervals are whole videos
        assert abs(each["low"] - low) <= one_video and abs(each["high"] - high) <= one_video
        beyond = each["low"] > 0 or each["high"] < 0
        assert each["beyond_noise"] is beyond


def resampled(apart: list[int], group: list[int]) -> tuple[float, float]:
    """Returns the middle 95 % of the means of drawn groups, by plain Python."""
    members: dict[int, list[int]] = {}
    for value, of in zip(apart, group, strict=True):
        members.setdefault(of, []).append(value)
    draw, means = random.Random(5), []
    for _ in range(4000):
        drawn = [v for g in draw.choices(list(members), k=len(members)) for v in members[g]]
        means.append(sum(drawn) / len(drawn))
    means.sort()
    return means[100], means[3899]


def test_videos_of_a_group_are_drawn_together():
    draw = np.random.default_rng(3)
    group = np.repeat(np.arange(12), 8)
    both = np.stack([np.repeat(draw.random(12) < p, 8) for p in (0.8, 0.3)], axis=1)
    by_group = Bootstrap(both, group).between(0, 1)
    alone = Bootstrap(both, np.arange(96)).between(0, 1)
    assert by_group.difference == alone.difference
    assert by_group.high - by_group.low > 2 * (alone.high - alone.low)
    low, high = resampled((both[:, 0] * 1 - both[:, 1]).tolist(), group.tolist())
    assert abs(by_group.low - low) < 0.07 and abs(by_group.high - high) < 0.07


def test_one_group_says_nothing():
    one = Bootstrap(np.array([[1, 0]] * 9), np.zeros(9)).between(0, 1)
    assert one.difference == 1 and not one.beyond_noise


def test_words_say_what_the_comparisons_say(place: Path):
    for split in find_verdict(Workspace(place)).splits:
        said = split_words(split)
        for each in split.comparisons:
            if each.other is None or each.against_learned:
                continue
            own = [s for s in said if s.startswith(f"by {each.figure} {each.row} is")]
            named = any(f"above {each.other}" in s or f", {each.other} (" in s for s in own)
            everything = any("above every baseline" in s for s in own)
            chance = any("is not above chance" in s for s in own)
            assert chance or everything or named is not each.above


def test_csv_and_markdown_have_the_figures(place: Path):
    (split,) = vidssl("compare", "--json", workspace=place).json["splits"]
    rows = list(csv.DictReader(io.StringIO(vidssl("compare", "--csv", workspace=place).out)))
    wanted = {
        (run["name"], name): figure["share"]
        for run in split["runs"]
        for name, figure in run["figures"].items()
    }
    assert {(row["run"], row["figure"]): float(row["value"]) for row in rows} == wanted
    best = max(wanted[name, "R@1"] for name in ("colour-histogram", "mean-frame"))
    assert {float(r["best_baseline_value"]) for r in rows if r["figure"] == "R@1"} == {best}
    text = vidssl("compare", "--markdown", workspace=place).out
    line = next(row for row in text.splitlines() if row.startswith("| first "))
    assert f"| {100 * wanted['first', 'R@1']:.1f} ± " in line


def test_runs_that_differ_are_told_of(place: Path):
    (split,) = vidssl("compare", "--json", workspace=place).json["splits"]
    (said,) = [each for each in split["warnings"] if "different steps" in each]
    assert "first/v001: 10 steps of 4 clips" in said and "second/v001: 10 steps of 5" in said
    assert not any("different data" in each for each in split["warnings"])
    (alone,) = vidssl("compare", "first", "--json", workspace=place).json["splits"]
    assert [run["name"] for run in alone["runs"] if run["kind"] == "learned"] == ["first"]
    assert not any("different steps" in each for each in alone["warnings"])


def test_one_way_of_printing(place: Path):
    said = vidssl("compare", "--csv", "--markdown", workspace=place, code=2).err
    assert "give one of --json, --csv and --markdown" in said
    said = vidssl("compare", "frist", workspace=place, code=1).err
    assert "there is no checkpoint named frist" in said and "first" in said


def test_means_over_seeds_and_what_was_not_measured(tmp_path: Path):
    workspace = small_workspace(tmp_path / "w")
    said = vidssl("compare", workspace=workspace.root, code=1).err
    assert "nothing was measured of the runs" in said
    pack, table = (workspace.newest(kind) for kind in ("pack", "annotations"))
    assert pack is not None and table is not None
    for seed in (1, 2):
        made = make_checkpoint(workspace, pack, table, split="split1", seed=seed, name=f"s{seed}")
        measure(workspace, made)
    found = vidssl("compare", "--json", workspace=workspace.root).json
    assert found["unmeasured"] == ["checkpoint/rgb-infonce/v001"]
    shares = [run["figures"]["R@1"]["share"] for run in found["splits"][0]["runs"]]
    (mean,) = [each for each in found["means"] if each["figure"] == "R@1"]
    assert math.isclose(mean["mean"], sum(shares) / 2)
    assert math.isclose(mean["error"], abs(shares[0] - shares[1]) / 2)
    assert any("no baseline is measured" in s for s in found["splits"][0]["verdict"])


@pytest.mark.slow
def test_a_finetuned_network_stands_beside_what_it_started_from(tmp_path: Path):
    workspace = small_workspace(tmp_path / "w", clips=5)
    pack, table = (workspace.newest(kind) for kind in ("pack", "annotations"))
    assert pack is not None
    named = {"recipe": {"recipe": "coclr-ucf101"}, "split": "split1", "name": "named"}
    measure(workspace, make_checkpoint(workspace, pack, table, **named))
    small = ["--epochs", "1", "--batch-size", "4", "--device", "cpu"]
    vidssl("finetune", "--checkpoint", "named", *small, workspace=workspace.root)
    vidssl("finetune", "--scratch", *small, workspace=workspace.root)
    (split,) = vidssl("compare", "--json", workspace=workspace.root).json["splits"]
    of = {run["name"]: run for run in split["runs"]}
    assert len(of) == 2
    (scratch,) = set(of) - {"named"}
    assert set(of["named"]["figures"]) >= {"R@1", "mAP", "linear probe", "finetune"}
    assert set(of[scratch]["figures"]) == {"finetune"}
    artifact = of["named"]["figures"]["finetune"]["artifact"]
    rows = list(csv.DictReader((workspace.root / artifact / "predictions.csv").open(newline="")))
    right = sum(row["class_1"] == row["label"] for row in rows) / len(rows)
    assert math.isclose(of["named"]["figures"]["finetune"]["share"], right)
    assert "51.8" in of["named"]["paper"] and of[scratch]["paper"] is None


def test_other_starts_and_other_data_are_told_of(place: Path):
    workspace = Workspace(place)
    known = {artifact.digest: artifact for artifact in workspace.scan()[0]}
    first = workspace.resolve("checkpoint", "first")
    later = replace(first, digest="1", name="later", parents=first.parents | {"init": first.digest})
    elsewhere = replace(first, digest="2", recipe=first.recipe | {"split": "two"})
    rows = [Row(name, LEARNED, (run,)) for name, run in (("a", first), ("b", later))]
    (said,) = unlike_runs(rows, known)
    assert "different starts" in said and "from checkpoint/first/v001" in said
    (said,) = unlike_runs([rows[0], Row("c", LEARNED, (elsewhere,))], known)
    assert "different data" in said and "split two" in said
    assert unlike_runs([rows[0], Row("d", "baseline")], known) == []
