"""Progress bars: rate and remaining time of this process's own work; what narrow terminals show."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from vidssl.cli import progress_bars
from vidssl.cli.progress_bars import FittedBars, PlainProgress, RichProgress, make_progress


class Clock:
    """Stands in for the time module: a second passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress_bars, "time", made)
    return made


def timed(total: int | None = 10_000, done: int = 0) -> progress_bars._Timed:
    return progress_bars._Timed("training", total, "step", done)


def test_a_resumed_run_counts_its_own_steps_only(clock):
    task = timed(done=9_000)
    assert task.left_text() == ""  # nothing was done yet, so nothing can be told
    for _ in range(2):
        clock.now += 2
        task.count(1, {})
    assert task.rate == 0.5
    assert task.left_text() == "33:16 left"  # 998 steps of 2 s


def test_results_that_come_all_at_once_took_the_time_since_the_beginning(clock):
    task = timed(total=80)
    clock.now += 10
    for _ in range(8):  # of eight processes
        task.count(1, {})
        clock.now += 0.001
    assert task.rate == pytest.approx(0.8, rel=0.01)
    assert task.left_text() == "1:30 left"


def test_the_rate_is_that_of_the_last_minute(clock):
    task = timed()
    for _ in range(100):  # slow for 200 seconds
        clock.now += 2
        task.count(1, {})
    for _ in range(700):  # then fast for 70
        clock.now += 0.1
        task.count(1, {})
    assert task.rate == pytest.approx(10, rel=0.05)
    assert task.average == pytest.approx(800 / 270)
    assert len(task._samples) < 70


def test_a_slow_unit_still_has_a_rate(clock):
    task = timed()
    for _ in range(3):  # each longer than the span of the rate
        clock.now += 300
        task.count(1, {})
    assert task.rate == pytest.approx(1 / 300)


def test_figures_alone_are_no_progress(clock):
    task = timed(done=5)
    clock.now += 3
    task.count(0, {"loss": 1.0})
    assert task.rate == 0 and task.left_text() == ""


def test_both_ways_of_showing_say_the_same(clock):
    for kind in (PlainProgress, RichProgress):
        out = io.StringIO()
        shown = kind(Console(file=out, width=150, force_terminal=kind is RichProgress))
        with shown.task("training", 1000, "step", 900) as task:
            clock.now += 20
            task.advance(10, loss=2.0)
        assert "910" in out.getvalue() and "0.5 steps/s" in out.getvalue()
        assert "3:00 left" in out.getvalue() and "loss 2" in out.getvalue()


def test_work_that_failed_before_it_began_has_no_last_line():
    out = io.StringIO()
    shown = PlainProgress(Console(file=out, width=150))
    with pytest.raises(ValueError), shown.task("training", 1000, "step", 900):
        raise ValueError
    assert out.getvalue() == ""
    with pytest.raises(ValueError), shown.task("training", 1000, "step", 900) as task:
        task.advance()
        raise ValueError
    assert out.getvalue().startswith("training: 901 steps, 1 of them now in")


@pytest.mark.parametrize(
    "before, now, said",
    [
        (0, 55, "training: 55 steps in 0:16, 3.44 steps/s"),
        (39, 16, "training: 55 steps, 16 of them now in 0:16, 1 steps/s"),
        (55, 0, "training: 55 steps, none of them now"),
    ],
)
def test_the_last_line_tells_this_process_s_work_from_what_lay_behind(clock, before, now, said):
    out = io.StringIO()
    with PlainProgress(Console(file=out)).task("training", 55, "step", before) as task:
        clock.now += 16
        if now:
            task.advance(now)
    assert out.getvalue().splitlines()[-1] == said


@pytest.mark.parametrize(
    "rate, said",
    [(0.5284, "0.528"), (999.4, "999"), (999.6, "1,000"), (1010.4, "1,010"), (2.5e6, "2,500,000")],
)
def test_large_rates_have_all_their_digits(rate, said):
    assert timed().rate_text(rate) == f"{said} steps/s"


def test_quiet_says_nothing():
    out = io.StringIO()
    with make_progress(Console(file=out), quiet=True).task("x", 1, "step") as task:
        task.advance()
    assert out.getvalue() == ""


# ── narrow terminals ─────────────────────────────────────────────────────────────────────────

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
    bars = FittedBars(console=console)
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
