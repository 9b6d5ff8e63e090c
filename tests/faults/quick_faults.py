"""A few faults of every kind, in one process: what the test command runs.

    python tests/faults/quick_faults.py

The whole runs are `damaged_files.py` and `failing_machine.py`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

from damaged_files import VIOLATION, Reference, copied, prepared, type_commands
from failing_machine import Bench
from file_faults import WAYS

# A file, how it is damaged (as the seed below says), and who reads it.
FAULTS = [
    ("pack/main/v001/shard-0000.h5", "swap", "retrieve again"),
    ("pack/main/v001/shard-0001.h5", "delete", "pretrain again"),
    ("pack/main/v001/shard-0001.h5", "extra", "cotrain again"),
    ("flow/main/v001/shard-0000.h5", "flip", "flow-diff"),
    ("annotations/main/v001/annotations.csv", "edit", "probe both again"),
    ("checkpoint/rgb-coclr/v001/encoder.rgb.safetensors", "flip", "export"),
    ("features/rgb-coclr/v001/features.h5", "flip", "query"),
    ("probe/rgb-coclr/v001/results.json", "edit", "probe typed again"),
    ("retrieval/rgb-coclr/v001/results.json", "other thing", "retrieve typed again"),
    ("finetune/rgb-coclr/v001/artifact.json", "swap", "finetune typed again"),
    ("flow/main/v001/quarantine.csv", "cut", "pack again"),
    ("workspace.json", "edit", "pack goes on"),
    ("checkpoint/infonce-killed/.run-*/resume.pt", "flip", "infonce goes on"),
    ("checkpoint/coclr-stopped/.run-*/resume.pt", "swap", "coclr goes on"),
    ("checkpoint/vicc-stopped/.run-*/log.jsonl", "replace", "vicc goes on"),
    ("pack/killed/.run-*/spool-0000.bin", "zero", "pack goes on"),
    ("pack/killed/.run-*/spool-0000.journal", "repeat", "pack goes on"),
    ("flow/parted/.run-*/parts/0000-of-0003/part.json", "cut", "flow 1 goes on"),
    ("flow/parted/.run-*/parts/0000-of-0003/shard-0000.h5", "flip", "whole flow goes on"),
    ("features/flow-infonce/.run-*/part-00000.h5", "swap", "features goes on"),
    ("checkpoint/diverged/.run-*.failed", "other thing", "status"),
    (f"flow/parted/.run-{16 * '?'}.lock", "other thing", "flow 1 goes on"),
]
SEED = 2
# A failure, a command, and a place in the middle of its work.
PLACES = [
    ("full-disk", "pack again", 20),
    ("full-once", "probe again", 4),
    ("failing-disk", "cotrain again", 12),
    ("small-files", "pack goes on", 20),
    ("scheduler", "finetune again", 19),
    ("scheduler", "pack goes on", 8),
    ("removed", "pretrain again", 12),
    ("no-locks", "baselines again", 0),
]


def damaged(root: Path, scratch: Path, reference: Reference) -> Iterator[str]:
    """Yields a line on each command that meets a fault, empty where it ends as it may."""
    for pattern, way, reader in FAULTS:
        with copied(root, scratch) as case:
            workspace = case / "workspace"
            (path,) = workspace.glob(pattern)
            file = path.relative_to(workspace).as_posix()
            fault = WAYS[way](workspace, file, random.Random(SEED))
            assert fault is not None, pattern
            commands = ["verify", reader] if file.startswith(("pack/main", "probe/")) else [reader]
            for verdict in type_commands(case, SEED, fault, commands, reference):
                yield verdict.line() if verdict.verdict == VIOLATION else ""


def main() -> None:
    """Tries them, and says which ended as none may."""
    with prepared() as (root, scratch, reference):
        lines = list(damaged(root, scratch, reference))
        bench = Bench(root, scratch, reference)
        for kind, command, number in PLACES:
            case = bench.disturbed(kind, command, number)
            lines.append(case.line() if case.problem else "")
    bad = [line for line in lines if line]
    print(*bad, f"{len(lines)} tried, {len(bad)} ended as none may", sep="\n")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
