"""Lets the machine fail while a stage works: its disk, its scheduler, its file system.

    python tests/faults/failing_machine.py                 all, at every place where it can fail
    python tests/faults/failing_machine.py full-disk       one kind
    python tests/faults/failing_machine.py --every 20      at one place of twenty

Each case types a command, and something happens at the N-th change of the disk (or at the N-th file
that is opened). The command has to end with one sentence, or as if nothing had happened. Then the
same command is typed again, undisturbed: it has to give what it gives where nothing ever fails, and
`verify` has to find the workspace sound.
"""

from __future__ import annotations

import argparse
import errno
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent / "support"))

import failing_files as failing
import fault_workspace as base
import forked_commands
from damaged_files import Reference, copied, difference, prepared, result_of
from forked_commands import Ended, end_by

# Commands that write, one for every stage, and some that go on.
WRITERS = [
    "flow of some",
    "pack again",
    "pretrain again",
    "cotrain again",
    "finetune again",
    "probe again",
    "retrieve again",
    "baselines again",
    "export",
    "flow 1 goes on",
    "pack goes on",
    "coclr goes on",
    "features goes on",
]
READ_ONLY = ["status", "verify", "flow-diff", "query", "probe typed again"]
# What is taken away while a command reads it.
PARENTS = {
    "flow of some": ["flow/main/v001"],
    "pack again": ["flow/main/v001"],
    "pretrain again": ["pack/main/v001", "annotations/main/v001"],
    "cotrain again": ["pack/main/v001", "checkpoint/flow-infonce/v002"],
    "finetune again": ["pack/main/v001", "checkpoint/rgb-coclr/v001"],
    "probe again": ["features/rgb-coclr/v001", "annotations/main/v001", "pack/main/v001"],
    "retrieve again": ["features/rgb-coclr/v001", "checkpoint/rgb-coclr/v001"],
    "baselines again": ["pack/main/v001"],
    "query": ["pack/main/v001", "features/rgb-coclr/v001"],
    "status": ["probe/rgb-coclr/v001", "flow/main/v001"],
    "verify": ["probe/rgb-coclr/v001", "pack/main/v001"],
}
# What may differ: notes say what could not be found any more, and figures of the last row of a log
# are of the steps since a training went on.
AFTER_A_STOP = {"reused", "notes", "summary"}
STOPS = (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class Case:
    """One case: how a command was disturbed, and what is wrong with what it did, if anything."""

    kind: str
    command: str
    what: str
    problem: str
    ended: Ended

    def line(self) -> str:
        """Returns the case in one line."""
        return f"{self.kind}: {self.command}: {self.what}: {self.problem or 'survived'}"


@dataclass(frozen=True)
class Disturbance:
    """What happens to a command, and how it may end.

    Attributes:
        what: in words.
        first: lets it happen; is called in the command's process, with the workspace.
        allowed: returns what is wrong with an end other than the usual one, or an empty text.
        again: type the command again; false: what it needs is gone.
    """

    what: str
    first: Callable[[Path], object]
    allowed: Callable[[Ended], str]
    again: bool = True


@dataclass(frozen=True)
class Bench:
    """A workspace, a place for copies of it, and what its commands give undisturbed."""

    root: Path
    scratch: Path
    reference: Reference

    def events(self, command: str, reading: bool = False) -> int:
        """Returns how many events there are while a command runs undisturbed."""
        counter = failing.Counter()
        with copied(self.root, self.scratch) as case:
            workspace = case / "workspace"
            words = base.COMMANDS[command]
            base.run(case, words, lambda: failing.count_events(counter, workspace, reading))
        return counter.value

    def disturbed(self, kind: str, command: str, number: int) -> Case:
        """Types a command that is disturbed at some place, and then the same one that is not."""
        usual, expected = self.reference.of(command)
        how = KINDS[kind](command, number)
        with copied(self.root, self.scratch) as case:
            words, workspace = base.COMMANDS[command], case / "workspace"
            ended = base.run(case, words, lambda: how.first(workspace))
            problem = _crashed(ended)
            found = result_of(ended, case)
            if not problem and ended.code != usual.code:
                problem = how.allowed(ended)
            elif not problem and command not in base.REPORTS:
                problem = _differs(expected, found)
            if how.again and not problem:
                shutil.rmtree(case / "exported", ignore_errors=True)
                problem = _goes_on(base.run(case, words), case, usual, expected)
            if how.again and not problem and (bad := base.run(case, ("verify",))).code:
                problem = f"then verify: {bad.out[-300:]}"
        return Case(kind, command, how.what, problem, ended)


def _crashed(ended: Ended) -> str:
    if ended.hung:
        return "hangs"
    if "Traceback" in ended.err:
        return f"traceback: {ended.err.strip().splitlines()[-1][:200]}"
    return ""


def _goes_on(ended: Ended, case: Path, usual: Ended, expected: Any) -> str:
    """Returns what is wrong with the second attempt; that it found all done is not."""
    if crashed := _crashed(ended):
        return f"then {crashed}"
    if ended.code != usual.code:
        return f"then exit code {ended.code}: {ended.err[-300:]}"
    differs = _differs(expected, result_of(ended, case))
    return f"then {differs}" if differs else ""


def _differs(expected: Any, found: Any) -> str:
    expected, found = _without_reused(expected), _without_reused(found)
    return "" if found == expected else f"another result: {difference(expected, found)}"


def _without_reused(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_reused(v) for k, v in value.items() if k not in AFTER_A_STOP}
    return [_without_reused(v) for v in value] if isinstance(value, list) else value


# ── what may happen ─────────────────────────────────────────────────────────────────────────────


def _one_sentence(*parts: str) -> Callable[[Ended], str]:
    """Returns a check that a command failed with a sentence that has one of these parts."""

    def check(ended: Ended) -> str:
        last = (ended.err.strip().splitlines() or ["nothing"])[-1]
        fits = ended.code == 1 and any(part in last for part in parts)
        return "" if fits else f"exit code {ended.code}, says {last[:300]}"

    return check


def full_disk(command: str, number: int) -> Disturbance:
    """The disk is full from the N-th change on."""
    return Disturbance(
        f"from change {number} on",
        lambda workspace: failing.fail(number, errno.ENOSPC, True, workspace),
        _one_sentence("disk is full"),
    )


def full_once(command: str, number: int) -> Disturbance:
    """The disk is full at the N-th change, and has space again after it."""
    return Disturbance(
        f"at change {number}",
        lambda workspace: failing.fail(number, errno.ENOSPC, False, workspace),
        _one_sentence("disk is full"),
    )


def failing_disk(command: str, number: int) -> Disturbance:
    """The N-th change is refused: an error of the device, or the disk is read only from then on."""
    code = (errno.EIO, errno.EROFS)[number % 2]
    return Disturbance(
        f"{errno.errorcode[code]} at change {number}",
        lambda workspace: failing.fail(number, code, code == errno.EROFS, workspace),
        _one_sentence("/workspace", "/exported"),
    )


def small_files(command: str, number: int) -> Disturbance:
    """No file may get larger than so many bytes: the kernel refuses, also what C writes."""
    largest = 100 + 400 * number
    return Disturbance(
        f"files of at most {largest} bytes",
        lambda workspace: failing.limit_files(largest),
        _one_sentence("/workspace", "/exported", "disk is full"),
    )


def scheduler(command: str, number: int) -> Disturbance:
    """A signal comes at the N-th change, and the job is queued again."""
    stop = STOPS[number % len(STOPS)]

    def allowed(ended: Ended) -> str:
        codes = {-signal.SIGKILL, 128 + signal.SIGTERM, 128 + signal.SIGUSR1}
        return "" if ended.code in codes else f"exit code {ended.code}"

    return Disturbance(
        f"{stop.name} at change {number}",
        lambda workspace: failing.act_at(number, end_by(stop), workspace),
        allowed,
    )


def removed(command: str, number: int) -> Disturbance:
    """An artifact is removed when the N-th file is opened."""
    parents = PARENTS[command]
    gone = parents[number % len(parents)]

    def first(workspace: Path) -> None:
        def act() -> None:
            shutil.rmtree(workspace / gone, ignore_errors=True)

        failing.act_at(number, act, workspace, reading=True)

    named = _one_sentence(gone, gone.split("/")[0])

    def allowed(ended: Ended) -> str:
        report = command in base.REPORTS and ended.code in (0, 1)  # it tells what it finds
        return "" if report else named(ended)

    return Disturbance(f"{gone} at file {number}", first, allowed, again=False)


def no_locks(command: str, number: int) -> Disturbance:
    """The file system has no locks."""
    code = (errno.ENOLCK, errno.EOPNOTSUPP)[number % 2]
    return Disturbance(
        errno.errorcode[code],
        lambda workspace: failing.without_locks(code),
        _one_sentence("has no file locks"),
    )


KINDS: dict[str, Callable[[str, int], Disturbance]] = {
    "full-disk": full_disk,
    "full-once": full_once,
    "failing-disk": failing_disk,
    "small-files": small_files,
    "scheduler": scheduler,
    "removed": removed,
    "no-locks": no_locks,
}
SIZES = 120  # limits of files that are tried


def places(bench: Bench, kind: str) -> Iterator[tuple[str, int]]:
    """Yields the commands that a kind is tried on, each with all places where it can happen."""
    commands = {"removed": list(PARENTS), "no-locks": [*WRITERS, *READ_ONLY]}.get(kind, WRITERS)
    for command in commands:
        if kind == "no-locks":
            count = 2
        elif kind == "small-files":
            count = SIZES
        else:
            count = bench.events(command, reading=kind == "removed")
        for number in range(count):
            yield command, number


def try_all(kinds: Sequence[str], every: int) -> Iterator[Case]:
    """Builds a workspace and yields the cases of some kinds."""
    with prepared() as (root, scratch, reference):
        bench = Bench(root, scratch, reference)
        for kind in kinds:
            for turn, (command, number) in enumerate(places(bench, kind)):
                if turn % every == 0:
                    yield bench.disturbed(kind, command, number)


def main() -> None:
    """Tries the cases that were asked for, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", default=list(KINDS), metavar="KIND")
    parser.add_argument("--every", type=int, default=1, help="only one place of so many")
    parser.add_argument("--wall", type=float, default=60, help="seconds after which one hangs")
    given = parser.parse_args()
    forked_commands.patience = given.wall
    counts: dict[str, Counter[bool]] = {}
    for case in try_all(given.kinds, given.every):
        counts.setdefault(case.kind, Counter())[not case.problem] += 1
        if case.problem:
            print(case.line(), flush=True)
    print("| what failed | cases | survived |\n|---|---|---|")
    for name, row in counts.items():
        print(f"| {name} | {row.total()} | {row[True]} |")
    sys.exit(any(row[False] for row in counts.values()))


if __name__ == "__main__":
    main()
