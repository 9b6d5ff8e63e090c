"""A small workspace with two runs and baselines, measured: what compare and report show."""

from __future__ import annotations

import json
from pathlib import Path

from cli_workspace import vidssl
from small_workspace import annotate, make_checkpoint, make_pack

from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.workspace import Workspace

HOSTILE = '"><img src=x onerror=window.stolen=1>'
SCRIPT = "</script><script>window.stolen=1</script>"
CLIPS = 36
LABELS = [f"a {HOSTILE}", f"b {SCRIPT}", "c & {{ 7 * 7 }}"]


def reported_workspace(folder: Path, hostile: bool = False) -> Workspace:
    """Returns a workspace of 36 clips in three classes and groups of two, with all measures.

    Args:
        hostile: the names of files and classes try to break out of a page.
    """
    workspace = Workspace(folder)
    numbers = [n % 3 for n in range(CLIPS)]
    paths = [f"f{n:02d}{HOSTILE if n % 2 else SCRIPT}.mp4" for n in range(CLIPS)]
    pack = make_pack(workspace, numbers, paths=paths if hostile else ())
    parts = ["test" if n % 3 == 0 or n % 4 == 0 else "train" for n in range(CLIPS)]
    names = [LABELS[n] if hostile else "abc"[n] for n in numbers]
    table = annotate(workspace, pack, labels=names, splits={"one": parts})
    for seed, name in ((0, "first"), (1, "second")):
        train = {"batch_size": 4 + seed, "accumulate": 1}
        method = {"negatives": "queue", "queue": 8}
        recipe = {"train": train, "method": method, "method_name": "infonce"}
        log = "".join(
            json.dumps({"step": 2 * n, "loss": 3 - n / 4, "lr": 0.1, "samples_per_second": 8.0})
            + "\n"
            for n in range(1, 6)
        )
        made = make_checkpoint(
            workspace, pack, table, split="one", seed=seed, name=name, recipe=recipe,
            files={"log.jsonl": log},
        )  # fmt: skip
        measure(workspace, made)
    vidssl("baselines", "--split", "one", workspace=workspace.root)
    return workspace


def measure(workspace: Workspace, checkpoint: Artifact) -> None:
    """Measures one checkpoint by its neighbours and by a short probe."""
    named = ["--checkpoint", checkpoint.name]
    vidssl("retrieve", "--evaluate", *named, workspace=workspace.root)
    vidssl("probe", "--set", "epochs=3", *named, workspace=workspace.root)
