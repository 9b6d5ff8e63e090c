"""The command to type next: the first step of the pipeline that is not done yet and would work.

A step is proposed only where its own dry run finds all that it needs, so what is proposed works as
typed. Where nothing would work, nothing is proposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from shlex import quote

from vidssl.base.errors import VidsslError
from vidssl.dataset.annotations import Annotations
from vidssl.shards import ShardReader
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.workspace import Workspace

PAIR = ("rgb", "flow")
Step = tuple[str, Callable[[], object]]  # a command, and what fails where it would


def after_packing(workspace: Workspace) -> str:
    """Returns the command that trains on the newest pack; empty without two videos to train on.

    It looks by itself, so that packing need not wait until PyTorch is imported.
    """
    pack = workspace.newest("pack")
    if pack is None:
        return ""
    reader = ShardReader(pack.path)
    ids = [reader.video_id(v) for v in range(len(reader))]
    table = workspace.newest("annotations", lambda a: a.parents.get("pack") == pack.digest)
    known = Annotations.load(table.path, ids) if table else Annotations.unlabelled(ids)
    return "vidssl pretrain --stream rgb" if len(known.select(None, 0).train) >= 2 else ""


def after_training(workspace: Workspace, made: Artifact, **told: str | None) -> str:
    """Returns the command that goes on from a checkpoint: train its pair, co-train, or evaluate.

    Args:
        told: options of the command that made it, such as split, which hold for the next as well.
    """
    for words, attempt in _steps(workspace, made, {k: v for k, v in told.items() if v}):
        with suppress(VidsslError):
            attempt()
            return words
    return ""


def _steps(workspace: Workspace, made: Artifact, told: dict[str, str]) -> Iterator[Step]:
    stream = made.recipe["stream"]
    if made.recipe["stage"] != "pretrain":
        yield _probe(workspace, stream)
    pack = workspace.by_digest(made.parents.get("pack", ""))
    for view in PAIR:
        newest = _newest(workspace, view, made)
        if newest is None and pack is not None and view in pack.summary["views"]:
            yield _pretrain(workspace, view, told)
        elif newest is not None and newest.recipe["stage"] != "cotrain" and _whole(newest, view):
            yield _cotrain(workspace, view, newest, told)
    yield _probe(workspace, stream)
    yield _export(workspace, stream)


def _newest(workspace: Workspace, stream: str, made: Artifact) -> Artifact | None:
    """Returns the newest checkpoint of a stream that comes of the same pack."""
    from vidssl.workspace.checkpoints import checkpoint_views

    pack = made.parents.get("pack")
    return workspace.newest(
        "checkpoint", lambda a: stream in checkpoint_views(a) and a.parents.get("pack") == pack
    )


def _whole(checkpoint: Artifact, stream: str) -> bool:
    """Whether an encoder looks at whole clips, as co-training by student and partner needs."""
    from vidssl.workspace.checkpoints import checkpoint_spec

    return checkpoint_spec(checkpoint, stream).context is None


def _with(words: str, told: dict[str, str], *names: str) -> str:
    return words + "".join(f" --{name} {quote(told[name])}" for name in names if name in told)


def _pretrain(workspace: Workspace, stream: str, told: dict[str, str]) -> Step:
    from vidssl.stages import pretrain

    names = ("method", "recipe", "pack", "split", "device")
    options = pretrain.PretrainOptions(stream=stream, dry_run=True)
    options = replace(options, **{name: told[name] for name in names if name in told})  # type: ignore[arg-type]
    words = _with(f"vidssl pretrain --stream {stream}", told, *names)
    return words, lambda: pretrain.run(workspace, options)


def _cotrain(workspace: Workspace, stream: str, newest: Artifact, told: dict[str, str]) -> Step:
    from vidssl.methods import METHODS_BY_STAGE
    from vidssl.stages import cotrain

    method = newest.recipe.get("method_name")
    same = method in METHODS_BY_STAGE["cotrain"]  # ViCC goes on across streams
    options = cotrain.CotrainOptions(
        stream=stream,
        method=method if same else None,
        settings=() if same else (("k", 5),),
        pack=told.get("pack"),
        device=told.get("device"),
        dry_run=True,
    )
    how = f"--method {method} --stream {stream}" if same else f"--stream {stream} --k 5"
    words = _with(f"vidssl cotrain {how}", told, "pack", "device")
    return words, lambda: cotrain.run(workspace, options)


def _probe(workspace: Workspace, stream: str) -> Step:
    from vidssl.evaluation.subjects import DEFAULT_STREAM
    from vidssl.stages import probe

    own = "" if stream == DEFAULT_STREAM else f" --stream {stream}"
    options = probe.ProbeOptions(streams=(stream,), dry_run=True)
    return f"vidssl probe{own}", lambda: probe.run(workspace, options)


def _export(workspace: Workspace, stream: str) -> Step:
    from vidssl.evaluation.subjects import DEFAULT_STREAM
    from vidssl.stages import export

    own = "" if stream == DEFAULT_STREAM else f" --stream {stream}"
    options = export.ExportOptions(stream=stream)
    return f"vidssl export{own}", lambda: export.find(workspace, options)
