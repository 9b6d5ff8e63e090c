"""CPC and CoCon from the command line to probe and retrieve, and clips of consecutive blocks."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from cli_workspace import vidssl
from small_workspace import annotate, make_pack

from vidssl.augment import AugmentSpec
from vidssl.backbones import EncoderSpec
from vidssl.clips.batch import ClipSpec
from vidssl.clips.frame_reader import TrainingVideos
from vidssl.clips.loader import ClipLoader
from vidssl.recipes.recipe import load_recipe, recipe_card
from vidssl.workspace.checkpoints import checkpoint_encoder, checkpoint_tensors
from vidssl.workspace.workspace import Workspace

SMALL = ["--epochs", 2, "--batch-size", 4, "--set", "frames=2", "--set", "size=32"]
SMALL += ["--set", "blocks=4", "--recipe", "cpu"]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "workspace"
    workspace = Workspace(folder)
    annotate(workspace, make_pack(workspace, [0, 1] * 5, ("rgb", "flow"), length=14))
    return folder


def test_cpc_trains_and_its_encoder_is_evaluated(packed):
    made = vidssl("pretrain", "--method", "cpc", *SMALL, "--json", workspace=packed).json
    assert made["artifact"] == "checkpoint/rgb-cpc/v001"
    assert vidssl("pretrain", "--method", "cpc", *SMALL, "--json", workspace=packed).json["reused"]
    spec = checkpoint_encoder(Workspace(packed).resolve("checkpoint", "rgb-cpc"), "rgb").spec
    assert spec == EncoderSpec(
        "rgb", "tiny", 3, frames=2, stride=1, size=32, project=None, blocks=4, context="gru"
    )
    vidssl("probe", "-c", "rgb-cpc", workspace=packed)
    vidssl("retrieve", "--evaluate", "-c", "rgb-cpc", workspace=packed)


def test_a_cpc_encoder_is_finetuned_over_its_blocks(packed):
    vidssl("pretrain", "--method", "cpc", *SMALL, workspace=packed)
    command = ["finetune", "-c", "rgb-cpc", "--epochs", 2, "--batch-size", 4, "--recipe", "cpu"]
    command += ["--set", "relu=true", "--hop", 4, "--json"]
    made = vidssl(*command, workspace=packed).json
    assert made["artifact"] == "finetune/rgb-cpc/v001"
    checkpoint = Workspace(packed).resolve("checkpoint", "rgb-cpc-finetuned")
    assert checkpoint.recipe["clip"]["blocks"] == 4
    assert {"norm.running_var", "fc.weight"} <= set(checkpoint_tensors(checkpoint))
    spec = checkpoint_encoder(checkpoint, "rgb").spec
    assert (spec.context, spec.blocks, spec.project) == ("gru", 4, None)
    vidssl("probe", "-c", "rgb-cpc-finetuned", workspace=packed)
    assert vidssl(*command, workspace=packed).json["reused"]


def test_cocon_trains_two_views_into_one_checkpoint(packed):
    command = ["cotrain", "--method", "cocon", "--views", "rgb,flow", *SMALL, "--json"]
    made = vidssl(*command, workspace=packed).json
    assert made["artifact"] == "checkpoint/rgb-flow-cocon/v001"
    assert vidssl(*command, workspace=packed).json["reused"]
    checkpoint = Workspace(packed).resolve("checkpoint", "rgb-flow-cocon")
    assert {"encoder.rgb.safetensors", "encoder.flow.safetensors"} <= set(checkpoint.payload)
    assert checkpoint.recipe["streams"] == ["rgb", "flow"]
    row = (checkpoint.path / "log.csv").read_text().splitlines()[0].split(",")
    assert {"cpc", "sim", "sync", "aligned", "unaligned", "top1", "top3_flow"} <= set(row)
    for stream in ("rgb", "flow"):
        vidssl("probe", "-c", "rgb-flow-cocon", "--stream", stream, workspace=packed)
    both = ["retrieve", "--evaluate", "--stream", "rgb,flow"]
    for which in ([], ["-c", "rgb-flow-cocon"]):
        found = vidssl(*both, *which, "--json", workspace=packed).json["results"]
        assert found["features"] == "checkpoint/rgb-flow-cocon/v001 (rgb + flow)"
    assert "stale" not in vidssl("status", workspace=packed).out
    vidssl("verify", workspace=packed)


def test_cotraining_passes_by_encoders_that_it_cannot_go_on_from(packed):
    small = [*SMALL[:8], "--set", "blocks=1", "--recipe", "cpu"]
    for stream in ("rgb", "flow"):
        vidssl(
            "pretrain", "--stream", stream, "--name", f"whole-{stream}", *small, workspace=packed
        )
    vidssl("pretrain", "--method", "cpc", *SMALL, "--name", "later", workspace=packed)
    command = ["cotrain", "--cycles", 1, "--k", 2, *small[:4], "--recipe", "cpu", "--json"]
    for _ in range(2):
        runs = vidssl(*command, workspace=packed).json["runs"]
        assert [run["artifact"] for run in runs] == [
            "checkpoint/rgb-coclr/v001", "checkpoint/flow-coclr/v001"
        ]  # fmt: skip
    result = vidssl("cotrain", "--student", "later", *small[:4], workspace=packed, code=2)
    assert "coclr needs a projection head" in " ".join(result.err.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pretrain", "--method", "cocon"], "cocon is of vidssl cotrain"),
        (["pretrain", "--recipe", "cocon-ucf101"], "vidssl cotrain --recipe cocon-ucf101"),
        (["pretrain", "--method", "cpc", "--set", "blocks=2", "--recipe", "cpu"], "foretells 2"),
        (["pretrain", "--recipe", "cpu", "--set", "blocks=2"], "takes clips whole"),
        (["cotrain", "--method", "cocon", "--views", "rgb,rgb"], "each of the views is given once"),
        (["cotrain", "--method", "cocon", "--cycles", 1], "leave --cycles away"),
        (["cotrain", "--method", "cocon", "--student", "rgb-cpc"], "without student and partner"),
        (["cotrain", "--views", "rgb,flow"], "one student"),
        (["pretrain", "--method", "cpc", "--set", "temprature=1"], "temperature"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(packed, words, said):
    result = vidssl(*words, workspace=packed, code=2)
    assert said in " ".join(result.err.split())


@pytest.mark.parametrize(
    ("recipe", "method"),
    [(n, "cpc") for n in ("dpc-ucf101", "dpc-k400")]
    + [(n, "cocon") for n in ("cocon-ucf101", "cocon-hmdb51", "cocon-k400")]
    + [(n, m) for n in ("cpu", "paper") for m in ("cpc", "cocon")],
)
def test_recipes_of_blocks_resolve(recipe, method):
    found = load_recipe(recipe, method, "rgb")
    assert found.clip.blocks > found.config.predict and found.network.project == 0
    if recipe_card(recipe).method is not None:
        assert (found.clip.frames, found.clip.blocks, found.clip.size) == (5, 8, 128)
        assert (found.config.predict, found.config.dropout) == (3, 0.1)
        assert (found.config.unit, found.config.temperature) == (
            (False, 1.0) if method == "cpc" else (True, 0.0049)
        )
        assert (found.train.lr, found.train.weight_decay) == (1e-3, 1e-5)
    assert recipe_card(recipe).method in (None, method)
    if recipe == "cpu":
        assert (found.clip.frames, found.clip.stride, found.clip.blocks) == (4, 1, 6)
        assert found.config.predict == 2


# ── clips of consecutive blocks ──────────────────────────────────────────────────────────────


class Numbered:
    """One video whose frame t is t everywhere, in rgb and flow."""

    def __init__(self, length: int) -> None:
        self.length = length

    def frame_count(self, view):
        return np.array([self.length] * 4)

    def pictures(self, view, video, indices, for_copying=False):
        channels = {"rgb": 3, "flow": 2}[view]
        shape = (len(indices), 8, 8, channels)
        return np.broadcast_to(np.asarray(indices, np.uint8)[:, None, None, None], shape).copy()


def loader(clip: ClipSpec, length: int = 60, clips: int = 1, **augment: float) -> ClipLoader:
    rows = np.arange(4)
    videos = TrainingVideos(Numbered(length), rows, rows, rows)
    spec = AugmentSpec(**{"flip": 0, "jitter": 0, "gray": 0, "blur": 0, **augment})
    return ClipLoader(videos, ["rgb", "flow"], clip, spec, 4, clips_per_video=clips)


def test_blocks_follow_one_another_without_a_gap():
    sample = loader(ClipSpec(frames=3, stride=2, size=8, blocks=4)).sampler.sample(0, 0, 0)
    for view, channels in (("rgb", 3), ("flow", 2)):
        clips = sample.clips[view]
        assert clips.shape == (4, channels, 3, 8, 8)
        times = clips[:, 0, :, 0, 0].ravel().astype(int)
        assert np.all(np.diff(times) == 2)


def test_a_short_video_is_padded_with_its_first_frame():
    sample = loader(ClipSpec(frames=3, stride=1, size=8, blocks=3), length=7).sampler.sample(
        0, 0, 0
    )
    assert sample.clips["rgb"][:, 0, :, 0, 0].ravel().tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6]


def test_what_is_drawn_for_a_clip_holds_for_all_of_its_blocks():
    made = loader(ClipSpec(frames=2, size=8, blocks=3), clips=2, jitter=1, blur=1)
    sample = made.sampler.sample(0, 0, 0)
    colour = sample.colour["rgb"]
    assert len(colour) == 6 == len(sample.clips["rgb"])
    assert colour[0] == colour[1] == colour[2] != colour[3]
    (batch,) = next(made.steps(0, 1))
    assert batch.clips["rgb"].shape == (4, 6, 3, 2, 8, 8)


def test_a_broken_artifact_stops_nothing_that_does_not_mean_it(packed, tmp_path):
    folder = tmp_path / "workspace"
    shutil.copytree(packed, folder)
    vidssl("pretrain", "--method", "cpc", *SMALL, "--name", "sound", workspace=folder)
    vidssl("pretrain", "--method", "cpc", *SMALL, "--name", "broken", "--new", workspace=folder)
    (folder / "checkpoint" / "broken" / "v001" / "artifact.json").unlink()
    vidssl("probe", "-c", "sound", workspace=folder)
    made = vidssl("pretrain", "--method", "cpc", *SMALL, "--name", "other", workspace=folder)
    assert "checkpoint/other/v001" in made.out and "next:" not in made.out
    said = vidssl("probe", workspace=folder, code=1).err
    assert "broken/v001 is no vidssl artifact" in " ".join(said.split())
