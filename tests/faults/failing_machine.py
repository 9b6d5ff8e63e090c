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
# What differs where a command was stopped in between: figures of the last row of a log are of the
# steps since it went on.
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
            base.run(
                case,
                base.COMMANDS[command],
                lambda: failing.count_events(counter, workspace, reading),
            )
        return counter.value

    def disturbed(
        self,
        kind: str,
        command: str,
        what: str,
        first: Callable[[Path], object],
        allowed: Callable[[Ended], str],
        again: bool = True,
    ) -> Case:
        """Types a command that is disturbed, and then the same one that is not.

        Args:
            first: disturbs the process; it gets the workspace.
            allowed: returns what is wrong with how the command ended.
            again: type it again; false: what it needs is gone.
        """
        usual, expected = self.reference.of(command)
        with copied(self.root, self.scratch) as case:
            words, workspace = base.COMMANDS[command], case / "workspace"
            ended = base.run(case, words, lambda: first(workspace))
            problem = _crashed(ended)
            same = ended.code == usual.code and result_of(ended, case) == expected
            report = command in base.REPORTS  # which tells what is there
            if not problem and not same and ended.code == usual.code and not report:
                problem = f"another result: {difference(expected, result_of(ended, case))}"
            elif not problem and not same:
                problem = allowed(ended)
            if again and not problem:
                shutil.rmtree(case / "exported", ignore_errors=True)
                problem = _goes_on(base.run(case, words), case, usual, expected)
            if again and not problem and (bad := base.run(case, ("verify",))).code:
                problem = f"then verify: {bad.out[-300:]}"
        return Case(kind, command, what, problem, ended)


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
    found = result_of(ended, case)
    if _without_reused(found) != _without_reused(expected):
        return f"then {difference(_without_reused(expected), _without_reused(found))}"
    return ""


def _without_reused(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_reused(v) for k, v in value.items() if k not in AFTER_A_STOP}
    return [_without_reused(v) for v in value] if isinstance(value, list) else value


# ── what may happen ─────────────────────────────────────────────────────────────────────────────


def full_disk(bench: Bench, every: int) -> Iterator[Case]:
    """The disk is full from the N-th change on, or at the N-th change alone."""

    def allowed(ended: Ended) -> str:
        return "" if ended.code == 1 and "disk is full" in ended.err else f"says {_last(ended)}"

    for command in WRITERS:
        for number in range(0, bench.events(command), every):
            for lasting in (True, False):
                yield bench.disturbed(
                    "full disk",
                    command,
                    f"change {number}{' and after' if lasting else ''}",
                    lambda ws, n=number, la=lasting: failing.fail(n, errno.ENOSPC, la, ws),
                    allowed,
                )


def failing_disk(bench: Bench, every: int) -> Iterator[Case]:
    """The N-th change is refused: an error of the device, or a file system that is read only."""

    def allowed(ended: Ended) -> str:
        return "" if ended.code == 1 and "/workspace" in ended.err else f"says {_last(ended)}"

    for command in WRITERS:
        for number in range(0, bench.events(command), every):
            code = (errno.EIO, errno.EROFS)[number % 2]
            yield bench.disturbed(
                "failing disk",
                command,
                f"{errno.errorcode[code]} at change {number}",
                lambda ws, n=number, c=code: failing.fail(n, c, c == errno.EROFS, ws),
                allowed,
            )


def scheduler(bench: Bench, every: int) -> Iterator[Case]:
    """A signal comes at the N-th change, and the job is queued again."""

    def allowed(ended: Ended) -> str:
        codes = {-signal.SIGKILL, 128 + signal.SIGTERM, 128 + signal.SIGUSR1}
        return "" if ended.code in codes else f"exit code {ended.code}: {_last(ended)}"

    for command in WRITERS:
        for number in range(0, bench.events(command), every):
            stop = STOPS[number // every % len(STOPS)]
            yield bench.disturbed(
                "scheduler",
                command,
                f"{stop.name} at change {number}",
                lambda ws, n=number, s=stop: failing.act_at(n, end_by(s), ws),
                allowed,
            )


def removed(bench: Bench, every: int) -> Iterator[Case]:
    """An artifact is removed when the N-th file is opened."""

    for command, parents in PARENTS.items():
        events = bench.events(command, reading=True)
        for number in range(0, events, every):
            parent = parents[number // every % len(parents)]

            def remove(workspace: Path, n: int = number, gone: str = parent) -> None:
                act = lambda: shutil.rmtree(workspace / gone, ignore_errors=True)  # noqa: E731
                failing.act_at(n, act, workspace, reading=True)

            def allowed(ended: Ended, command: str = command, gone: str = parent) -> str:
                if command in base.REPORTS:
                    return ""
                named = any(part in ended.err for part in (gone, gone.split("/")[0]))
                return "" if ended.code == 1 and named else f"says {_last(ended)}"

            yield bench.disturbed(
                "removed", command, f"{parent} at file {number}", remove, allowed, again=False
            )


def no_locks(bench: Bench, every: int) -> Iterator[Case]:
    """The file system has no locks."""

    def allowed(ended: Ended) -> str:
        return "" if ended.code == 1 and "no file locks" in ended.err else f"says {_last(ended)}"

    for number, command in enumerate([*WRITERS, *READ_ONLY]):
        if number % every == 0:
            code = (errno.ENOLCK, errno.EOPNOTSUPP)[number % 2]
            yield bench.disturbed(
                "no locks",
                command,
                errno.errorcode[code],
                lambda ws, c=code: failing.without_locks(c),
                allowed,
            )


def _last(ended: Ended) -> str:
    return (ended.err.strip().splitlines() or ["nothing"])[-1][:300]


KINDS: dict[str, Callable[[Bench, int], Iterator[Case]]] = {
    "full-disk": full_disk,
    "failing-disk": failing_disk,
    "scheduler": scheduler,
    "removed": removed,
    "no-locks": no_locks,
}


def try_all(kinds: Sequence[str], every: int) -> Iterator[Case]:
    """Builds a workspace and yields the cases of some kinds."""
    with prepared() as (root, scratch, reference):
        for kind in kinds:
            yield from KINDS[kind](Bench(root, scratch, reference), every)


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
        counts.setdefault(f"{case.kind}: {case.command}", Counter())[not case.problem] += 1
        if case.problem:
            print(case.line(), flush=True)
    print("| what failed | cases | survived |\n|---|---|---|")
    for name, row in counts.items():
        print(f"| {name} | {row.total()} | {row[True]} |")
    sys.exit(any(row[False] for row in counts.values()))


if __name__ == "__main__":
    main()
