"""Numbers with their nouns, and that nothing says "1 videos"."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from small_workspace import annotate, make_checkpoint, make_pack

from vidssl.base.text import agree, counted, plural
from vidssl.cli.progress_bars import PlainProgress
from vidssl.evaluation import feature_cache
from vidssl.stages import status
from vidssl.workspace.workspace import Workspace


@pytest.mark.parametrize(
    ("number", "noun", "shown"),
    [
        (1, "video", "1 video"),
        (2, "video", "2 videos"),
        (0, "class", "0 classes"),
        (3, "batch", "3 batches"),
        (3, "epoch", "3 epochs"),
        (1, "test video", "1 test video"),
    ],
)
def test_a_number_has_the_form_of_its_noun(number, noun, shown):
    assert counted(number, noun) == shown


def test_verbs_agree():
    assert agree(1, "has", "have") == "has" and agree(0, "has", "have") == "have"
    assert plural("micro-batch") == "micro-batches"


def test_a_workspace_of_one_video_speaks_of_one(tmp_path):
    workspace = Workspace(tmp_path)
    pack = make_pack(workspace, [0], length=8)
    make_checkpoint(workspace, pack, annotate(workspace, pack))
    feature_cache.embed(workspace, feature_cache.EmbedOptions())
    lines = {a.label: a.headline for a in status.run(workspace).artifacts}
    assert lines["pack/main/v001"].startswith("1 video, ")
    assert lines["checkpoint/rgb-infonce/v001"].endswith("1 epoch")
    assert lines["features/rgb-infonce/v001"] == "1 window of 1 video, width 128"


def test_the_last_line_of_work_counts_in_words():
    out = io.StringIO()
    with PlainProgress(Console(file=out, width=100)).task("measure", 2, "batch") as task:
        task.advance()
    said = out.getvalue()
    assert said.startswith("measure: 1 batch in 0:00, ") and " batches/s" in said
