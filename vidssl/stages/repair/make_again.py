"""Makes finished artifacts again from their recipes, parents and source videos, for repair.

Each is made in a workspace of its own that holds nothing but its ancestors, so that what is newest
there is what it was made from. A run of another identity is refused before any work.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vidssl.base.errors import VidsslError
from vidssl.base.progress import SILENT, Progress
from vidssl.evaluation import feature_cache
from vidssl.evaluation.feature_cache import EmbedOptions
from vidssl.evaluation.features import WindowProtocol
from vidssl.extraction.segment_pack import remake_segments
from vidssl.optical_flow.algorithms import FLOW_METHODS, get_flow_method
from vidssl.shards import SHARDS
from vidssl.stages import evaluate_retrieval, extract_flow, extract_view, pack, probe
from vidssl.stages.evaluate_retrieval import EvaluateRetrievalOptions
from vidssl.stages.extract_flow import ExtractFlow
from vidssl.stages.extract_view import ExtractView
from vidssl.stages.pack import Pack
from vidssl.stages.probe import ProbeOptions
from vidssl.views.choose_deriver import recall_deriver
from vidssl.workspace.artifacts import FRAMES_ROLE, Artifact
from vidssl.workspace.run import Run
from vidssl.workspace.workspace import Workspace

SHARD_KINDS = ("flow", "view", "pack")


class CannotMake(VidsslError):
    """An artifact cannot be made again here; the text says why, as half a sentence."""


@dataclass(frozen=True)
class Sources:
    """From what artifacts are made again, beside their parents.

    Attributes:
        videos: the folder, file or list that was packed; None: unknown.
        workers: processes; None: as many as the stage chooses.
    """

    videos: Path | None = None
    workers: int | None = None

    def needed(self) -> Path:
        """Returns the videos.

        Raises:
            CannotMake: they are unknown.
        """
        if self.videos is None:
            raise CannotMake("it takes the source videos: name them with --videos VIDEOS")
        return self.videos


@contextmanager
def made_again(
    workspace: Workspace,
    artifact: Artifact,
    faulty: Collection[str],
    sources: Sources,
    progress: Progress = SILENT,
) -> Iterator[Artifact]:
    """Makes an artifact again; it is there, in a folder of its own, until the context ends.

    Args:
        faulty: names of its damaged files. Shards that are none of these are taken over.

    Raises:
        CannotMake: its recipe, its parents or its videos are not at hand.
        VidsslError: a parent is damaged, or a stage fails.
    """
    folder = Path(tempfile.mkdtemp(prefix=".repair-", dir=workspace.root))
    try:
        bench = _Bench(folder, artifact)
        for each in _ancestors(workspace, artifact):
            bench.lend(each)
        if artifact.kind in SHARD_KINDS:
            bench.take_over(faulty)
        yield _maker(artifact)(bench, artifact, sources, progress)
    except (KeyError, TypeError, AttributeError) as error:  # of a recipe that was not made here
        raise CannotMake(f"its recipe has not what a command needs ({error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Bench(Workspace):
    """A workspace in which one artifact is made again."""

    def __init__(self, root: Path, wanted: Artifact) -> None:
        super().__init__(root)
        self.wanted = wanted

    def lend(self, artifact: Artifact) -> None:
        """Lets a parent be found here under its own label."""
        shelf = self.root / artifact.kind / artifact.name
        shelf.mkdir(parents=True, exist_ok=True)
        (shelf / artifact.path.name).symlink_to(artifact.path.absolute(), True)

    def take_over(self, faulty: Collection[str]) -> None:
        """Puts the sound shards where an interrupted run would have left them."""
        wanted = self.wanted
        folder = self.root / wanted.kind / wanted.name / f".run-{wanted.run[:16]}"
        folder.mkdir(parents=True)
        for name in wanted.payload:
            if Path(name).match(SHARDS) and name not in faulty:
                _link(wanted.files.sized(name), folder / name)

    def open_run(self, kind: str, name: str, *given: Any, **named: Any) -> Run:
        """Opens a run, unless it would make another artifact than the wanted one."""
        run = super().open_run(kind, name, *given, **named)
        other = run.finished is None and run.identity != self.wanted.run
        if kind == self.wanted.kind and other:
            raise CannotMake("its options, or its inputs, cannot be told from its recipe alone")
        return run


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _ancestors(workspace: Workspace, artifact: Artifact) -> list[Artifact]:
    known = {each.digest: each for each in workspace.scan()[0] if each.label != artifact.label}
    frontier, found = list(artifact.parents.values()), {}
    while frontier:
        each = known.get(frontier.pop())
        if each is not None and each.label not in found:
            found[each.label] = each
            frontier += each.parents.values()
    return list(found.values())


# ── one function per kind ────────────────────────────────────────────────────────────────────

Maker = Callable[[_Bench, Artifact, Sources, Progress], Artifact]


def _maker(artifact: Artifact) -> Maker:
    """Returns the function that makes an artifact of its kind again."""
    baseline = artifact.recipe.get("stage") == "baseline"
    if artifact.kind not in MAKERS or baseline:
        raise CannotMake("it is not made again automatically")
    return MAKERS[artifact.kind]


def _parent(bench: _Bench, artifact: Artifact, role: str) -> Artifact:
    found = bench.by_digest(artifact.parents[role])
    if found is None:
        raise CannotMake(f"its {role} is not in the workspace any more, or is unreadable")
    return found


def _protocol(recipe: Mapping[str, Any]) -> WindowProtocol:
    known = {each.name for each in fields(WindowProtocol)}
    return WindowProtocol(**{k: v for k, v in recipe["protocol"].items() if k in known})


def _features(bench: _Bench, artifact: Artifact, sources: Sources, progress: Progress) -> Artifact:
    options = EmbedOptions(
        checkpoint=_parent(bench, artifact, "checkpoint").label,
        stream=artifact.recipe["stream"],
        pack=_parent(bench, artifact, "pack").label,
        protocol=_protocol(artifact.recipe),
        name=artifact.name,
    )
    return _made(feature_cache.embed(bench, options, progress).artifact)


def _evaluated(bench: _Bench, artifact: Artifact) -> dict[str, Any]:
    """Returns the options that probes and retrievals share."""
    roles = [role for role in ("checkpoint", "checkpoint2") if role in artifact.parents]
    features = _parent(bench, artifact, "features")
    recipe = artifact.recipe
    return {
        "checkpoints": tuple(_parent(bench, artifact, role).label for role in roles),
        "streams": tuple(recipe.get("streams") or [recipe["stream"]]),
        "pack": _parent(bench, features, "pack").label,
        "split": recipe["split"],
        "metric": recipe.get("metric", "centred"),
        "protocol": _protocol(features.recipe),
        "name": artifact.name,
    }


def _retrieval(bench: _Bench, artifact: Artifact, sources: Sources, progress: Progress) -> Artifact:
    options = EvaluateRetrievalOptions(**_evaluated(bench, artifact))
    return _made(evaluate_retrieval.run(bench, options, progress).stage.artifact)


def _probe(bench: _Bench, artifact: Artifact, sources: Sources, progress: Progress) -> Artifact:
    settings = tuple(artifact.recipe["settings"].items())
    # A vote of neighbours has a mode and no seed; a linear probe a seed and no mode.
    more = {key: artifact.recipe[key] for key in ("mode", "seed") if key in artifact.recipe}
    options = ProbeOptions(**_evaluated(bench, artifact), settings=settings, **more)
    return _made(probe.run(bench, options, progress).stage.artifact)


def _flow(bench: _Bench, artifact: Artifact, sources: Sources, progress: Progress) -> Artifact:
    params = artifact.recipe["flow"]
    name = params["method"]
    presets = FLOW_METHODS[name].presets if name in FLOW_METHODS else {}
    same = [p for p in presets if get_flow_method(name, p).params == params["method_params"]]
    if not same:
        raise CannotMake(f"its flow is by {name} with parameters that no preset has here")
    options = ExtractFlow(
        videos=sources.needed(),
        method=name,
        preset=same[0],
        bound=params["bound"],
        size=params["working_size"],
        stored=params["stored_size"],
        codec=params["codec"],
        name=artifact.name,
        workers=sources.workers,
    )
    return _made(extract_flow.run(bench, options, progress).artifact)


def _view(bench: _Bench, artifact: Artifact, sources: Sources, progress: Progress) -> Artifact:
    views = artifact.recipe["views"]
    params = next(iter(views.values()))
    options = ExtractView(
        videos=sources.needed(),
        view=",".join(views),
        settings=_settings(next(iter(views)), params["derivation"]),
        stride=params["stride"],
        stored=params["stored_size"] or 0,
        codec=params["codec"],
        name=artifact.name,
        workers=sources.workers,
    )
    return _made(extract_view.run(bench, options, progress).artifact)


def _settings(view: str, recorded: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Returns the settings that a view was made with; its weights must be in torch's cache."""
    try:
        _, config = recall_deriver(view, recorded, "", "cpu")
    except VidsslError as error:
        raise CannotMake(f"its settings cannot be taken up again: {error}") from error
    return tuple(vars(config).items())


def _pack_options(bench: _Bench, made: Artifact, name: str, sources: Sources) -> Pack:
    views = made.recipe["views"]
    codec = views["rgb"]["codec"]
    return Pack(
        videos=sources.needed(),
        views=tuple(views),
        size=views["rgb"]["stored_size"],
        quality=int(codec.removeprefix("jpeg")) if codec.startswith("jpeg") else 0,
        derived=tuple(_parent(bench, made, role).label for role in made.parents),
        labels="none",
        name=name,
        workers=sources.workers,
    )


def _pack(bench: _Bench, artifact: Artifact, sources: Sources, progress: Progress) -> Artifact:
    if FRAMES_ROLE in artifact.parents:
        frames = _parent(bench, artifact, FRAMES_ROLE)
        return remake_segments(bench, artifact.name, frames, artifact)
    options = _pack_options(bench, artifact, artifact.name, sources)
    return _made(pack.run(bench, options, progress).artifact)


def _made(artifact: Artifact | None) -> Artifact:
    assert artifact is not None  # no dry run, and no part
    return artifact


MAKERS: dict[str, Maker] = {
    "flow": _flow,
    "view": _view,
    "pack": _pack,
    "features": _features,
    "probe": _probe,
    "retrieval": _retrieval,
}
