"""Runs mutated films through extract-flow and pack, among sound ones, and tells what they do."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from container_mutations import mutate
from measured_worker import watched

from vidssl.dataset.video_bounds import VideoBounds
from vidssl.shards import ShardReader
from vidssl.stages import extract_flow, pack, verify
from vidssl.stages.extract_flow import ExtractFlow
from vidssl.stages.pack import Pack
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.stage_result import StageResult
from vidssl.workspace.workspace import Workspace

MOST_FRAMES = 1000  # an index may name the same twelve pictures ten thousand times


@dataclass
class Tally:
    """What became of cases.

    Attributes:
        ends: how many of a stage and container were "whole", "in part", "left out" or "crashed".
        faults: sentences about what must not be.
        slowest: (seconds, case).
        memory: MiB that a worker held at most, with the case.
    """

    cases: int = 0
    ends: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    memory: tuple[int, str] = (0, "")


def write_cases(folder: Path, films: dict[str, bytes], first: int, count: int) -> Path:
    """Writes mutated films and the sound ones, and returns the list of all of them."""
    names = list(films)
    paths = [folder / f"sound.{name}" for name in names]
    for number in range(first, first + count):
        name = names[number % len(names)]
        damaged, length, done = mutate(name, films[name], np.random.default_rng([18, number]))
        path = folder / f"{number:05d}.{done}.{name}"
        path.write_bytes(damaged)
        os.truncate(path, length)
        paths.append(path)
    listed = folder / "films.txt"
    listed.write_text("\n".join(map(str, paths)))
    return listed


Stage = Callable[[Workspace], StageResult]


def stages(videos: Path) -> dict[str, Stage]:
    bounds = VideoBounds(max_frames=MOST_FRAMES)
    flow = ExtractFlow(videos, method="dis", size=48, stored=24, workers=2, bounds=bounds)
    packed = Pack(videos, views=("rgb",), size=24, workers=2, labels="none", bounds=bounds)
    return {
        "flow": lambda workspace: extract_flow.run(workspace, flow),
        "pack": lambda workspace: pack.run(workspace, packed),
    }


def sound_digests(artifact: Artifact) -> dict[str, bytes]:
    table = ShardReader(artifact.path).videos
    names = [name.decode() for name in table.path]
    return {n: d for n, d in zip(names, table.digest, strict=True) if n.startswith("sound.")}


def run_cases(
    folder: Path,
    films: dict[str, bytes],
    expected: dict[str, dict[str, bytes]],
    first: int,
    count: int,
    tally: Tally,
) -> None:
    """Does some cases, and adds what became of them to the tally."""
    videos = write_cases(folder, films, first, count)
    workspace = Workspace(folder / "w")
    log = folder / "log"
    for stage, run in stages(videos).items():
        with watched(log):
            result = run(workspace)
        check(stage, result, expected[stage], count + len(films), tally)
    if not (found := verify.run(workspace)).ok:
        tally.faults.append(f"verify: {found.as_dict()}")
    for line in log.read_text().splitlines():
        seconds, peak, name = line.split("\t")
        tally.slowest = max(tally.slowest, (float(seconds), name))
        tally.memory = max(tally.memory, (int(peak), name))
    tally.cases += count


def check(
    stage: str, result: StageResult, expected: dict[str, bytes], videos: int, tally: Tally
) -> None:
    """Checks that each video is stored or left out with one sentence, and sound ones as ever."""
    reader = ShardReader(result.artifact.path)
    if (found := sound_digests(result.artifact)) != expected:
        tally.faults.append(f"{stage}: sound films differ: {sorted(found.keys())}")
    if len(reader) + len(result.quarantined) != videos:
        tally.faults.append(f"{stage}: {videos - len(reader)} videos are lost")
    notes = reader.notes()
    for video in reader.videos.id:
        name = video.decode().rpartition("#")[0]
        if not name.startswith("sound."):
            tally.ends[stage, kind(name), "in part" if video.decode() in notes else "whole"] += 1
    for name, reason in result.quarantined:
        tally.ends[stage, kind(name), "crashed" if "crashed" in reason else "left out"] += 1
        tally.reasons[re.sub(r"\d+", "N", reason)] += 1
        if not reason or "\n" in reason or re.match(r"\w+(Error|Exception|error): ", reason):
            tally.faults.append(f"{stage}: {name}: {reason!r} is no sentence")


def kind(name: str) -> str:
    return name.rpartition(".")[2]


def undamaged(folder: Path, films: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    """Returns the digests of the sound films where nothing else is there, by stage."""
    for film, data in films.items():
        (folder / f"sound.{film}").write_bytes(data)
    videos = write_cases(folder, films, 0, 0)
    found = {}
    for stage, run in stages(videos).items():
        found[stage] = sound_digests(run(Workspace(folder / "undamaged")).artifact)
        assert len(found[stage]) == len(films)
    return found


def table(tally: Tally) -> str:
    """Returns the results as Markdown."""
    ends = ("whole", "in part", "left out", "crashed")
    lines = ["| stage | container | " + " | ".join(ends) + " |", "|---" * 6 + "|"]
    for stage, container in sorted({(s, c) for s, c, _ in tally.ends}):
        counts = " | ".join(str(tally.ends[stage, container, end]) for end in ends)
        lines.append(f"| {stage} | {container} | {counts} |")
    lines += [
        "",
        f"{tally.cases} cases, {len(tally.faults)} faults; most memory of a worker "
        f"{tally.memory[0]} MiB ({tally.memory[1]}), slowest {tally.slowest[0]:.1f} s "
        f"({tally.slowest[1]})",
        *(f"- {count} x {reason}" for reason, count in tally.reasons.most_common(40)),
        *(f"- FAULT {fault}" for fault in tally.faults),
    ]
    return "\n".join(lines)
