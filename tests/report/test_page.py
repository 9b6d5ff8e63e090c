"""The page shows the numbers of the artifacts, names as text, and loads nothing."""

from __future__ import annotations

import csv
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_workspace import vidssl
from reported_workspace import HOSTILE, LABELS, SCRIPT
from small_workspace import make_checkpoint, make_pack, small_workspace

from vidssl.evaluation.feature_cache import load_features
from vidssl.report.embedded_runs import embedded_runs
from vidssl.report.learning_curves import loss_of_chance
from vidssl.report.picture_data import jpeg_uri, loop_uri
from vidssl.report.svg_chart import Level, Line, line_chart, ticks
from vidssl.report.training_command import training_command
from vidssl.workspace.workspace import Workspace

VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Tags with their attributes, tables as rows of texts, and the text outside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):  # type: ignore[union-attr]
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] not in (["script"], ["style"]):
            self.text.append(data)
            if "td" in self._open or "th" in self._open:
                self.rows[-1][-1] += data.strip()

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def found(page: Path) -> Page:
    return Page(page.read_text("utf-8"))


def test_the_verdicts_numbers_are_those_of_compare(found: Page, place: Path):
    (split,) = vidssl("compare", "--json", workspace=place).json["splits"]
    columns = ["R@1", "R@5", "R@10", "mAP", "linear probe"]
    for run in split["runs"]:
        row = next(r for r in found.rows if r[:1] == [run["name"]] and len(r) > 5)
        for name, cell in zip(columns, row[1:], strict=False):
            figure = run["figures"][name]
            assert cell == f"{100 * figure['share']:.1f} ± {100 * figure['error']:.1f}"
    chance = next(row for row in found.rows if row[:1] == ["chance"])
    assert chance[1:6] == [f"{100 * split['chance'][name]:.1f}" for name in columns]
    text = " ".join(" ".join(found.text).split())
    for sentence in [*split["verdict"], *split["warnings"]]:
        assert sentence in text


def test_the_confusion_is_that_of_the_predictions(found: Page, place: Path):
    table = place / "probe/first/v001/predictions.csv"
    rows = list(csv.DictReader(table.open(newline="")))
    count = {(t, a): 0 for t in LABELS for a in LABELS}
    for row in rows:
        count[row["label"], row["class_1"]] += 1
    wanted = [[truth, *(str(count[truth, a]) for a in LABELS)] for truth in LABELS]
    shown = [row for row in found.rows if len(row) == 4 and row[0] in LABELS]
    assert wanted in [shown[n : n + 3] for n in range(len(shown) - 2)]
    heads = [row for row in found.rows if row[:1] == ["truth ↓ answer →"]]
    assert heads and heads[0][1:] == LABELS
    for truth in LABELS:
        of = [row for row in rows if row["label"] == truth]
        right = sum(row["class_1"] == truth for row in of) / len(of)
        accuracies = [r for r in found.rows if r[:2] == [truth, str(len(of))] and len(r) == 4]
        assert f"{100 * right:.1f}" in [row[2] for row in accuracies]


def test_neighbours_are_those_of_the_table_and_their_moments_the_most_alike(
    found: Page, place: Path
):
    workspace = Workspace(place)
    pack = workspace.newest("pack")
    assert pack is not None
    rows = list(csv.DictReader((place / "retrieval/first/v001/neighbours.csv").open(newline="")))
    nearest = {row["query"]: row for row in rows if row["rank"] == "1"}
    text = " ".join(" ".join(found.text).split())
    shown = [row for row in nearest.values() if f"1. ✓ {float(row['similarity']):.3f}" in text]
    assert shown
    runs = {run.name: run for run in embedded_runs(workspace.scan()[0], pack)}
    run, row = runs["first/v001"], shown[0]
    features = load_features(run.artifact)
    mean = features.video_means().mean(0)

    def unit(video: str) -> np.ndarray:
        windows = features.windows[features.of_video(features.ids.index(video))].astype(float)
        windows = windows / np.linalg.norm(windows, axis=1, keepdims=True) - mean
        return windows / np.linalg.norm(windows, axis=1, keepdims=True)

    a, b = unit(row["query"]), unit(row["neighbour"])
    best = max((x @ y, i, j) for i, x in enumerate(a) for j, y in enumerate(b))
    starts = features.starts[features.of_video(features.ids.index(row["query"]))]
    matched, _ = run.matching(row["query"], row["neighbour"])
    assert matched.first == starts[best[1]] and matched.last - matched.first == 7


def test_hostile_names_stay_text(found: Page, page: Path):
    text = "".join(found.text)
    assert f"f01{HOSTILE}.mp4" in text and f"a {HOSTILE}" in text and f"b {SCRIPT}" in text
    assert "c & {{ 7 * 7 }}" in text and "c & 49" not in text
    assert len(found.of("script")) == 1
    for tag, attrs in found.tags:
        assert not any(name.startswith("on") for name in attrs), (tag, attrs)
    assert all(attrs["src"].startswith("data:image/") for attrs in found.of("img"))  # type: ignore[union-attr]


