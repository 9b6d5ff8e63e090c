"""`vidssl extract-view`: derives a view from a folder of video and stores it as an artifact.

Poses and masks are derived by networks, views of a user's own by any code. Not every frame need be
derived: at a stride of 2 every other one has no blob, and readers interpolate it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vidssl.base.cores_and_memory import cores
from vidssl.base.device import choose_device
from vidssl.base.errors import UsageError
from vidssl.base.progress import SILENT, Progress
from vidssl.base.typed_settings import configure
from vidssl.extraction.left_out_videos import open_video_run
from vidssl.extraction.options import ExtractionOptions
from vidssl.extraction.part_videos import find_part_videos
from vidssl.extraction.pool import check_pool, choose_pool
from vidssl.extraction.run_or_describe import run_or_describe
from vidssl.extraction.shard_job import ShardJob, videos_digest
from vidssl.extraction.video_view import derive_in_worker
from vidssl.views import all_views, get_view
from vidssl.views.choose_deriver import find_derivers, usable_device
from vidssl.views.codecs import get_codec
from vidssl.views.deriver import Deriver
from vidssl.views.frame_interpolation import INTERPOLATION
from vidssl.workspace.artifacts import Artifact, check_name
from vidssl.workspace.stage_result import StageResult
from vidssl.workspace.workspace import Workspace

# Each holds the network in GPU memory; several overlap decoding, network and encoding.
WORKERS_ON_CUDA = 4


@dataclass(frozen=True)
class ExtractView(ExtractionOptions):
    """Options of `vidssl extract-view`, beside those of all extraction.

    On CUDA four workers are the default. Workers of a dask cluster must know views of your own.

    Attributes:
        videos: a folder, a video file, or a text file of paths.
        view: pose, mask, or one of the user's own; several, with commas between, if one network
            makes them in one pass, as blazepose does.
        settings: (field, value) of the view's deriver, such as weights.
        stride: one of so many frames is derived; None: the view's default.
        stored: short side at which frames are stored; 0: as derived; None: the view's default.
        codec: of the frames; None: the view's default.
        name: of the artifact; None: the view's; of several, their names with hyphens between.
        device: cpu or cuda; None: cuda if there is one.
    """

    videos: Path
    view: str
    settings: tuple[tuple[str, Any], ...] = ()
    stride: int | None = None
    stored: int | None = None
    codec: str | None = None
    name: str | None = None
    device: str | None = None


def run(workspace: Workspace, config: ExtractView, progress: Progress = SILENT) -> StageResult:
    """Derives the view of every video; goes on where an earlier attempt stopped.

    Raises:
        VidsslError: there is no video, none can be used, an option is wrong, or the disk is full.
        MissingInput: the view's network lacks its weights.
        Interrupted: a signal came; finished videos are kept.
    """
    views = view_names(config.view)
    name = config.name or "-".join(views)
    check_name(name)
    chosen = dict(config.settings)
    device = choose_device(config.device)
    weights = str(chosen.get("weights", ""))
    derivers = find_derivers(views, chosen.get("model"), device, weights)
    deriver = derivers[0]
    settings = configure(",".join(views), deriver.Config(), config.settings)
    model = getattr(settings, "model", None)
    device = _device(deriver, device, model, progress)
    check_pool(config.dask)
    params = {view: view_params(config, view, deriver, settings, device) for view in views}
    sources, part_videos = find_part_videos(
        workspace, config.videos, config.part, progress, config.dry_run
    )
    videos = videos_digest(sources)
    recipe = {"stage": "extract-view", "views": params, "videos": videos}
    function = partial(
        derive_in_worker,
        settings=tuple(vars(settings).items()),
        params=params,
        model=model,
        device=device,
        bounds=config.bounds,
    )
    few = min(WORKERS_ON_CUDA, cores()) if device == "cuda" else None
    prepared, retried = open_video_run(workspace, config, "view", name, recipe, {})
    job = ShardJob(
        title=f"extract-view {','.join(views)}",
        views=params,
        pool=choose_pool(function, config.workers or few, config.dask, bounded=False),
        shard_bytes=config.shard_bytes,
        earlier=None if config.new else retried or _earlier(workspace, params),
        retry=config.retry_quarantined,
        retried=retried,
    )
    return run_or_describe(
        prepared,
        job,
        sources,
        part_videos,
        config,
        progress,
        workers=config.dask or config.workers or few,
        more={"device": device},
        before=lambda: deriver(settings, "cpu"),  # fails here if a network's weights are missing
    )


def view_names(views: str) -> tuple[str, ...]:
    """Returns the names in a text such as `pose,mask`, in the order in which vidssl lists views.

    Raises:
        UsageError: there is no such view, a name stands twice, or there is none.
    """
    names = [name.strip() for name in views.split(",")]
    for name in names:
        get_view(name)
    if len({*names}) < len(names):
        raise UsageError(f"--view {views} names a view twice")
    return tuple(name for name in all_views() if name in names)


def _device(deriver: type[Deriver], device: str, model: str | None, progress: Progress) -> str:
    """Returns where to compute, and says so where it is not the device that was chosen."""
    usable = usable_device(deriver, device)
    if usable != device:
        progress.say(f"{model or deriver.__name__} runs on the {usable.upper()}, not on {device}")
    return usable


def _earlier(workspace: Workspace, params: Mapping[str, Any]) -> Artifact | None:
    """Returns the newest artifact of the same parameters, whose videos need not be done again."""
    return workspace.newest("view", lambda a: a.recipe.get("views") == params)


def view_params(
    config: ExtractView, view: str, deriver: type[Deriver], settings: Any, device: str
) -> dict[str, Any]:
    """Returns all that determines the stored frames of a view; recorded with them.

    Raises:
        VidsslError: the codec is unknown, a stride or size makes no sense, or weights are missing.
    """
    codec = get_codec(config.codec or get_view(view).default_codec)
    stride = deriver.stride if config.stride is None else config.stride
    if stride < 1:
        raise UsageError(f"--stride {stride} makes no sense: give 1 or more")
    stored = deriver.stored_size if config.stored is None else config.stored or None
    if stored is not None and stored < 16:
        raise UsageError(f"--stored-size {stored} is too small for a picture: give 16 or more")
    return {
        "codec": codec.name,
        "stored_size": stored,
        "stride": stride,
        "interpolation": INTERPOLATION,
        "derivation": deriver.describe(settings, device),
    }
