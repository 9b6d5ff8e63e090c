"""What needs no learning stands beside every result on the same pack and split."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_workspace import vidssl
from small_workspace import annotate, make_checkpoint, make_pack

from vidssl.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Workspace(tmp_path_factory.mktemp("beside") / "w")
    pack = make_pack(made, [n % 3 for n in range(18)])
    parts = [["test" if n % 6 in (first, 5) else "train" for n in range(18)] for first in (0, 1)]
    table = annotate(made, pack, splits={"one": parts[0], "two": parts[1]})
    make_checkpoint(made, pack, table, split="one")
    return made.root


def test_baselines_are_shown_beside_once_they_are_measured(place: Path):
    retrieve, probe = ["retrieve", "--evaluate"], ["probe", "--set", "epochs=2"]
    before = vidssl(*retrieve, workspace=place)
    assert "vidssl baselines measures what needs no learning" in before.out
    assert "baselines" not in vidssl(*retrieve, "--json", workspace=place).json
    measured = vidssl("baselines", "--split", "one", "--json", workspace=place).json
    wanted = {one["results"]["features"]: one for one in measured}
    shown = vidssl(*retrieve, "--json", workspace=place).json["baselines"]
    assert {each["features"] for each in shown} == set(wanted)
    for each in shown:
        results = wanted[each["features"]]["results"]
        assert each["recall"] == results["recall"][0]["recall"]
        assert each["precision"] == results["precision"]["mean"] and each["top1"] is None
    assert "colour-histogram" in vidssl(*retrieve, workspace=place).out
    probed = vidssl(*probe, "--json", workspace=place).json["baselines"]
    assert {each["features"]: each["top1"] for each in probed} == {
        name: one["probe"]["results"]["top1"] for name, one in wanted.items()
    }


def test_baselines_of_another_split_are_not(place: Path):
    vidssl("baselines", "--split", "one", workspace=place)
    other = vidssl("retrieve", "--evaluate", "--split", "two", "--json", workspace=place).json
    assert other["results"]["split"] == "two" and "baselines" not in other