def test_nothing_is_loaded_and_everything_has_a_name(found: Page):
    policy = next(a for a in found.of("meta") if a.get("http-equiv"))["content"]
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:")
    assert "script-src 'sha256-" in policy
    for _, attrs in found.tags:
        for name in ("src", "href", "data-loop"):
            value = attrs.get(name)
            assert value is None or re.match(r"data:|#", value), value
    assert all("alt" in attrs for attrs in found.of("img"))
    assert all(attrs.get("aria-label") for attrs in found.of("svg"))
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {f"#{each}" for each in ids} >= {a["href"] for a in found.of("a")}


def test_a_workspace_without_labels_and_without_features(tmp_path: Path):
    workspace = Workspace(tmp_path / "w")
    pack = make_pack(workspace, [0, 1, 2], views=("rgb", "flow"))
    made = make_checkpoint(workspace, pack, split=None)
    out = tmp_path / "page.html"
    result = vidssl("report", "--out", out, "--json", workspace=workspace.root).json
    assert result["verdict"] == [] and "no features of this pack" in result["without"][0]
    text = " ".join(" ".join(Page(out.read_text("utf-8")).text).split())
    assert "there is no verdict" in text and made.label in text and "No run left a log" in text


def test_messages_about_the_file(tmp_path: Path):
    empty = tmp_path / "none"
    assert "there is nothing to report" in vidssl("report", workspace=empty, code=1).err
    said = vidssl("report", "--out", tmp_path / "x.pdf", workspace=empty, code=2).err
    assert "let it end with .html" in said
    said = vidssl("report", "--out", tmp_path / "a" / "x.html", workspace=empty, code=1).err
    assert "there is no folder" in said


def test_a_damaged_result_is_named(tmp_path: Path):
    workspace = small_workspace(tmp_path / "w")
    vidssl("retrieve", "--evaluate", workspace=workspace.root)
    table = workspace.root / "retrieval/rgb-infonce/v001/neighbours.csv"
    table.write_bytes(table.read_bytes()[:-9] + b"x" * 9)
    for command in (["report", "--out", tmp_path / "x.html"], ["compare"]):
        assert f"{table} is damaged" in vidssl(*command, workspace=workspace.root, code=1).err
    assert not (tmp_path / "x.html").exists()


def test_the_line_of_chance():
    method, train = {"negatives": "queue", "queue": 8}, {"batch_size": 64, "accumulate": 2}
    recipe = {"method_name": "infonce", "method": method, "train": train}
    assert loss_of_chance(recipe) == math.log(9)
    assert loss_of_chance(recipe | {"method": {"negatives": "batch"}}) == math.log(63)
    assert loss_of_chance(recipe | {"method_name": "vicc"}) is None


def test_a_chart_draws_each_point_where_it_belongs():
    chart = line_chart("t", "x", [Line(HOSTILE, 0, [0, 10], [1, 3])], [Level(SCRIPT, 2)])
    (points,) = re.findall(r'points="([^"]*)"', chart)
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in points.split())
    (level,) = re.findall(r'class="level"[^>]* y1="([\d.]+)"', chart)
    assert x0 < x1 and y1 < y0 and math.isclose(float(level), (y0 + y1) / 2, abs_tol=0.11)
    assert HOSTILE not in chart and SCRIPT not in chart
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10] and ticks(0.31, 0.62)[:2] == [0.4, 0.5]


def test_pictures_come_back():
    frames = [np.full((24, 32, 3), shade, np.uint8) for shade in (20, 120, 220)]
    kind, _, data = jpeg_uri(frames[1]).partition(";base64,")
    assert kind == "data:image/jpeg"
    import base64

    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and abs(int(picture.mean()) - 120) < 3
    data = base64.b64decode(loop_uri(frames).partition(";base64,")[2])
    done, loop = cv2.imdecodeanimation(np.frombuffer(data, np.uint8))
    assert done and len(loop.frames) == 3 and loop.loop_count == 0
    assert [round(frame[..., :3].mean() / 100) for frame in loop.frames] == [0, 1, 2]


@pytest.mark.parametrize(
    "changed", [[], ["--set", "lr=0.01", "--epochs", "3"], ["--batch-size", "8", "--seed", "4"]]
)
def test_the_command_of_a_run_makes_the_same_run(tmp_path: Path, changed: list[str]):
    workspace = small_workspace(tmp_path / "w")
    given = ["pretrain", "--stream", "rgb", "--recipe", "cpu", *changed]
    dry = ["--dry-run", "--json", "--device", "cpu"]
    plan = vidssl(*given, *dry, workspace=workspace.root).json["plan"]
    pack = workspace.newest("pack")
    table = workspace.newest("annotations")
    assert pack is not None
    made = make_checkpoint(workspace, pack, table, name="x", recipe=plan["recipe"])
    known = {artifact.digest: artifact for artifact in workspace.scan()[0]}
    words = training_command(made, known).split()
    assert words[0] == "vidssl" and words[-2:] == ["--name", "x"]
    again = vidssl(*words[1:], *dry, workspace=workspace.root).json["plan"]
    assert json.dumps(again["recipe"]) == json.dumps(plan["recipe"])
