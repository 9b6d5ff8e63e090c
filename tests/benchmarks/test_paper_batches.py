"""The count of what batches cost on paper: what is known beforehand comes out."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="needs Triton")

from benchmarks import paper_batches as bench

CLIP = 3 * 32 * 128 * 128  # values of a clip of film


def figures(out: str) -> dict[tuple[str, ...], list[float]]:
    rows = [[cell.strip(" *") for cell in row.split("|")[1:-1]] for row in out.splitlines()[2:]]
    return {
        tuple(row[:4]): [float(cell.replace(",", "").replace("–", "nan")) for cell in row[4:]]
        for row in rows
    }


@pytest.mark.slow
def test_kernels_move_a_twentieth(capsys):
    bench.main(["--samples", "8"])
    found = figures(capsys.readouterr().out)
    assert len(found) == 16
    for size in ("171×128", "340×256"):
        for policy in ("truthful", "coclr"):
            plain, kernels = (found[size, policy, "rgb", w] for w in ("operations", "kernels"))
            assert 20 * kernels[0] < plain[0] and 5 * kernels[1] < plain[1]
            assert plain[2] > 0
            # At the least clips are written as bytes, read, and written as floats.
            assert kernels[0] > 2 * (CLIP + CLIP + 4 * CLIP) / 1e6
        plain, kernels = (found[size, "truthful", "flow", w] for w in ("operations", "kernels"))
        assert 3 * kernels[0] < plain[0] and plain[2] == 0
