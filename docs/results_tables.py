"""Makes the tables of docs/results.md from artifacts, so that no figure is typed by hand.

    python docs/results_tables.py collect WORKSPACE docs/results/NAME.tar.xz
    python docs/results_tables.py write

`collect` keeps the evaluation artifacts of a workspace (retrieval and probe: recipe, every query's
neighbours, every prediction). `write` counts hits in them again and fills in the tables between
the markers of docs/results.md. tests/test_results.py holds that both agree.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

HERE = Path(__file__).resolve().parent
PAGE = HERE / "results.md"
ARCHIVES = HERE / "results"
KEPT = ("artifact.json", "results.json", "neighbours.csv", "predictions.csv")

DEMO_SEEDS = (0, 1, 2)
DEMO_ROWS = {
    "colour histogram": "baseline-colour-histogram",
    "mean frame": "baseline-mean-frame",
    "untrained RGB": "baseline-random-rgb-tiny",
    "untrained flow": "baseline-random-flow-tiny",
    "InfoNCE flow": "flow-infonce",
    "InfoNCE RGB, 10 epochs": "rgb-infonce",
    "InfoNCE RGB, 40 epochs": "rgb-infonce-long",
    "CoCLR RGB, 30 epochs after InfoNCE's 10": "rgb-coclr",
}
JHMDB_ROWS = {
    "colour histogram": "baseline-colour-histogram",
    "mean frame": "baseline-mean-frame",
    "histogram of optical flow": "baseline-flow-histogram",
    "random init RGB": "baseline-random-rgb-tiny",
    "random init flow": "baseline-random-flow-tiny",
    "InfoNCE RGB": "rgb-infonce",
    "InfoNCE flow": "flow-infonce",
    "CoCLR RGB": "rgb-coclr",
    "CoCLR flow": "flow-coclr",
}


@dataclass(frozen=True)
class Score:
    """What one kind of feature reached: shares of `queries` test videos; `probe` may be None."""

    recall1: float
    recall5: float
    queries: int
    chance: float
    probe: float | None


# ── from artifacts to shares ─────────────────────────────────────────────────────────────────


def collect(workspace: Path, archive: Path) -> None:
    """Puts the newest evaluation artifact of every name into one compressed archive."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:xz", preset=9) as file:
        for kind in ("retrieval", "probe"):
            for shelf in sorted((workspace / kind).iterdir()):
                newest = max(p for p in shelf.iterdir() if p.name.startswith("v"))
                for name in KEPT:
                    if (newest / name).exists():
                        member = tarfile.TarInfo(f"{kind}/{shelf.name}/{name}")
                        data = (newest / name).read_bytes()
                        member.size = len(data)  # no time, owner or mode: the same bytes each time
                        file.addfile(member, io.BytesIO(data))


def read(archive: Path) -> dict[str, str]:
    """Gives {KIND/NAME/FILE: text} of an archive."""
    with tarfile.open(archive) as file:
        return {m.name: file.extractfile(m).read().decode() for m in file.getmembers()}


def score(files: dict[str, str], name: str) -> Score:
    """Counts one feature's hits again, from its neighbours and predictions."""
    ranks = defaultdict(list)
    label = {}
    for row in csv.DictReader(io.StringIO(files[f"retrieval/{name}/neighbours.csv"])):
        label[row["query"]] = row["label"]
        ranks[row["query"]].append((int(row["rank"]), row["neighbour_label"]))

    def recall(k: int) -> float:
        hit = [any(r <= k and n == label[q] for r, n in found) for q, found in ranks.items()]
        return mean(hit)

    said = json.loads(files[f"retrieval/{name}/results.json"])["recall"]
    chance = next(row["chance"] for row in said if row["k"] == 1)
    predictions = files.get(f"probe/{name}/predictions.csv")
    probe = None
    if predictions is not None:
        rows = list(csv.DictReader(io.StringIO(predictions)))
        probe = mean(row["label"] == row["class_1"] for row in rows)
    return Score(recall(1), recall(5), len(label), chance, probe)


def standard_error(share: float, queries: int) -> float:
    """Gives the binomial standard error of a share."""
    return (share * (1 - share) / queries) ** 0.5


# ── from shares to tables ────────────────────────────────────────────────────────────────────


def percent(share: float | None) -> str:
    """Gives a share in per cent."""
    return "–" if share is None else f"{100 * share:.1f}"


def jhmdb_table() -> str:
    """Gives the table of JHMDB's 11 classes, split 1."""
    files = read(ARCHIVES / "jhmdb-split1.tar.xz")
    lines = ["| features | R@1 | R@5 | linear probe top-1 |", "|---|---|---|---|"]
    for shown, name in JHMDB_ROWS.items():
        s = score(files, name)
        error = percent(standard_error(s.recall1, s.queries))
        lines.append(
            f"| {shown} | {percent(s.recall1)} ± {error} | {percent(s.recall5)} "
            f"| {percent(s.probe)} |"
        )
    return "\n".join(lines)


def demo_scores() -> dict[str, list[Score]]:
    """Gives each row of the demo's table, one score per seed."""
    archives = [read(ARCHIVES / f"demo-seed{seed}.tar.xz") for seed in DEMO_SEEDS]
    return {shown: [score(files, name) for files in archives] for shown, name in DEMO_ROWS.items()}


def demo_table() -> str:
    """Gives the demo's table: R@1 per seed, the mean over seeds, and CoCLR minus InfoNCE."""
    scores = demo_scores()
    head = " | ".join(f"R@1, seed {seed}" for seed in DEMO_SEEDS)
    lines = [
        f"| features | {head} | R@1, mean | linear probe, mean |",
        "|---|" + "---|" * (len(DEMO_SEEDS) + 2),
    ]
    for shown, row in scores.items():
        cells = " | ".join(percent(s.recall1) for s in row)
        probes = [s.probe for s in row if s.probe is not None]
        probed = percent(mean(probes)) if probes else "–"
        lines.append(f"| {shown} | {cells} | {percent(mean(s.recall1 for s in row))} | {probed} |")
    chance = scores["mean frame"][0].chance
    lines.append(f"| chance | {' | '.join([percent(chance)] * (len(DEMO_SEEDS) + 2))} |")
    return "\n".join(lines)


def demo_difference() -> str:
    """Gives CoCLR minus InfoNCE on RGB: per seed, mean, spread over seeds."""
    scores = demo_scores()
    (coclr,) = (row for shown, row in scores.items() if shown.startswith("CoCLR"))
    lines = []
    for shown in ("InfoNCE RGB, 10 epochs", "InfoNCE RGB, 40 epochs"):
        gains = [
            100 * (after.recall1 - before.recall1)
            for after, before in zip(coclr, scores[shown], strict=True)
        ]
        each = ", ".join(f"{gain:+.1f}" for gain in gains)
        lines.append(
            f"- CoCLR minus {shown}, R@1: {each} points; mean {mean(gains):+.1f}, "
            f"standard deviation over seeds {stdev(gains):.1f}."
        )
    return "\n".join(lines)


TABLES = {"jhmdb": jhmdb_table, "demo": demo_table, "demo difference": demo_difference}


def filled(page: str) -> str:
    """Gives the page with every table made anew."""
    for name, make in TABLES.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}\n{make()}\n{end}{after}"
    return page


def main() -> None:
    """Runs `collect` or `write`."""
    if sys.argv[1:2] == ["collect"] and len(sys.argv) == 4:
        collect(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1:] == ["write"]:
        PAGE.write_text(filled(PAGE.read_text()))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
