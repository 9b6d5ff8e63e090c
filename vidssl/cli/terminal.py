"""Prints a command's result, progress and notes: results on stdout, the rest on stderr."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from vidssl.base.errors import VidsslError
from vidssl.base.progress import Progress
from vidssl.base.signals import work_begins
from vidssl.base.text import counted
from vidssl.base.typed_settings import flat
from vidssl.cli.console import PlainConsole, progress_console
from vidssl.cli.progress_bars import make_progress
from vidssl.cli.tables import fitted, forecast_table
from vidssl.workspace.stage_result import PartReport, StageResult
from vidssl.workspace.summaries import COLLAPSED, LITTLE, headline
from vidssl.workspace.workspace import Workspace

Result = TypeVar("Result")

QUARANTINED = 3
MOST_QUARANTINED_SHOWN = 10


@dataclass(frozen=True)
class Terminal:
    """What one command works in and prints to.

    Attributes:
        json: print the result as JSON, and nothing else to stdout.
        quiet: show no progress.
        silent: print nothing; so it is in all processes of a distributed run but the first.
    """

    workspace: Workspace
    json: bool
    quiet: bool
    silent: bool = False

    @classmethod
    def open(cls, workspace: Path, json: bool, quiet: bool, damaged: bool = False) -> Terminal:
        """Opens a workspace, whose folder is made with its first artifact."""
        first = os.environ.get("RANK", "0") == "0"
        return cls(Workspace(workspace, damaged), json, quiet or not first, silent=not first)

    def run(self, stage: Callable[[Workspace, Any, Progress], Result], options: Any) -> Result:
        """Runs a stage in the workspace, with its progress shown."""
        work_begins()
        return stage(self.workspace, options, make_progress(progress_console(), self.quiet))

    def show(self, renderable: RenderableType) -> None:
        """Prints to stdout, unless the result is wanted as JSON."""
        if not self.json and not self.silent:
            console = PlainConsole(soft_wrap=isinstance(renderable, str | Text))
            console.print(fitted(renderable, console), crop=False)

    def json_out(self, value: Mapping[str, Any] | list[Any]) -> None:
        """Prints one JSON document, when that is wanted."""
        if self.json and not self.silent:
            print(json.dumps(value, indent=1, default=str), flush=True)

    def finish(self, result: StageResult, next_command: Callable[[], str]) -> None:
        """Prints a stage's result, and exits with 3 when it left videos out.

        Args:
            next_command: returns the command to type next, or an empty text; called only if the
                command is shown.
        """
        if self.silent and result.part is not None:  # each process reports its own part
            return replace(self, silent=False).finish(result, next_command)
        self.json_out(result.as_dict())
        self.outline(result)
        self.propose(result, next_command)
        # torchrun takes every code but 0 for a failure, and then ends the other processes.
        under_torchrun = int(os.environ.get("WORLD_SIZE", "1")) > 1
        if result.quarantined and not under_torchrun:
            raise typer.Exit(QUARANTINED)

    def propose(self, result: StageResult, next_command: Callable[[], str]) -> None:
        """Prints the command to type next, if there is one."""
        if result.artifact is None or self.json or self.silent:
            return
        command = ""
        with suppress(VidsslError):  # this command succeeded, whatever else is in the workspace
            command = next_command()
        if command:
            self.show(Text.assemble(("next: ", "dim"), command, self._elsewhere()))

    def _elsewhere(self) -> str:
        """Returns the option that names this workspace, or nothing where it is the default."""
        usual = os.environ.get("VIDSSL_WORKSPACE", "vidssl-workspace")
        return "" if str(self.workspace.root) == usual else f" -w {quote(str(self.workspace.root))}"

    def _warn_of_newer(self, result: StageResult) -> None:
        """Warns when the artifact that was found again is not the one that later stages take."""
        artifact = result.artifact
        if not result.reused or artifact is None or artifact.kind not in ("flow", "pack"):
            return
        newest = self.workspace.newest(artifact.kind)
        if newest is not None and newest.digest != artifact.digest:
            self.show(Text(
                f"{newest.label} is newer, and later stages take it unless told otherwise; "
                "--new makes this one the newest again", style="yellow"
            ))  # fmt: skip

    def notes(self, sentences: Sequence[str]) -> None:
        """Prints sentences that the user should read about a result."""
        for sentence in sentences:
            self.show(Text(f"note: {sentence}", style="yellow"))

    def left_out(self, quarantined: Sequence[tuple[str, str]]) -> None:
        """Lists videos that could not be used, and exits with 3 if there are any."""
        self._list_quarantined(quarantined)
        if quarantined:
            raise typer.Exit(QUARANTINED)

    def _list_quarantined(self, quarantined: Sequence[tuple[str, str]]) -> None:
        for video, reason in quarantined[:MOST_QUARANTINED_SHOWN]:
            self.show(Text.assemble(("left out: ", "yellow"), f"{video}: {reason}"))
        more = len(quarantined) - MOST_QUARANTINED_SHOWN
        if more > 0:
            self.show(Text(f"… and {more} more, listed in quarantine.csv", style="yellow"))

    def outline(self, result: StageResult) -> None:
        """Prints one line on the artifact, and tables of a plan or of quarantined videos."""
        if result.plan is not None and "forecast" in result.plan:
            from vidssl.training.trial_steps import Forecast

            self.show(forecast_table(result.plan, Forecast(**result.plan["forecast"])))
            self.notes(result.notes)
        elif result.plan is not None:
            self.show(plan_table(result.plan))
        self._list_quarantined(result.quarantined)
        if result.artifact is None and result.part is not None:
            self.show(part_line(result.part, result.reused))
        if result.artifact is not None:
            self.show(artifact_line(result))
            for key in (COLLAPSED, LITTLE):
                if said := result.artifact.summary.get(key):
                    self.show(Text(said, style="yellow"))
            self._warn_of_newer(result)


def artifact_line(result: StageResult) -> Text:
    """Returns one line: the artifact, whether it was finished before, its figures."""
    artifact = result.artifact
    assert artifact is not None
    what = f" ({_as_before(result)})" if result.reused else ""
    figures = headline(artifact)
    doubtful = artifact.summary.keys() & {COLLAPSED, LITTLE}
    mark = ("⚠ ", "yellow") if doubtful else ("✓ ", "green")
    return Text.assemble(mark, (artifact.label, "bold"), f"{what}  ", (figures, "dim"))


def _as_before(result: StageResult) -> str:
    """Says that nothing was done, and what can be done for videos that were left out."""
    videos = counted(len(result.quarantined), "video")
    if result.in_vain:
        return f"as before: of {videos} left out not one can be used now"
    again = f"; {videos} left out: --retry-quarantined tries again" if result.quarantined else ""
    return f"finished before, nothing to do{again}"


def part_line(part: PartReport, reused: bool) -> Text:
    """Returns one line: the part, how many videos it did, how many parts are unfinished."""
    what = "was finished before" if reused else counted(part.videos, "video")
    left = f"{counted(part.unfinished, 'part')} to go; the last one publishes {part.run}"
    return Text.assemble(("✓ ", "green"), (f"part {part.part}", "bold"), f"  {what}, ", left)


def plan_table(plan: Mapping[str, Any]) -> Table:
    """Returns a dry run's plan as a table, nested fields with dots."""
    table = Table("setting", title="plan (nothing was done)", title_justify="left")
    table.add_column("value", overflow="fold")
    for name, value in flat(plan):
        table.add_row(name, _short(value))
    return table


def _short(value: Any) -> str:
    """Returns a value as a few characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
