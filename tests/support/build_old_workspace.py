"""Builds tests/data/formats/workspace-0.1.tar.xz: a workspace as version 0.1 left it.

    python tests/support/build_old_workspace.py FOLDER

It was run once, with version 0.1, and its archive stays for ever: later versions read it, and go on
with the runs in it that were stopped. It is never built again, so what it reaches into, to stop
runs where it matters, is of 0.1 and need not be there any more.

In the archive: `videos`, `splits.csv`, `workspace`, and `expected.json`, which has what finished
commands print when they are typed again, and what the unfinished runs give when nothing stops them.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import old_workspace as old
import torch
from cli_workspace import vidssl
from video_files import moving_square, write_video

from vidssl.backbones import BACKBONES

STEPS = {"down": (0, 2), "right": (2, 0)}


def make_videos(root: Path) -> None:
    """Writes the videos and the table of their labels; the last of each label is for testing."""
    with (root / "splits.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "label", "group", "split1"])
        for label in old.LABELS:
            for n in range(old.PER_LABEL):
                picture = moving_square(old.FRAMES, 48, 40, STEPS[label], seed=n + 10 * len(label))
                write_video(root / "videos" / label / f"{n}.mp4", picture)
                part = "test" if n == old.PER_LABEL - 1 else "train"
                table.writerow([f"{label}/{n}.mp4", label, f"{label} {n}", part])


def run(root: Path, words: old.Words, code: int = 0) -> Any:
    """Types a command in the workspace of a folder and gives what it prints as JSON."""
    torch.set_num_threads(1)
    BACKBONES["mite"] = old.Mite
    return vidssl(*old.typed(words, root), "--json", workspace=root / "workspace", code=code).json


# ── stopping


def end(number: int) -> None:
    os.kill(os.getpid(), number)


def at_call(number: int, count: int, after: bool, owner: Any, name: str) -> None:
    """Lets a signal end the process at a call of a function, before it or after it."""
    original, calls = getattr(owner, name), []

    def stopping(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == count and not after:
            end(number)
        found = original(*arguments, **options)
        if len(calls) == count and after:
            end(number)
        return found

    setattr(owner, name, stopping)


def doomed(root: Path, words: old.Words, number: int, count: int, after: bool, where: str) -> None:
    """Runs in a process of its own until a signal comes in the middle of the work."""
    from vidssl import engine
    from vidssl.shards.writer import ShardWriter

    owners = {"add": ShardWriter, "train_step": engine, "save_resume": engine}
    at_call(number, count, after, owners[where], where)
    run(root, words, code=128 + number)


def stop(root: Path, words: old.Words, number: int, count: int, after: bool, where: str) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=doomed, args=(root, words, number, count, after, where))
    process.start()
    process.join()
    wanted = -number if number == signal.SIGKILL else 0
    assert process.exitcode == wanted, (words, process.exitcode)


def begin_all(root: Path) -> None:
    """Leaves the unfinished runs. There are three steps in an epoch."""
    parted, packed, killed, vicc, coclr, tuned = old.UNFINISHED.values()
    kill, ask = signal.SIGKILL, signal.SIGINT
    first = run(root, (*parted, "--shard", f"0/{old.PARTS}"))
    assert first["unfinished_parts"] == old.PARTS - 1, first
    stop(root, (*parted, "--shard", f"1/{old.PARTS}"), kill, 1, True, "add")
    stop(root, packed, kill, 3, True, "add")
    # After the third epoch's row of the log, before its weights are saved: a row too many.
    stop(root, killed, kill, 9, False, "save_resume")
    stop(root, vicc, signal.SIGTERM, 7, True, "train_step")
    stop(root, coclr, ask, 8, True, "train_step")
    stop(root, tuned, kill, 5, True, "train_step")
    run(root, old.FAILING, code=1)


# ── what is expected


def log_of(root: Path, label: str) -> list[dict[str, Any]]:
    path = root / "workspace" / label / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def undisturbed(root: Path) -> dict[str, Any]:
    """Types the commands of the unfinished runs where they were never begun."""
    found: dict[str, Any] = {}
    for shelf, words in old.UNFINISHED.items():
        printed = run(root, words)
        label = f"{shelf}/v001"
        found[shelf] = {"printed": old.without_places(printed)}
        if shelf in old.TRAININGS:
            found[shelf]["log"] = log_of(root, label)
    return found


def later(root: Path) -> dict[str, Any]:
    found = {key: old.without_places(run(root, words)) for key, words in old.LATER.items()}
    return found | {"log": log_of(root, found["cotrain"]["artifact"])}


def build(root: Path) -> None:
    """Makes the folder's content."""
    made = root / "made"
    made.mkdir(parents=True)
    make_videos(made)
    for words in old.FINISHED.values():
        run(made, words)
    again = {key: old.without_places(run(made, words)) for key, words in old.FINISHED.items()}
    expected: dict[str, Any] = {"finished": again}
    for key, make in (("undisturbed", undisturbed), ("later", later)):
        copy = Path(shutil.copytree(made, root / key))
        expected[key] = make(copy)
    begin_all(made)
    expected["status"] = old.without_places(run(made, ("status",)))
    expected["verify"] = run(made, ("verify",))
    names = ("torch", "numpy", "av", "opencv-contrib-python", "h5py")
    expected["written_with"] = {name: version(name) for name in names}
    (made / old.EXPECTED).write_text(json.dumps(expected, indent=1) + "\n")
    # A cache that names places of this machine; without it each process looks for itself.
    shutil.rmtree(made / "workspace" / ".manifests")


def tidy(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def main(folder: Path) -> None:
    build(folder)
    path = folder / old.ARCHIVE.name
    with tarfile.open(path, "w:xz", preset=9) as archive:
        for each in sorted((folder / "made").iterdir()):
            archive.add(each, each.name, filter=tidy)
    print(f"wrote {path}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
