"""Commands that turn videos into data: extract-flow, flow-diff, extract-view, pack."""

from __future__ import annotations

from shlex import quote
from typing import Annotated

import typer

from vidssl.cli import completion
from vidssl.cli.app import EVALUATION, PIPELINE, command
from vidssl.cli.options import (
    DeviceOption,
    ExtractionRunOptions,
    VideoBoundOptions,
    VideosArgument,
)
from vidssl.cli.parsing import names_in, only_given, settings_from
from vidssl.cli.terminal import Terminal


@command("extract-flow", panel=PIPELINE)
def extract_flow(
    terminal: Terminal,
    *,
    videos: VideosArgument,
    method: Annotated[
        str | None,
        typer.Option(
            help="tvl1 (the papers'; default with CUDA), dis (fast; default without), tvl1-opencv "
            "(OpenCV's own, for comparison), farneback, motion-vectors (the codec's own: fastest, "
            "coarse, and not of every codec) or raft (a network).",
            autocompletion=completion.one_of(
                "tvl1", "tvl1-opencv", "dis", "farneback", "motion-vectors", "raft"
            ),
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="With the time of a pair on a core and the distance from OpenCV's TV-L1, where "
            "measured. tvl1: published (719 ms, 0.01 px), balanced (434 ms, 0.09 px), "
            "fast (142 ms, 0.15 px; on a GPU all are unmeasured). tvl1-opencv: published "
            "(1057 ms, 0.00 px), balanced (447 ms, 0.09 px), fast (167 ms, 0.15 px). dis: medium "
            "(7.6 ms, 0.36 px), fast (1.5 ms, 0.34 px), ultrafast (0.8 ms, 0.45 px). farneback: "
            "default (14.2 ms, 0.50 px). motion-vectors: default. raft: large, small. "
            "Default: the first."
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="File of raft's weights; default: in torch's cache.")
    ] = "",
    device: DeviceOption = None,
    bound: Annotated[
        float | None,
        typer.Option(help="Pixels beyond which flow is clipped; default: a twelfth of --size."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Short side at which flow is computed (240; 0: as the videos are)."),
    ] = None,
    stored_size: Annotated[
        int | None, typer.Option(help="Short side at which it is stored (128; 0: as computed).")
    ] = None,
    codec: Annotated[
        str, typer.Option(help="jpeg1 to jpeg100; png or webp (lossless); coclr (as published).")
    ] = "jpeg95",
    name: Annotated[str, typer.Option(help="Name of the artifact.")] = "main",
    run: ExtractionRunOptions,
    bounds: VideoBoundOptions,
) -> None:
    """Compute the optical flow of every video.

    A video that cannot be decoded is left out with its reason, and the exit code is 3.

    Several processes can divide the work, on as many machines as see the workspace; the one that
    is last publishes the artifact, which is the same however the work was divided.

    Example:  vidssl extract-flow VIDEOS/

    Example:  vidssl extract-flow VIDEOS/ --method tvl1 --codec png

    Example:  vidssl extract-flow VIDEOS/ --method motion-vectors

    Example:  vidssl extract-flow VIDEOS/ --method raft --preset small --weights raft.pth

    Example:  vidssl extract-flow VIDEOS/ --shard 0/8

    Example:  srun --ntasks 8 vidssl extract-flow VIDEOS/
    """
    from vidssl.stages import extract_flow as stage

    given = only_given(bound=bound, size=size, stored=stored_size)
    given |= {key: None for key in ("size", "stored") if given.get(key) == 0}
    config = stage.ExtractFlow(
        videos, method=method, preset=preset, weights=weights, device=device, codec=codec,
        name=name, bounds=bounds.bounds(), **run.keywords(), **given,
    )  # fmt: skip
    result = terminal.run(stage.run, config)
    terminal.finish(result, lambda: f"vidssl pack {quote(str(videos))}")


@command("flow-diff", panel=EVALUATION)
def flow_diff(
    terminal: Terminal,
    first: Annotated[str, typer.Argument(help="Flow artifact or pack, such as flow/main/v001.")],
    second: Annotated[str, typer.Argument(help="Another one of the same videos.")],
    every: Annotated[int, typer.Option(min=1, help="Compare every so many frames.")] = 1,
) -> None:
    """Compare two artifacts' flow of the same videos, pixel by pixel.

    Both are read in pixels, whatever codec and map they are stored with.

    Another one is made by vidssl extract-flow with --method and --name of its own.

    Example:  vidssl flow-diff flow/main/v001 flow/other/v001
    """
    from vidssl.cli.tables import flow_diff_tables
    from vidssl.stages import flow_diff as stage

    result = terminal.run(stage.run, stage.FlowDiffOptions(first, second, every))
    terminal.json_out(result.as_dict())
    terminal.show(flow_diff_tables(result))


@command("extract-view", panel=PIPELINE)
def extract_view(
    terminal: Terminal,
    *,
    videos: VideosArgument,
    view: Annotated[
        str,
        typer.Option(
            "--view",
            help="pose, mask, or one of your own; pose,mask makes both in one pass (blazepose).",
            autocompletion=completion.complete_views,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="The network: blazepose (on the CPU, needs the extra pose; the default there, if "
            "its weights are in torch's cache), keypointrcnn_resnet50_fpn (of pose), "
            "maskrcnn_resnet50_fpn_v2, deeplabv3_resnet50 or lraspp_mobilenet_v3_large (of mask).",
            autocompletion=completion.one_of(
                "blazepose",
                "keypointrcnn_resnet50_fpn",
                "maskrcnn_resnet50_fpn_v2",
                "deeplabv3_resnet50",
                "lraspp_mobilenet_v3_large",
            ),
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="File of its weights; default: in torch's cache. Of blazepose a .task file, or "
            "its two .tflite files with a comma between."
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(help="Below which a detection is none (0.8; blazepose: 0.4)."),
    ] = None,
    things: Annotated[
        bool, typer.Option("--things", help="Masks of all things, as CoCon's, not of people.")
    ] = False,
    detector_size: Annotated[
        int | None,
        typer.Option(
            help="Short side at which the network sees frames (192; blazepose: at most 512)."
        ),
    ] = None,
    stored_size: Annotated[
        int | None, typer.Option(help="Short side at which frames are stored (96; 0: as derived).")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="Derive every so many frames, interpolate others (2).")
    ] = None,
    codec: Annotated[
        str | None, typer.Option(help="webp or png (lossless), or jpeg1 to jpeg100.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Any setting of the view."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the artifact; default: VIEW.")] = None,
    device: DeviceOption = None,
    run: ExtractionRunOptions,
    bounds: VideoBoundOptions,
) -> None:
    """Make a view of every video from its frames: heatmaps of joints, masks of people, or yours.

    Networks are BlazePose's, on a CPU, or torchvision's. Nothing is downloaded: without weights
    the command says where they are to be had. A view of your own is one file in VIDSSL_VIEWS.

    Example:  vidssl extract-view VIDEOS/ --view pose

    Example:  vidssl extract-view VIDEOS/ --view pose,mask --model blazepose --set people=2

    Example:  vidssl extract-view VIDEOS/ --view mask --weights maskrcnn.pth --detector-size 800
    """
    from vidssl.stages import extract_view as stage

    named = {"model": model, "weights": weights, "min_score": min_score}
    named |= {"things": things or None, "detector_size": detector_size}
    config = stage.ExtractView(
        videos, view=view, settings=settings_from(settings, **named), stride=stride,
        stored=stored_size, codec=codec, name=name, device=device, bounds=bounds.bounds(),
        **run.keywords(),
    )  # fmt: skip
    result = terminal.run(stage.run, config)
    terminal.finish(result, lambda: f"vidssl pack {quote(str(videos))}")


@command(panel=PIPELINE)
def pack(
    terminal: Terminal,
    *,
    videos: VideosArgument,
    size: Annotated[
        int | None,
        typer.Option(help="Short side of RGB frames (144); 256 for the papers' evaluation."),
    ] = None,
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="Of RGB's JPEG (90).")] = None,
    labels: Annotated[
        str, typer.Option(help="folders, none, or FILE.csv (path,label[,group][,splits]).")
    ] = "folders",
    group_pattern: Annotated[
        str | None, typer.Option(help="ucf101, hmdb51, or a regular expression for groups.")
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(
            help="Such as rgb or rgb,flow,pose; default: all there is.",
            autocompletion=completion.complete_views,
        ),
    ] = None,
    derived: Annotated[
        list[str] | None,
        typer.Option(help="Artifact of a view, such as flow/main/v001; default: the newest."),
    ] = None,
    segments: Annotated[
        str,
        typer.Option(help="none, or seconds: cut videos into segments about this long."),
    ] = "none",
    name: Annotated[str, typer.Option(help="Name of the artifact.")] = "main",
    run: ExtractionRunOptions,
    bounds: VideoBoundOptions,
) -> None:
    """Pack frames and derived views into shards, and note labels, groups and splits.

    Labels are optional: a folder of unlabelled files is fine. Packing again with other labels
    only writes new annotations.

    Example:  vidssl pack VIDEOS/

    Example:  vidssl pack VIDEOS/ --labels splits.csv --size 256

    Example:  vidssl pack VIDEOS/ --segments 10

    Example:  vidssl pack VIDEOS/ --shard 0/8
    """
    from vidssl.cli import next_step
    from vidssl.stages import pack as stage

    given = only_given(size=size, quality=quality)
    if views:
        given["views"] = names_in(views)
    config = stage.Pack(
        videos, derived=tuple(derived or ()), labels=labels, group_pattern=group_pattern,
        segments=segments, name=name, bounds=bounds.bounds(), **run.keywords(), **given,
    )  # fmt: skip
    result = terminal.run(stage.run, config)
    terminal.finish(result, lambda: next_step.after_packing(terminal.workspace))
