"""`vidssl finetune`: training, testing, averaging of streams, and what is done only once."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_workspace import annotate, make_checkpoint, make_pack, small_workspace

from vidssl.backbones import EncoderSpec
from vidssl.base.errors import Interrupted, MissingInput, UsageError, VidsslError
from vidssl.base.progress import SILENT
from vidssl.evaluation import feature_cache, features, finetuned_accuracy
from vidssl.evaluation.features import WindowProtocol
from vidssl.evaluation.finetuned_accuracy import load_classifier, load_probabilities
from vidssl.evaluation.split_to_evaluate import too_few
from vidssl.shards import ShardReader
from vidssl.stages import evaluate_retrieval, finetune, probe, verify
from vidssl.stages.evaluate_retrieval import EvaluateRetrievalOptions
from vidssl.stages.finetune import FinetuneOptions
from vidssl.stages.probe import ProbeOptions
from vidssl.training.finetuning import plan_finetuning
from vidssl.training.learned_verdict import classifier_sentence
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact, file_record
from vidssl.workspace.checkpoints import checkpoint_encoder
from vidssl.workspace.workspace import Workspace

FEW = (("epochs", 2), ("batch_size", 8), ("lr", 0.01), ("backbone_rate", 1.0), ("dropout", 0.2))
SMALL = FinetuneOptions(recipe="cpu", settings=FEW, threads=1)


def tuned(workspace: Workspace, **options) -> finetune.FinetuneResult:
    return finetune.run(workspace, replace(SMALL, **options))


def artifacts(workspace: Workspace, kind: str) -> list[str]:
    return [artifact.label for artifact in workspace.artifacts(kind)]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, finetune.FinetuneResult]:
    """A workspace with one finetuned network; read only."""
    workspace = small_workspace(tmp_path_factory.mktemp("done") / "ws")
    return workspace, tuned(workspace, settings=(*FEW, ("epochs", 6)))


@pytest.fixture
def two_streams(tmp_path: Path) -> Workspace:
    """A pack of rgb and flow with an encoder of either."""
    workspace = Workspace(tmp_path / "ws")
    pack = make_pack(workspace, [n % 7 for n in range(42)], ("rgb", "flow"), length=9)
    words = ["test" if n < 14 else "train" for n in range(42)]
    table = annotate(workspace, pack, splits={"s": words})
    for stream in ("rgb", "flow"):
        make_checkpoint(workspace, pack, table, stream, split="s")
    return workspace


# ── one stream


def test_a_network_is_trained_and_tested(done) -> None:
    workspace, result = done
    assert artifacts(workspace, "checkpoint")[-1] == "checkpoint/rgb-infonce-finetuned/v001"
    assert result.test.stage.artifact.label == "finetune/rgb-infonce/v001"
    report = result.test.report
    assert (report.train_clips, report.test_clips, report.split) == (24, 6, "split1")
    assert report.top1 > 0.9  # the shade of the noise is the class
    assert report.train_top1 is None and not report.streams
    assert json.loads(json.dumps(result.as_dict()))["results"]["top1"] == report.top1
    (training,) = result.trainings
    checkpoint = training.artifact
    assert set(checkpoint.payload) >= {"encoder.rgb.safetensors", "method.safetensors", "log.csv"}
    start = workspace.resolve("checkpoint", "rgb-infonce")
    assert checkpoint.parents["init"] == start.digest
    assert checkpoint.recipe["classes"] == ["class0", "class1", "class2"]
    assert checkpoint.recipe["method"]["classes"] == 3
    assert checkpoint.summary["method"] == "finetune"


def test_files_say_what_the_report_says(done) -> None:
    _, result = done
    artifact, report = result.test.stage.artifact, result.test.report
    share_NK, classes = load_probabilities(artifact.path / "probabilities.safetensors")
    assert share_NK.shape == (6, 3) and classes == [row.name for row in report.classes]
    np.testing.assert_allclose(share_NK.sum(1), 1, rtol=1e-6)
    rows = list(csv.DictReader((artifact.path / "predictions.csv").open()))
    for row, share in zip(rows, share_NK, strict=True):
        assert row["class_1"] == classes[share.argmax()]
        assert row["share_1"] == f"{share.max():.4f}"
    assert np.mean([row["label"] == row["class_1"] for row in rows]) == report.top1


@pytest.mark.parametrize("crops", ["centre", "ten"])
def test_probabilities_are_the_mean_over_windows_and_crops(done, crops: str) -> None:
    """The slow way: a window, a crop, a softmax at a time."""
    workspace, result = done
    network = result.trainings[0].artifact
    artifact = tuned(workspace, settings=(*FEW, ("epochs", 6)), crops=crops).test.stage.artifact
    share_NK, _ = load_probabilities(artifact.path / "probabilities.safetensors")
    ids = [row["id"] for row in csv.DictReader((artifact.path / "predictions.csv").open())]
    classifier = load_classifier(network, "rgb")
    spec, protocol = classifier.spec, WindowProtocol(crops=crops)
    assert artifact.recipe["protocol"] == protocol.as_dict(spec)
    reader = ShardReader(workspace.newest("pack").path)
    position = {reader.video_id(v): v for v in range(len(reader))}
    for row, video_id in zip(share_NK, ids, strict=True):
        shares = []
        for start in (0, 3, 6, 9, 12):  # 8 of 20 frames, half a clip less one apart
            frames = reader.frames("rgb", position[video_id], range(start, start + 8))
            for shown in features.present(frames, spec, protocol):
                x = get_view("rgb").to_float(torch.from_numpy(shown.copy()).permute(3, 0, 1, 2))
                with torch.inference_mode():
                    shares.append(classifier(x[None, None]).softmax(1)[0].numpy())
        np.testing.assert_allclose(row, np.mean(shares, axis=0), atol=1e-5)


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    first = tuned(workspace)
    again = tuned(workspace)
    assert again.trainings[0].reused and again.test.stage.reused
    assert again.test.report == first.test.report
    other = tuned(workspace, crops="ten", hop=5)
    assert other.trainings[0].reused and not other.test.stage.reused
    assert other.test.stage.artifact.recipe["protocol"]["hop"] == 5
    new = tuned(workspace, new=True)
    assert new.trainings[0].artifact.label == "checkpoint/rgb-infonce-finetuned/v002"
    assert new.trainings[0].artifact.digest == first.trainings[0].artifact.digest
    ends = [r.test.stage.artifact.payload["probabilities.safetensors"] for r in (first, new)]
    assert ends[0] == ends[1]
    named = tuned(workspace, name="mine")
    assert named.trainings[0].artifact.label == "checkpoint/mine-finetuned/v001"
    assert named.test.stage.artifact.label == "finetune/mine/v001"


def test_the_plan_does_nothing(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    plan = tuned(workspace, dry_run=True).as_dict()["plan"]
    assert plan["makes"] == "finetune/rgb-infonce"
    assert plan["training"]["makes"] == "checkpoint/rgb-infonce-finetuned"
    assert plan["training"]["test_videos"] == 6
    assert plan["training"]["evaluation"] == {"crops": "centre", "hop": 3, "weight": 1.0}
    assert plan["training"]["recipe"]["method"]["classes"] == 3
    published = tuned(workspace, dry_run=True, recipe="coclr-ucf101", settings=())
    plan = published.as_dict()["plan"]["training"]
    assert plan["recipe"]["train"]["epochs"] == 500
    assert plan["recipe"]["network"]["backbone"] == "tiny"  # the encoder's, whatever the recipe
    assert (plan["evaluation"]["crops"], plan["recipe"]["clip"]["size"]) == ("ten", 32)
    assert artifacts(workspace, "finetune") == []


# ── what becomes of the encoder


def test_a_finetuned_encoder_is_probed_and_retrieved_with(done, tmp_path: Path) -> None:
    workspace, result = done
    label = result.trainings[0].artifact.label
    probed = probe.run(workspace, ProbeOptions((label,)))
    assert probed.report.top1 > 0.9 and probed.stage.notes == too_few(6)
    found = evaluate_retrieval.run(workspace, EvaluateRetrievalOptions((label,)))
    assert found.report.at(1).recall > 0.9
    spec = checkpoint_encoder(result.trainings[0].artifact, "rgb").spec
    assert spec == EncoderSpec("rgb", "tiny", 3, 8, 1, 32, project=None)


def test_it_must_be_named_to_be_taken(done) -> None:
    workspace, _ = done
    assert workspace.newest("checkpoint").name == "rgb-infonce-finetuned"
    taken = probe.run(workspace, ProbeOptions(dry_run=True)).as_dict()["plan"]["inputs"]
    assert taken["checkpoint"] == "checkpoint/rgb-infonce/v001"
    named = tuned(workspace, checkpoints=("rgb-infonce-finetuned",), dry_run=True)
    assert named.as_dict()["plan"]["makes"] == "finetune/rgb-infonce-finetuned"


def test_a_drawn_split_stays_whatever_the_seed(tmp_path: Path) -> None:
    """Else the network would be probed on videos whose labels it has seen."""
    workspace = Workspace(tmp_path / "ws")
    pack = make_pack(workspace, [n % 2 for n in range(20)])
    table = annotate(workspace, pack)
    make_checkpoint(workspace, pack, table, seed=4)
    result = tuned(workspace, seed=9)
    checkpoint = result.trainings[0].artifact
    assert (checkpoint.recipe["seed"], checkpoint.recipe["split_seed"]) == (9, 4)
    probed = probe.run(workspace, ProbeOptions((checkpoint.label,)))
    assert probed.stage.notes == too_few(4)
    assert videos_of(probed.stage.artifact) == videos_of(result.test.stage.artifact)


def videos_of(artifact: Artifact) -> list[str]:
    return [row["id"] for row in csv.DictReader((artifact.path / "predictions.csv").open())]


def test_a_test_on_what_was_trained_on_is_told(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    pack = make_pack(workspace, [n % 2 for n in range(20)])
    one = ["test" if n < 4 else "train" for n in range(20)]
    two = ["test" if 2 <= n < 8 else "train" for n in range(20)]
    table = annotate(workspace, pack, splits={"one": one, "two": two})
    make_checkpoint(workspace, pack, table, split="one")
    assert tuned(workspace).test.stage.notes == too_few(4)
    note, _ = tuned(workspace, split="two").test.stage.notes
    assert note.startswith("4 of the 6 test videos were in the training set")


def test_unlabelled_videos_are_left_out(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    pack = make_pack(workspace, [n % 2 for n in range(24)])
    labels = ["" if n % 6 == 5 else f"c{n % 2}" for n in range(24)]
    table = annotate(workspace, pack, labels, {"s": ["train"] * 12 + ["test"] * 12})
    make_checkpoint(workspace, pack, table, split="s")
    result = tuned(workspace)
    assert result.trainings[0].artifact.summary["training_videos"] == 10
    assert result.test.report.test_clips == 10
    assert result.test.stage.notes == [
        "4 videos of the split have no label and are left out",
        *too_few(10),
    ]


# ── several streams


def test_streams_are_averaged_with_their_weights(two_streams: Workspace, monkeypatch) -> None:
    heavy = {"rgb": 3.0, "flow": 1.0}
    shipped = finetune.evaluation_for
    monkeypatch.setattr(
        finetune,
        "evaluation_for",
        lambda made: replace(shipped(made), weight=heavy[made.options.view]),
    )
    alone = tuned(two_streams, streams=("flow",), name="mine")
    both = tuned(two_streams, streams=("rgb", "flow"))
    artifact = both.test.stage.artifact
    assert artifact.label == "finetune/rgb-infonce_flow-infonce/v001"
    assert artifact.parents["finetune2"] == alone.test.stage.artifact.digest, "found by its run"
    assert both.trainings[1].artifact.label == "checkpoint/mine-finetuned/v001"
    assert artifact.recipe["weights"] == [3.0, 1.0]
    shares = [
        load_probabilities(two_streams.by_digest(artifact.parents[role]).path / name)[0]
        for role in ("finetune", "finetune2")
        for name in ("probabilities.safetensors",)
    ]
    mean, classes = load_probabilities(artifact.path / "probabilities.safetensors")
    np.testing.assert_allclose(mean, (3 * shares[0] + shares[1]) / 4, rtol=1e-5)
    labels = [row["label"] for row in csv.DictReader((artifact.path / "predictions.csv").open())]
    right = [classes[k] == label for k, label in zip(mean.argmax(1), labels, strict=True)]
    report = both.test.report
    assert report.top1 == pytest.approx(np.mean(right)) and report.top5 is not None
    assert [row.stream for row in report.streams] == ["rgb", "flow"]
    assert report.streams[1] == alone.test.report.as_view_row()
    again = tuned(two_streams, streams=("rgb", "flow"))
    assert again.test.stage.reused and all(t.reused for t in again.trainings)


def test_the_plan_of_several_streams_names_each(two_streams: Workspace) -> None:
    plan = tuned(two_streams, streams=("rgb", "flow"), dry_run=True).as_dict()["plan"]
    assert plan["makes"] == "finetune/rgb-infonce_flow-infonce"
    assert plan["flow"]["inputs"]["init"] == "checkpoint/flow-infonce/v001"


def test_flow_taken_for_film_is_mirrored_as_film(two_streams: Workspace) -> None:
    (made,) = plans(two_streams, streams=("flow",), recipe="coclr-ucf101", settings=())
    assert finetune.protocol_for(made, "coclr").turned is False
    assert finetune.protocol_for(made, "native").turned is True
    assert finetune.protocol_for(made, "coclr").resize == "bicubic"
    (made,) = plans(two_streams, streams=("flow",))
    assert finetune.protocol_for(made, "coclr").turned is True


def plans(workspace: Workspace, **options) -> list:
    given = replace(SMALL, **options)
    starts = finetune.find_starts(workspace, given)
    labelled = finetune.find_labels(workspace, starts[0].pack, [starts[0].checkpoint], None)
    choice = finetune.choose_method(given)
    return [
        plan_finetuning(start, labelled, finetune.resolve_for(given, choice, start.view))
        for start in starts
    ]


# ── a frozen encoder


def test_a_linear_layer_is_trained_on_fresh_clips_and_the_encoder_stays(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    few = (("epochs", 4), ("batch_size", 8), ("lr", 0.1))
    result = tuned(workspace, freeze=True, settings=few)
    checkpoint = result.trainings[0].artifact
    assert checkpoint.label == "checkpoint/rgb-infonce-linear/v001"
    assert checkpoint.summary["method"] == "linear"
    assert result.test.stage.artifact.label == "finetune/rgb-infonce-linear/v001"
    assert result.test.report.top1 > 0.9  # the shade of the noise is the class
    start = workspace.resolve("checkpoint", "rgb-infonce")
    before, after = (checkpoint_encoder(a, "rgb").state_dict() for a in (start, checkpoint))
    assert after and all(value.equal(before[name]) for name, value in after.items())
    again = tuned(workspace, freeze=True, settings=few)
    assert again.trainings[0].reused and again.test.stage.reused
    ten = tuned(workspace, freeze=True, settings=few, crops="ten")
    assert ten.trainings[0].reused and not ten.test.stage.reused
    tuned(workspace, freeze=True, scratch=True, settings=(*few, ("frames", 4), ("size", 32)))
    assert artifacts(workspace, "finetune")[-1] == "finetune/rgb-scratch-linear/v001"
    taken = probe.run(workspace, ProbeOptions(dry_run=True)).as_dict()["plan"]["inputs"]
    assert taken["checkpoint"] == "checkpoint/rgb-infonce/v001", "it must be named to be taken"
    with pytest.raises(UsageError, match="two videos"):
        tuned(workspace, freeze=True, settings=(*few, ("batch_size", 1)))
    with pytest.raises(UsageError, match="linear has no setting dropout"):
        tuned(workspace, freeze=True, settings=(("dropout", 0.5),))


# ── from scratch


def test_fresh_weights_are_trained_for_comparison(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    annotate(workspace, make_pack(workspace, [n % 2 for n in range(20)], length=14))
    small = (*FEW, ("frames", 4), ("size", 32), ("stride", 1))
    result = tuned(workspace, scratch=True, settings=small, seed=3)
    checkpoint = result.trainings[0].artifact
    assert checkpoint.label == "checkpoint/rgb-scratch/v001" and "init" not in checkpoint.parents
    assert result.test.stage.artifact.label == "finetune/rgb-scratch/v001"
    dense = (*small, ("blocks", 3), ("frames", 2))
    blocks = tuned(workspace, scratch=True, settings=dense, name="dense").trainings[0].artifact
    spec = checkpoint_encoder(blocks, "rgb").spec
    assert (spec.context, spec.blocks) == ("gru", 3)
    with pytest.raises(MissingInput, match="vidssl pretrain --stream rgb"):
        tuned(workspace)
    with pytest.raises(UsageError, match="two videos"):
        tuned(workspace, scratch=True, settings=(*dense, ("batch_size", 1)))


# ── interruptions


def test_an_interrupted_test_goes_on(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(feature_cache, "PART_VIDEOS", 2)
    whole = tuned(small_workspace(tmp_path / "whole"))
    workspace = small_workspace(tmp_path / "ws")
    calls, real = [], features.embed_videos

    def stopped_at_the_second(*given, **named):
        calls.append(given[2])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(features, "embed_videos", stopped_at_the_second)
    with pytest.raises(Interrupted, match="same command goes on"):
        tuned(workspace)
    assert artifacts(workspace, "finetune") == []
    resumed = tuned(workspace, resume=True)
    assert resumed.trainings[0].reused and len(calls) == 4, "the first part was kept"
    one, other = whole.test.stage.artifact, resumed.test.stage.artifact
    assert one.payload == other.payload
    with pytest.raises(VidsslError, match="is finished with these options"):
        tuned(workspace, resume=True)


# ── bad requests


def test_bad_requests_cost_one_sentence(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    for options, told in (
        ({"checkpoints": ("rgb-infonce",), "scratch": True}, "leave --checkpoint away"),
        ({"settings": (("classes", 5),)}, "those of the labels"),
        ({"settings": (("epoch", 5),)}, "did you mean epochs"),
        ({"settings": (("backbone", "s3d"),)}, "leave --backbone s3d away"),
        ({"crops": "fifty"}, "there are centre, ten"),
        ({"recipe": "coclr"}, "did you mean coclr"),
        ({"streams": ("rgbb",)}, "did you mean rgb"),
        ({"precision": "fp16"}, "no precision fp16"),
        ({"compile": True, "recompute": True}, "leave --compile or --recompute away"),
    ):
        with pytest.raises(UsageError, match=told):
            tuned(workspace, **options)
    with pytest.raises(VidsslError, match="was not finetuned"):
        load_classifier(workspace.resolve("checkpoint", "rgb-infonce"), "rgb")
    one = Workspace(tmp_path / "one")
    pack = make_pack(one, [0] * 10)
    make_checkpoint(one, pack, annotate(one, pack))
    with pytest.raises(VidsslError, match="has only class0"):
        tuned(one)


def test_damaged_probabilities_are_refused(done, tmp_path: Path) -> None:
    _, result = done
    path = result.test.stage.artifact.path / finetuned_accuracy.PROBABILITIES_FILE
    with pytest.raises(VidsslError, match="there is no file"):
        load_probabilities(tmp_path / "none")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(path.read_bytes()[:20])
    with pytest.raises(VidsslError, match="damaged"):
        load_probabilities(broken)
    other = tmp_path / "other.safetensors"
    other.write_bytes(path.read_bytes().replace(b'\\"format\\": 1', b'\\"format\\": 7'))
    with pytest.raises(VidsslError, match="format 7"):
        load_probabilities(other)


def test_verify_compares_probabilities_with_predictions(tmp_path: Path) -> None:
    workspace = small_workspace(tmp_path / "ws")
    artifact = tuned(workspace).test.stage.artifact
    task = SILENT.task("verify", None, "file")
    assert verify.verify_artifact(artifact, task).ok
    table = artifact.path / "predictions.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    (problem,) = verify.verify_artifact(artifact, task).problems
    assert "bytes instead of" in problem
    agreed = replace(artifact, payload=artifact.payload | {table.name: file_record(table)})
    (problem,) = verify.verify_artifact(agreed, task).problems
    assert "do not fit its predictions" in problem


def test_a_classifier_that_learned_nothing_says_so(done, tmp_path: Path) -> None:
    _, good = done
    assert "learned_little" not in good.trainings[0].artifact.summary
    workspace = small_workspace(tmp_path / "ws")
    frozen = (*FEW, ("epochs", 1), ("lr", 0.0), ("dropout", 0.0))
    training = tuned(workspace, scratch=True, settings=frozen).trainings[0]
    said = training.artifact.summary["learned_little"]
    assert said in training.notes
    assert said.startswith("rgb-scratch has learned nothing: its training loss ends at 1.")
    assert "guessing among 3 classes has 1.10" in said  # ln 3 = 1.0986


@pytest.mark.parametrize(
    ("loss", "told"), [(1.73, True), (1.80, True), (1.60, False), (0.1, False)]
)
def test_a_loss_near_that_of_guessing_is_told(loss: float, told: bool) -> None:
    said = classifier_sentence("rgb", loss, 6)  # ln 6 = 1.79; 1.73 was seen to stay at chance
    assert (said is not None) == told
