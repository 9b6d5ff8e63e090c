"""The bench of what grows with the number of videos runs."""

import pytest
from benchmarks import scale


@pytest.mark.slow
def test_the_bench_of_scale_prints_a_row_for_each_number_of_videos(capsys):
    scale.main(["--videos", "70", "96"])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split("|")[1:3] for row in rows] == [[" 70 ", " 2 "], [" 96 ", " 3 "]]


def test_the_bench_of_the_start_names_what_takes_time(capsys):
    scale.main(["--start", "64"])
    out = capsys.readouterr().out
    assert "plan: index, labels, split" in out and "first batch of a run resumed" in out
