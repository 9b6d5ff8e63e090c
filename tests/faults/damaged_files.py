"""Damages files of a workspace, one at a time, and types the commands that read them.

    python tests/faults/damaged_files.py                   2,000 faults; a table at the end
    python tests/faults/damaged_files.py --cases 100:200   those of these seeds
    python tests/faults/damaged_files.py --cases 17 -v     one, and what was said

Every fault is one of four: *harmless* (nothing differs), *told* (the command ends with one sentence
that names the file), *made good* (the same result, and a sentence on what was repaired), or a
*violation*: a traceback, a hang, a crash, another sentence, or another result with exit code 0.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent / "support"))

import fault_workspace as base
import forked_commands
from file_faults import Fault, draw_file, files_of, inject, kind_of
from forked_commands import Ended, all_imported

HARMLESS, TOLD, MADE_GOOD, VIOLATION = "harmless", "told", "made good", "VIOLATION"

# Of what `--json` prints: places, the size of shards, which may be divided otherwise, the complaint
# in .failed, which is no result, and how many parts of a run are finished: one whose manifest is
# gone is not, and is done again.
INCIDENTAL = {"path", "folder", "workspace", "query", "out", "failed", "bytes", "parts"}


@dataclass(frozen=True)
class Verdict:
    """What one command did about one fault.

    Attributes:
        verdict: one of the four.
        why: of a violation.
    """

    seed: int
    fault: Fault
    command: str
    verdict: str
    why: str
    ended: Ended

    def line(self) -> str:
        """Returns the case in one line."""
        return (
            f"seed {self.seed}: {self.fault.file}: {self.fault.what}; {self.command}: "
            f"{self.verdict} {self.why}"
        )


def result_of(ended: Ended, root: Path) -> Any:
    """Returns what a command printed as JSON, without what differs from run to run."""
    text = ended.out.replace(str(root), "ROOT")
    try:
        return _without_incidentals(json.loads(text))
    except ValueError:
        return text


def _without_incidentals(value: Any) -> Any:
    if isinstance(value, dict):
        known = {k: v for k, v in value.items() if k not in INCIDENTAL}
        if not known.get("running"):  # false; null where the lock cannot be asked
            known.pop("running", None)
        return {k: _without_incidentals(v) for k, v in known.items()}
    return [_without_incidentals(v) for v in value] if isinstance(value, list) else value


class Reference:
    """What each command says and prints in a workspace in which nothing is damaged.

    Args:
        root: the folder of the workspace.
        scratch: a folder to work in.
    """

    def __init__(self, root: Path, scratch: Path) -> None:
        self._root, self._scratch = root, scratch
        self._known: dict[str, tuple[Ended, Any]] = {}

    def of(self, command: str) -> tuple[Ended, Any]:
        """Returns how the command ends, and its result."""
        if command not in self._known:
            with copied(self._root, self._scratch) as case:
                ended = base.run(case, base.COMMANDS[command])
                self._known[command] = ended, result_of(ended, case)
        return self._known[command]


@contextmanager
def copied(root: Path, scratch: Path) -> Iterator[Path]:
    """A copy of the workspace that is removed in the end."""
    case = Path(tempfile.mkdtemp(dir=scratch))
    try:
        base.copy(root, case)
        yield case
    finally:
        shutil.rmtree(case)


def judge(
    command: str, fault: Fault, ended: Ended, root: Path, reference: tuple[Ended, Any]
) -> tuple[str, str]:
    """Returns the verdict on a command that met a fault, and why it is a violation."""
    usual, expected = reference
    if ended.hung:
        return VIOLATION, "hangs"
    if ended.code < 0:
        return VIOLATION, f"ended by signal {-ended.code}"
    if "Traceback" in ended.err or "Traceback" in ended.out:
        return VIOLATION, f"traceback: {ended.err.strip().splitlines()[-1][:160]}"
    named, found = names(fault, ended), result_of(ended, root)
    if ended.code != usual.code:
        if named and (ended.code or usual.code == base.LEFT_OUT):
            return TOLD, ""
        last = (ended.err.strip().splitlines() or [ended.out.strip()])[-1][:220]
        return VIOLATION, f"exit code {ended.code}, and names no file: {last}"
    if found == expected:
        return (MADE_GOOD, "") if named and not names(fault, usual) else (HARMLESS, "")
    if usual.code not in (0, base.LEFT_OUT):
        return HARMLESS, ""  # it fails anyway, whatever else its sentence tells
    if named and (command in base.REPORTS or done_again(expected) == done_again(found)):
        return TOLD if command in base.REPORTS else MADE_GOOD, ""
    lists = named and Path(fault.file).name == "quarantine.csv"
    if lists and without_reasons(expected) == without_reasons(found):
        return TOLD, ""  # why a video was left out is lost with the list
    return VIOLATION, f"another result: {difference(expected, found)}"


def done_again(result: Any) -> Any:
    """Returns a result without what differs where a part of the work had to be done again."""
    if not isinstance(result, dict):
        return result
    return {k: v for k, v in result.items() if k not in ("reused", "unfinished_parts")}


def without_reasons(result: Any) -> Any:
    """Returns a result without the reasons for which videos were left out."""
    if not isinstance(result, dict):
        return result
    names = [row.get("video") for row in result.get("quarantined", [])]
    return result | {"quarantined": names}


def names(fault: Fault, ended: Ended) -> bool:
    """Whether a command names a damaged file: its name, and the folder or artifact it lies in."""
    said = " ".join((ended.err + ended.out).split())
    for file in (fault.file, *fault.others):
        path = Path(file)
        if path.name in said and (file in said or path.parent.as_posix() in said):
            return True
        # Which of several shards is not the set's own cannot be known; of a folder without its
        # manifest the folder is named.
        of_folder = path.name == "artifact.json" or path.name.startswith("shard-")
        if of_folder and "/.run-" not in file and path.parent.as_posix() in said:
            return True
    return False


def difference(expected: Any, found: Any, at: str = "") -> str:
    """Returns the first place at which two results differ."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in [*expected, *found]:
            if key not in expected or key not in found:
                return f"{at}/{key} only in {'one' if key in expected else 'the other'}"
            if expected[key] != found[key]:
                return difference(expected[key], found[key], f"{at}/{key}")
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, pair in enumerate(zip(expected, found, strict=True)):
            if pair[0] != pair[1]:
                return difference(*pair, f"{at}/{number}")
    return f"{at}: {str(expected)[:80]} → {str(found)[:80]}"


