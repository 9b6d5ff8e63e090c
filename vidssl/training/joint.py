"""Plans of `vidssl cotrain` for methods that train the encoders of all streams in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vidssl.backbones import Encoder
from vidssl.base.errors import UsageError, VidsslError
from vidssl.base.progress import SILENT, Progress
from vidssl.methods import METHODS, Method
from vidssl.recipes.recipe import Recipe
from vidssl.training.data import training_data
from vidssl.training.encoders import check_context, like_encoder, new_encoder, with_clip_spec
from vidssl.training.fit_to_data import fit_to_data, require_labels
from vidssl.training.options import TrainingOptions, check_options, for_stream
from vidssl.training.training_run import TrainingPlan
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.checkpoints import checkpoint_encoder, checkpoint_spec, checkpoint_views
from vidssl.workspace.find import find_pack, pack_of
from vidssl.workspace.workspace import Workspace


def plan(
    workspace: Workspace,
    options: TrainingOptions,
    streams: Sequence[str],
    init_from: Sequence[str],
    progress: Progress = SILENT,
) -> TrainingPlan:
    """Resolves inputs and recipe of a run over all `streams`, without doing any work.

    Args:
        init_from: checkpoints whose encoders are the start; streams that none of them has, and
            all streams where there are none, start from scratch.
    """
    recipe = check(options, streams)
    options = for_stream(options, streams[0])
    starts = find_starts(workspace, streams, init_from)
    pack = find_pack(workspace, options.pack, list(streams))
    for start in starts.values():
        pack = _same_pack(workspace, start, starts, pack, named=options.pack is not None)
    data = training_data(workspace, pack, options.split, options.seed)
    for stream, start in starts.items():
        spec = checkpoint_spec(start, stream)
        check_context(recipe.method, spec)
        recipe = like_encoder(recipe, spec)
    recipe, notes = fit_to_data(recipe, len(data.videos))
    require_labels(recipe, data)
    parents = {"pack": pack} | _roles(starts)
    if data.annotations is not None:
        parents["annotations"] = data.annotations
    begin = ", ".join(f"{s} from {a.label}" for s, a in starts.items()) or "from scratch"
    name = options.name or f"{'-'.join(streams)}-{recipe.method}"
    progress.say(
        f"cotrain {name}: {' and '.join(streams)} of {pack.label} together, {begin}, "
        f"{len(data.videos)} training videos ({data.note}), recipe {recipe.name}"
    )
    return TrainingPlan(
        stage="cotrain",
        name=name,
        options=options,
        recipe=recipe,
        data=data,
        parents=parents,
        make_method=lambda: _method(recipe, streams, starts, options.seed),
        notes=notes,
        streams=tuple(streams),
    )


def check(options: TrainingOptions, streams: Sequence[str]) -> Recipe:
    """Checks what options say by themselves, and gives the recipe they mean: the first stream's.

    Raises:
        UsageError: the first that makes no sense.
    """
    if len({get_view(stream).name for stream in streams}) != len(streams):
        raise UsageError("each of the views is given once, such as --views rgb,flow")
    recipe = check_options(for_stream(options, streams[0]), "cotrain")
    wanted = METHODS[recipe.method].streams
    if wanted is not None and len(streams) != wanted:
        raise UsageError(f"{recipe.method} compares {wanted} streams, not {len(streams)}")
    return recipe


def find_starts(
    workspace: Workspace, streams: Sequence[str], init_from: Sequence[str]
) -> dict[str, Artifact]:
    """Returns the checkpoint each stream starts from, of those named; the first that has it.

    Raises:
        VidsslError: there is no such checkpoint, or it has an encoder of none of the streams.
    """
    named = [workspace.resolve("checkpoint", text) for text in init_from]
    for start in named:
        if not set(checkpoint_views(start)) & set(streams):
            raise VidsslError(f"{start.label} has no encoder of {' or '.join(streams)}")
    found = {s: [a for a in named if s in checkpoint_views(a)] for s in streams}
    return {stream: starts[0] for stream, starts in found.items() if starts}


def _same_pack(
    workspace: Workspace,
    start: Artifact,
    starts: Mapping[str, Artifact],
    newest: Artifact,
    *,
    named: bool,
) -> Artifact:
    pack = _pack_of(workspace, start, newest)
    wanted = newest if named else _pack_of(workspace, next(iter(starts.values())), newest)
    if pack.digest != wanted.digest:
        raise UsageError(f"{start.label} was trained on {pack.label}, not on {wanted.label}")
    return pack


def _pack_of(workspace: Workspace, start: Artifact, newest: Artifact) -> Artifact:
    return pack_of(workspace, start, newest.label, ())


def _roles(starts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """Returns the checkpoints as parents, each once: init, init2 and so on."""
    once = list({start.digest: start for start in starts.values()}.values())
    return {f"init{n}" if n > 1 else "init": start for n, start in enumerate(once, 1)}


def _method(
    recipe: Recipe, streams: Sequence[str], starts: Mapping[str, Artifact], seed: int
) -> Method:
    encoders: dict[str, Encoder] = {}
    for stream in streams:
        if stream in starts:
            encoder = with_clip_spec(checkpoint_encoder(starts[stream], stream), recipe.clip)
        else:
            encoder = new_encoder(recipe, stream)
        encoders[stream] = encoder
    return METHODS[recipe.method].build(recipe.config, encoders, seed)
