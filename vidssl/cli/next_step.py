"""Proposes the next command: the first step of the pipeline that is not done yet and would work.

A step is proposed only if the workspace holds all that it needs, so that it works as it is typed.
That is read from manifests, annotations and the headers of files: no stage runs, and no weights are
loaded. If nothing would work, nothing is proposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from shlex import quote
from typing import Any

from vidssl.base.errors import VidsslError
from vidssl.dataset.annotations import Annotations
from vidssl.shards import open_shards
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.stored_annotations import read_annotations
from vidssl.workspace.workspace import Workspace

PAIR = ("rgb", "flow")
# A command, and a check of its inputs that raises a VidsslError if the command would fail.
Step = tuple[str, Callable[[], object]]


def after_packing(workspace: Workspace) -> str:
    """Returns the command that trains on the newest pack; empty without two videos to train on.

    It imports no training code, so that packing need not wait until PyTorch is imported.
    """
    pack = workspace.newest("pack")
    if pack is None:
        return ""
    reader = open_shards(pack)
    ids = [reader.video_id(v) for v in range(len(reader))]
    table = workspace.newest("annotations", lambda a: a.parents.get("pack") == pack.digest)
    known = read_annotations(table, ids) if table else Annotations.unlabelled(ids)
    return "vidssl pretrain --stream rgb" if len(known.select(None, 0).train) >= 2 else ""


def after_training(workspace: Workspace, made: Artifact, **told: str | None) -> str:
    """Returns the command that goes on from a checkpoint: train its pair, co-train, or evaluate.

    Args:
        told: options of the command that made it, such as split, which hold for the next as well.
    """
    for command, check_inputs in _steps(workspace, made, {k: v for k, v in told.items() if v}):
        with suppress(VidsslError):
            check_inputs()
            return command
    return ""


def _steps(workspace: Workspace, made: Artifact, told: dict[str, str]) -> Iterator[Step]:
    trained = made.recipe["stream"]
    if made.recipe["stage"] != "pretrain":
        yield _probe(workspace, trained)
    pack = workspace.by_digest(made.parents.get("pack", ""))
    for view in PAIR:
        newest = _newest(workspace, view, made)
        if newest is None and pack is not None and view in pack.views:
            yield _pretrain(workspace, view, told)
        elif newest is not None and newest.recipe["stage"] != "cotrain" and _whole(newest, view):
            yield _cotrain(workspace, view, newest, told)
    yield _probe(workspace, trained)
    yield _export(workspace, trained)


def _newest(workspace: Workspace, view: str, made: Artifact) -> Artifact | None:
    """Returns the newest checkpoint of a view that was trained on the same pack."""
    from vidssl.workspace.checkpoints import checkpoint_views

    pack = made.parents.get("pack")
    return workspace.newest(
        "checkpoint", lambda a: view in checkpoint_views(a) and a.parents.get("pack") == pack
    )


def _whole(checkpoint: Artifact, view: str) -> bool:
    """Whether an encoder sees clips as a whole, as co-training by student and partner needs."""
    from vidssl.workspace.checkpoints import checkpoint_spec

    return checkpoint_spec(checkpoint, view).context is None


def _with(command: str, told: dict[str, str], *names: str) -> str:
    return command + "".join(f" --{name} {quote(told[name])}" for name in names if name in told)


# ── steps ────────────────────────────────────────────────────────────────────────────────────


def _pretrain(workspace: Workspace, view: str, told: dict[str, str]) -> Step:
    names = ("method", "recipe", "pack", "split", "device")

    def check_inputs() -> None:
        from vidssl.training.data import training_data
        from vidssl.training.fit_to_data import fit_options
        from vidssl.training.options import TrainingOptions, resolve
        from vidssl.workspace.find_inputs import find_pack

        given: dict[str, Any] = {name: told[name] for name in names if name in told}
        options = resolve(TrainingOptions(stream=view, **given), "pretrain")
        pack = find_pack(workspace, options.pack, [view])
        fit_options(options, training_data(workspace, pack, options.split, options.seed))

    return _with(f"vidssl pretrain --stream {view}", told, *names), check_inputs


def _cotrain(workspace: Workspace, view: str, newest: Artifact, told: dict[str, str]) -> Step:
    from vidssl.methods import METHODS_BY_STAGE

    method_name = newest.recipe.get("method_name")
    same = method_name in METHODS_BY_STAGE["cotrain"]  # ViCC goes on across views

    def check_inputs() -> None:
        from vidssl.stages import cotrain

        options = cotrain.CotrainOptions(
            stream=view,
            method=method_name if same else None,
            settings=() if same else (("k", 5),),
            pack=told.get("pack"),
            device=told.get("device"),
        )
        resolved = cotrain.resolve_for(options, cotrain.choose_method(options), view)
        cotrain.fit_to_pair(workspace, resolved, *cotrain.find_pair(workspace, resolved))

    how = f"--method {method_name} --stream {view}" if same else f"--stream {view} --k 5"
    return _with(f"vidssl cotrain {how}", told, "pack", "device"), check_inputs


def _probe(workspace: Workspace, view: str) -> Step:
    def check_inputs() -> None:
        from vidssl.evaluation.evaluated_encoders import find_subject
        from vidssl.evaluation.labelled_split import check_trainable, find_labels

        subject = find_subject(workspace, view=view)
        labelled = find_labels(workspace, subject.pack, [subject.checkpoint], None)
        check_trainable(labelled)

    return f"vidssl probe{_stream_option(view)}", check_inputs


def _export(workspace: Workspace, view: str) -> Step:
    def check_inputs() -> None:
        from vidssl.stages import export

        export.find(workspace, export.ExportOptions(stream=view))

    return f"vidssl export{_stream_option(view)}", check_inputs


def _stream_option(view: str) -> str:
    """Returns what an evaluating command needs to be told of a view; nothing for the default."""
    from vidssl.evaluation.evaluated_encoders import DEFAULT_VIEW

    return "" if view == DEFAULT_VIEW else f" --stream {view}"
