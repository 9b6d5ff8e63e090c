"""`vidssl import`: converts a published checkpoint, and accounts for each of its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidssl.augment import AugmentSpec
from vidssl.backbones import Encoder, EncoderSpec, check_backbone
from vidssl.backbones.published_weights import (
    Imported,
    get_method,
    import_state,
    is_classifier,
    projection_width,
    read_published,
)
from vidssl.base.errors import MissingInput, UsageError, VidsslError
from vidssl.base.files import file_digest
from vidssl.base.progress import SILENT, Progress
from vidssl.clips.batch import ClipSpec
from vidssl.clips.loader import ClipLoader
from vidssl.training.data import TrainingData, training_data
from vidssl.views import get_view
from vidssl.views.view import NATIVE
from vidssl.workspace.artifacts import Artifact, check_name
from vidssl.workspace.checkpoints import save_encoder, save_tensors, weights_digest
from vidssl.workspace.find_inputs import find_pack
from vidssl.workspace.stage_result import StageResult
from vidssl.workspace.workspace import Workspace

MEASURED_BATCHES, MEASURED_BATCH = 64, 16
MOST_EPOCHS = 1_000_000


@dataclass(frozen=True)
class ImportOptions:
    """Options of `vidssl import`.

    Attributes:
        file: written by `torch.save`, such as a published `.pth.tar`.
        method: a published method (:data:`vidssl.backbones.published_weights.PUBLISHED_METHODS`).
        view: that the network was trained on.
        backbone, frames, stride, size, blocks: None: those of the method's published runs.
        pack: used only if BatchNorm statistics must be measured; None: the newest with the view.
        name: of the artifact; None: VIEW-METHOD-published.
    """

    file: Path
    method: str
    view: str = "rgb"
    backbone: str | None = None
    frames: int | None = None
    stride: int | None = None
    size: int | None = None
    blocks: int | None = None
    pack: str | None = None
    name: str | None = None
    seed: int = 0
    new: bool = False
    dry_run: bool = False


def run(workspace: Workspace, options: ImportOptions, progress: Progress = SILENT) -> StageResult:
    """Imports a published checkpoint, and returns the new checkpoint artifact.

    Raises:
        VidsslError: the file cannot be read safely, or a tensor is missing or left over.
    """
    check_options(options)
    method = options.method.lower()
    whole = read_published(options.file)
    spec, imported = _encoder_in(options, whole["state_dict"])
    recipe: dict[str, Any] = {
        "stage": "import",
        "stream": options.view,
        "method_name": method,
        "file": file_digest(options.file),
        "spec": spec.as_dict(),
    }
    parents: dict[str, Artifact] = {}
    if imported.lacks_statistics:
        data = _data_to_measure_on(workspace, options)
        parents["pack"] = data.pack
        if data.annotations is not None:
            parents["annotations"] = data.annotations
        recipe |= {"split": data.split, "seed": options.seed}
    name = options.name or f"{options.view}-{method}-published"
    if options.dry_run:
        inputs = {role: parent.label for role, parent in parents.items()}
        plan = {"makes": f"checkpoint/{name}", "inputs": inputs, "recipe": recipe}
        return StageResult(None, notes=imported.notes, plan=plan)
    with workspace.open_run("checkpoint", name, recipe, parents, options.new) as opened:
        if opened.finished is not None:
            return StageResult(opened.finished, reused=True, notes=imported.notes)
        for note in imported.notes:
            progress.say(note)
        if imported.lacks_statistics:
            measure_statistics(imported.encoder, data, options.seed, progress)
        save_encoder(imported.encoder, opened.folder)
        if imported.tensors:
            save_tensors(imported.tensors, opened.folder)
        summary: dict[str, Any] = {"method": f"{method}, published", "backbone": spec.backbone}
        epoch = whole.get("epoch")
        if type(epoch) is int and 0 <= epoch < MOST_EPOCHS:  # a file may say anything
            summary["epochs"] = epoch
        artifact = opened.publish(
            weights_digest({options.view: imported.encoder}, imported.tensors),
            summary | {"accounted_for": imported.notes},
        )
    return StageResult(artifact, notes=imported.notes)


def check_options(options: ImportOptions) -> None:
    """Checks the options by themselves, before the file is opened.

    Raises:
        UsageError: for the first option that is wrong.
    """
    get_method(options.method)
    get_view(options.view)
    if options.backbone is not None:
        check_backbone(options.backbone)
    if options.name is not None:
        check_name(options.name)


def encoder_spec(options: ImportOptions, state: dict[str, Tensor]) -> EncoderSpec:
    """Returns the spec of the encoder in a file; options override the published values."""
    published = get_method(options.method)
    view = get_view(options.view)
    presentation = published.presentations.get(view.name, NATIVE)
    return EncoderSpec(
        view=view.name,
        backbone=options.backbone or published.backbone,
        channels=view.input_channels(presentation),
        frames=options.frames or published.frames,
        stride=options.stride or published.stride,
        size=options.size or 128,
        project=projection_width(state, options.method),
        blocks=options.blocks or published.blocks,
        context=None if published.head or is_classifier(state) else "gru",
        presentation=presentation,
    )


def _encoder_in(options: ImportOptions, state: dict[str, Tensor]) -> tuple[EncoderSpec, Imported]:
    """Returns the encoder in a file and its spec; an error names the file."""
    try:
        spec = encoder_spec(options, state)
        return spec, import_state(state, options.method.lower(), spec)
    except UsageError:
        raise
    except VidsslError as error:
        raise VidsslError(f"{options.file}: {error}") from error


# ── files of networks that were trained without running statistics ───────────────────────────


def _data_to_measure_on(workspace: Workspace, options: ImportOptions) -> TrainingData:
    if options.pack is None and workspace.newest("pack") is None:
        raise MissingInput(
            f"{options.file} has no BatchNorm statistics, so they must be measured on video, and "
            f"there is none in {workspace.root}; make some with: vidssl pack VIDEOS"
        )
    pack = find_pack(workspace, options.pack, [options.view])
    return training_data(workspace, pack, None, options.seed)


@torch.no_grad()
def measure_statistics(
    encoder: Encoder, data: TrainingData, seed: int, progress: Progress = SILENT
) -> None:
    """Sets each BatchNorm's running mean and variance from up to 1024 training clips, in place."""
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm3d)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
    spec = encoder.spec
    batch = min(MEASURED_BATCH, len(data.videos))
    loader = ClipLoader(
        data.videos,
        [spec.view],
        ClipSpec(spec.frames, spec.stride, spec.size, spec.blocks),
        AugmentSpec(),
        batch,
        clips_per_video=1,
        seed=seed,
        presentations={spec.view: spec.presentation},
    )
    steps = min(MEASURED_BATCHES, loader.steps_per_epoch)
    encoder.train()
    with progress.task("measure BatchNorm statistics", steps, "batch") as task:
        for (clips,) in loader.steps(0, steps):
            encoder.features(clips.clips[spec.view].flatten(0, 1))
            task.advance()
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    encoder.eval()
