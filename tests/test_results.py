"""docs/results.md says what the kept artifacts say, and those agree with themselves."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from vidssl.stages import demo

DOCS = Path(__file__).parent.parent / "docs"
spec = importlib.util.spec_from_file_location("results_tables", DOCS / "results_tables.py")
tables = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tables)

ARCHIVES = sorted(tables.ARCHIVES.glob("*.tar.xz"))


def test_the_page_is_what_the_artifacts_give():
    page = tables.PAGE.read_text()
    assert tables.filled(page) == page, "run: python docs/results_tables.py write"


def test_the_readme_has_the_figures_of_the_page():
    rows = re.findall(r"^\| ([^|]*) \| ([\d.]+) \|", demo_table(), re.MULTILINE)
    mean = dict(rows)
    flow, coclr = mean["InfoNCE flow"], mean["CoCLR RGB, 38 epochs after InfoNCE's 38"]
    infonce, untrained = mean["InfoNCE RGB, 76 epochs"], mean["untrained RGB"]
    said = re.findall(r"(\d+\.\d) %", (DOCS.parent / "README.md").read_text())
    assert said == [coclr, infonce, untrained, mean["chance"], flow]


def demo_table() -> str:
    page = tables.PAGE.read_text()
    return page.partition("<!-- begin demo -->")[2].partition("<!-- end demo -->")[0]


def test_the_demo_calls_its_trainings_as_the_page_does_in_the_same_order():
    titles = demo.titles(demo.DemoOptions())
    on_page = {title: name for title, name in tables.DEMO_ROWS.items() if name in titles}
    assert list(on_page.items()) == [(title, name) for name, title in titles.items()]


def test_there_are_the_archives_of_all_seeds_and_of_jhmdb():
    assert {"jhmdb-split1.tar.xz"} | {f"demo-seed{s}.tar.xz" for s in tables.DEMO_SEEDS} <= {
        path.name for path in ARCHIVES
    }


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.stem)
def test_counted_again_the_hits_are_those_recorded(archive):
    files = tables.read(archive)
    names = sorted({name.split("/")[1] for name in files if name.startswith("retrieval/")})
    for name in names:
        score = tables.score(files, name)
        recorded = json.loads(files[f"retrieval/{name}/results.json"])
        assert score.queries == recorded["queries"]
        by_k = {row["k"]: row["recall"] for row in recorded["recall"]}
        assert score.recall1 == pytest.approx(by_k[1])
        assert score.recall5 == pytest.approx(by_k[5])
        if score.probe is not None:
            probed = json.loads(files[f"probe/{name}/results.json"])
            assert score.probe == pytest.approx(probed["top1"])


@pytest.mark.parametrize("name", ["baseline-colour-histogram", "baseline-mean-frame"])
@pytest.mark.parametrize("seed", tables.DEMO_SEEDS)
def test_the_demos_appearance_is_within_two_standard_errors_of_chance(seed, name):
    files = tables.read(tables.ARCHIVES / f"demo-seed{seed}.tar.xz")
    score = tables.score(files, name)
    error = tables.standard_error(score.chance, score.queries)
    assert abs(score.recall1 - score.chance) <= 2 * error


@pytest.mark.parametrize("seed", tables.DEMO_SEEDS)
def test_the_demo_was_run_with_the_seed_it_says(seed):
    files = tables.read(tables.ARCHIVES / f"demo-seed{seed}.tar.xz")
    artifact = json.loads(files["probe/rgb-coclr/artifact.json"])
    assert artifact["kind"] == "probe"
    assert artifact["vidssl"] == "artifact"
