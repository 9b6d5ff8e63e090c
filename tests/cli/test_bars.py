"""Lines of progress on screens of any width: what is cut, in which order, and what never is."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from vidssl.cli.bars import Bars

# As of two trainings of the demo: one name begins with the other.
SHORT = {"description": "rgb-infonce", "total": 84, "completed": 67}
LONG = {"description": "rgb-infonce-long", "total": 1500, "completed": 150}
BAR = "━━"


def fields(rate: str = "0.528 steps/s", left: str = "4:37 left") -> dict:
    figures = ["epoch 13", "loss 4.03", "top1 0.422", "knn 0.169"]
    return {"rate": rate, "left": left, "figures": figures}


def drawn(width: int, *tasks: dict) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width)
    bars = Bars(console=console)
    for task in tasks:
        bars.add_task(**(fields() | task))
    console.print(bars.get_renderable())
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("tasks", [(SHORT,), (LONG,), (LONG, SHORT)])
def test_name_count_and_time_left_are_whole_on_any_screen(width, tasks):
    lines = drawn(width, *tasks)
    assert len(lines) == len(tasks)
    for line, task in zip(lines, tasks, strict=True):
        assert len(line) <= width and "…" not in line
        assert re.match(rf"\S {task['description']} ", line)
        assert f" {task['completed']}/{task['total']} " in line
        assert "4:37 left" in line
        shown = line.partition("4:37 left")[2].strip()
        known = fields()["figures"]
        assert shown in ["  ".join(known[:n]) for n in range(len(known) + 1)]


def test_figures_go_first_the_last_one_first_then_the_bar_then_the_rate():
    seen = []
    for width in range(140, 30, -1):
        (line,) = drawn(width, LONG)
        what = [f.split()[0] for f in fields()["figures"] if f in line]
        what += ["bar"] * (BAR in line) + ["rate"] * ("0.528 steps/s" in line)
        if not seen or seen[-1] != what:
            seen.append(what)
        if not what:
            break
    assert seen == [
        ["epoch", "loss", "top1", "knn", "bar", "rate"],
        ["epoch", "loss", "top1", "bar", "rate"],
        ["epoch", "loss", "bar", "rate"],
        ["epoch", "bar", "rate"],
        ["bar", "rate"],
        ["rate"],
        [],
    ]


def test_a_name_too_long_for_the_screen_goes_on_in_the_next_line():
    name = "checkpoint-of-a-run-with-a-long-name: embed rgb"
    first, *more = drawn(40, LONG | {"description": name})
    assert "150/1500" in first and "4:37 left" in first
    folded = first.partition(" ")[2].partition("  150/")[0].strip()
    assert "".join([folded, *map(str.strip, more)]).replace(" ", "") == name.replace(" ", "")


def test_work_without_an_end_or_a_rate_yet():
    (line,) = drawn(60, fields("", "") | {"description": "count", "total": None, "figures": ()})
    assert "count" in line and "0/?" in line


def test_a_name_that_looks_like_markup_is_shown_as_it_is():
    (line,) = drawn(80, LONG | {"description": "[bold]run"})
    assert "[bold]run" in line