def try_case(root: Path, scratch: Path, seed: int, reference: Reference) -> list[Verdict]:
    """Damages one file, as the seed says, and types two or three commands that may read it."""
    draw = random.Random(seed)
    with copied(root, scratch) as case:
        file = draw_file(files_of(case / "workspace"), draw)
        reader = draw.choice(base.readers_of(file))
        fault = inject(case / "workspace", file, draw)
        if fault is None:
            return []
        reports = ["status"] if "/.run-" in file else ["status", "verify"]
        return type_commands(case, seed, fault, [*reports, reader], reference)


def type_commands(
    case: Path, seed: int, fault: Fault, commands: Sequence[str], reference: Reference
) -> list[Verdict]:
    """Returns the verdict on each command that meets a fault, and on what the last one published.

    Args:
        case: the folder of the damaged workspace.
    """
    verdicts: list[Verdict] = []
    for command in commands:
        usual = reference.of(command)
        ended = base.run(case, base.COMMANDS[command])
        verdict, why = judge(command, fault, ended, case, usual)
        verdicts.append(Verdict(seed, fault, command, verdict, why, ended))
        if ended.hung:
            break
    if "/.run-" in fault.file and verdicts[-1].verdict in (HARMLESS, MADE_GOOD):
        verdicts.append(_published_whole(case, seed, fault, commands[-1]))
    return verdicts


def _published_whole(case: Path, seed: int, fault: Fault, reader: str) -> Verdict:
    """Returns whether what a command published, after it went on from damage, is sound."""
    ended = base.run(case, base.COMMANDS["verify"])
    verdict, why = HARMLESS, ""
    if ended.code:
        found = json.loads(ended.out)["artifacts"]
        problems = [p for f in found for p in f["problems"]]
        # Not of another run's file, which it exchanged with this one's.
        others = [p for p in problems if not any(file in p for file in (fault.file, *fault.others))]
        if others:
            verdict, why = VIOLATION, f"damage is published: {others[0]}"
    return Verdict(seed, fault, f"{reader}, then verify", verdict, why, ended)


@contextmanager
def prepared() -> Iterator[tuple[Path, Path, Reference]]:
    """Builds the workspace; yields its folder, a folder for copies, and what commands give."""
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="vidssl-faults-", dir=place) as folder:
        root, scratch = Path(folder) / "base", Path(folder) / "scratch"
        root.mkdir()
        scratch.mkdir()
        base.prepare()
        with all_imported():
            base.build(root)
            yield root, scratch, Reference(root, scratch)


def try_cases(seeds: Sequence[int]) -> Iterator[list[Verdict]]:
    """Builds a workspace and yields the verdicts of each seed whose fault changes something."""
    with prepared() as (root, scratch, reference):
        for seed in seeds:
            if verdicts := try_case(root, scratch, seed, reference):
                yield verdicts


def main() -> None:
    """Tries the faults that were asked for, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="0:2000", help="seeds: N, or BEGIN:END")
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("--wall", type=float, default=60, help="seconds after which one hangs")
    given = parser.parse_args()
    forked_commands.patience = given.wall
    begin, _, end = given.cases.partition(":")
    seeds = range(int(begin), int(end) if end else int(begin) + 1)
    counts: dict[str, Counter[str]] = {}
    commands = 0
    for verdicts in try_cases(seeds):
        worst = max((v.verdict for v in verdicts), key=[HARMLESS, MADE_GOOD, TOLD, VIOLATION].index)
        counts.setdefault(kind_of(verdicts[0].fault.file), Counter())[worst] += 1
        commands += len(verdicts)
        for verdict in verdicts:
            if verdict.verdict == VIOLATION or given.verbose:
                print(verdict.line(), flush=True)
            if given.verbose:
                print(verdict.ended.err, verdict.ended.out, flush=True)
    print_table(counts, commands)
    sys.exit(any(row[VIOLATION] for row in counts.values()))


def print_table(counts: dict[str, Counter[str]], commands: int) -> None:
    """Prints how many faults of each kind of file ended how."""
    names = (HARMLESS, MADE_GOOD, TOLD, VIOLATION)
    print(f"| file | faults | {' | '.join(names)} |\n|---|---|---|---|---|---|")
    total: Counter[str] = Counter()
    for kind, row in sorted(counts.items()):
        print(f"| {kind} | {row.total()} | {' | '.join(str(row[n]) for n in names)} |")
        total += row
    print(f"| all | {total.total()} | {' | '.join(str(total[n]) for n in names)} |")
    print(f"{commands} commands were typed.")


if __name__ == "__main__":
    main()
