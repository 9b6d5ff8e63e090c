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
from functools import partial
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
    "InfoNCE RGB, 7 epochs": "rgb-infonce",
    "InfoNCE RGB, 28 epochs": "rgb-infonce-long",
    "CoCLR RGB, 21 epochs after InfoNCE's 7": "rgb-coclr",
}
SPLITS = ("split1", "split2", "split3")
VIEWS = ("rgb", "flow", "both")
HAND_MADE = {
    "colour histogram": ("rgb", "baseline-colour-histogram"),
    "mean frame": ("rgb", "baseline-mean-frame"),
    "histogram of optical flow": ("flow", "baseline-flow-histogram"),
}
METHODS_BY_STAGE = {
    "InfoNCE": "infonce",
    "UberNCE (sees labels)": "ubernce",
    "CMC": "cmc",
    "CoCLR, k 5": "coclr",
    "ViCC single, 100 prototypes": "vicc",
    "ViCC cross, 100 prototypes": "vicc-cross",
    "CPC": "cpc",
    "CoCon": "cocon",
}
ABLATIONS = {
    "CoCLR: no cycle (InfoNCE)": "infonce",
    "CoCLR: k 1": "coclr-k1",
    "CoCLR: k 5": "coclr",
    "CoCLR: k 20": "coclr-k20",
    "CoCLR: k 5, two cycles of half the length": "coclr-cycle2",
    "ViCC single: 30 prototypes": "vicc-30",
    "ViCC single: 100 prototypes": "vicc",
    "ViCC single: 300 prototypes": "vicc-300",
    "CoCon: cpc alone (one view)": "cpc",
    "CoCon: cpc + sim": "cocon-sim",
    "CoCon: cpc + sync": "cocon-sync",
    "CoCon: cpc + sim + sync (two views)": "cocon",
    "CoCon: three or four views": "cocon-views",
}
NOT_RUN = "not run"


@dataclass(frozen=True)
class Score:
    """What one kind of feature reached: shares of `queries` test videos; `probe` may be None."""

    recall1: float
    recall5: float
    queries: int
    chance: float
    probe: float | None


# ── from artifacts to shares ─────────────────────────────────────────────────────────────────


def collect(workspace: Path, archive: Path, split: str | None = None) -> int:
    """Puts the newest evaluation artifact of every name into one compressed archive.

    Args:
        split: only artifacts of this split.

    Returns:
        How many artifacts there are in it.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    kept = 0
    with tarfile.open(archive, "w:xz", preset=9) as file:
        for kind in ("retrieval", "probe"):
            for shelf in sorted((workspace / kind).iterdir()):
                versions = [p for p in shelf.iterdir() if _is_of(p, split)]
                if not versions:
                    continue
                newest, kept = max(versions), kept + 1
                for name in KEPT:
                    if (newest / name).exists():
                        member = tarfile.TarInfo(f"{kind}/{shelf.name}/{name}")
                        data = (newest / name).read_bytes()
                        member.size = len(data)  # no time, owner or mode: the same bytes each time
                        file.addfile(member, io.BytesIO(data))
    return kept


def _is_of(folder: Path, split: str | None) -> bool:
    """Whether a folder is a published artifact of a split."""
    if not (folder.name.startswith("v") and (folder / "artifact.json").exists()):
        return False
    summary = json.loads((folder / "artifact.json").read_text())["summary"]
    return split is None or summary["split"] == split


def read(archive: Path) -> dict[str, str]:
    """Returns {KIND/NAME/FILE: text} of an archive."""
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
    """Returns the binomial standard error of a share."""
    return (share * (1 - share) / queries) ** 0.5


# ── from shares to tables ────────────────────────────────────────────────────────────────────


def percent(share: float | None) -> str:
    """Returns a share in per cent."""
    return "–" if share is None else f"{100 * share:.1f}"


def jhmdb_scores(split: str) -> dict[str, Score]:
    """Returns what was measured on a split, by the artifact's name without the split."""
    archive = ARCHIVES / f"jhmdb-{split}.tar.xz"
    if not archive.exists():
        return {}
    files = read(archive)
    names = {name.split("/")[1] for name in files if name.startswith("retrieval/")}
    return {name.removesuffix(f"-{split}"): score(files, name) for name in names}


def _row(shown: str, names: dict[str, str], splits: list[dict[str, Score]]) -> str:
    """Returns a row: R@1 / R@5 / probe of each view, means over splits, in per cent."""
    cells = []
    for view in VIEWS:
        name = names.get(view)
        found = [s[name] for s in splits if name in s]
        if name is None:
            cells.append("–")
        elif len(found) < len(splits):
            cells.append(NOT_RUN)
        else:
            probes = [s.probe for s in found if s.probe is not None]
            probe = mean(probes) if len(probes) == len(found) else None
            shares = (mean(s.recall1 for s in found), mean(s.recall5 for s in found), probe)
            cells.append(" / ".join(percent(share) for share in shares))
    return f"| {shown} | {' | '.join(cells)} |"


HEAD = ["| features | RGB | flow | both |", "|---|---|---|---|"]


def jhmdb_table(splits: tuple[str, ...]) -> str:
    """Returns the table of all methods on JHMDB's 11 classes, means over splits."""
    scores = [jhmdb_scores(split) for split in splits]
    rows = [_row(shown, {view: name}, scores) for shown, (view, name) in HAND_MADE.items()]
    random = {view: f"baseline-random-{view}-tiny" for view in ("rgb", "flow")}
    rows.append(_row("random init", random, scores))
    rows += [_row(shown, _of_views(name), scores) for shown, name in METHODS_BY_STAGE.items()]
    return "\n".join(HEAD + rows)


def ablation_table() -> str:
    """Returns the ablations, split 1."""
    scores = [jhmdb_scores(SPLITS[0])]
    return "\n".join(HEAD + [_row(s, _of_views(n), scores) for s, n in ABLATIONS.items()])


def _of_views(name: str) -> dict[str, str]:
    return {view: f"{view}-{name}" for view in VIEWS}


def demo_scores() -> dict[str, list[Score]]:
    """Returns each row of the demo's table, one score per seed."""
    archives = [read(ARCHIVES / f"demo-seed{seed}.tar.xz") for seed in DEMO_SEEDS]
    return {shown: [score(files, name) for files in archives] for shown, name in DEMO_ROWS.items()}


def demo_table() -> str:
    """Returns the demo's table: R@1 per seed, the mean over seeds, and CoCLR minus InfoNCE."""
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
    """Returns CoCLR minus InfoNCE on RGB: per seed, mean, spread over seeds."""
    scores = demo_scores()
    (coclr,) = (row for shown, row in scores.items() if shown.startswith("CoCLR"))
    lines = []
    for shown in ("InfoNCE RGB, 7 epochs", "InfoNCE RGB, 28 epochs"):
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


TABLES = {
    "demo": demo_table,
    "demo difference": demo_difference,
    "jhmdb split1": partial(jhmdb_table, SPLITS[:1]),
    "jhmdb": partial(jhmdb_table, SPLITS),
    "jhmdb ablations": ablation_table,
}


def filled(page: str) -> str:
    """Returns the page with every table made anew."""
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
