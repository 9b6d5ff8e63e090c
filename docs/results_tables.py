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
import math
import sys
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean

HERE = Path(__file__).resolve().parent
PAGE = HERE / "results.md"
ARCHIVES = HERE / "results"
KEPT = ("artifact.json", "results.json", "neighbours.csv", "predictions.csv")

DEMO_SEEDS = (0, 1)
DEMO_ROWS = {
    "colour histogram": "baseline-colour-histogram",
    "mean frame": "baseline-mean-frame",
    "untrained RGB": "baseline-random-rgb-motion",
    "untrained flow": "baseline-random-flow-motion",
    "InfoNCE flow": "flow-infonce",
    "InfoNCE RGB, 38 epochs": "rgb-infonce",
    "InfoNCE RGB, 76 epochs": "rgb-infonce-long",
    "CoCLR RGB, 38 epochs after InfoNCE's 38": "rgb-coclr",
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
    """Returns the demo's table: means over seeds, and the least and most of any seed."""
    lines = [
        f"| features | R@1, mean of {len(DEMO_SEEDS)} seeds | R@1, least to most "
        "| linear probe, least to most | linear probe, mean |",
        "|---|---|---|---|---|",
    ]
    for shown, row in demo_scores().items():
        first, probed = [s.recall1 for s in row], [s.probe for s in row if s.probe is not None]
        lines.append(
            f"| {shown} | {percent(mean(first))} | {_range(first)} | {_range(probed)} "
            f"| {percent(mean(probed))} |"
        )
    chance = percent(demo_scores()["mean frame"][0].chance)
    return "\n".join([*lines, f"| chance | {chance} | – | – | {chance} |"])


def _range(shares: Sequence[float]) -> str:
    return f"{percent(min(shares))} to {percent(max(shares))}"


DEMO_PAIRS = (
    ("InfoNCE RGB, 76 epochs", "untrained RGB"),
    ("CoCLR RGB, 38 epochs after InfoNCE's 38", "InfoNCE RGB, 76 epochs"),
)


def demo_difference() -> str:
    """Returns what each step adds on RGB, and in how many seeds it is beyond noise."""
    scores = demo_scores()
    lines = []
    for after, before in DEMO_PAIRS:
        said = [
            _gains(measure, [(getattr(a, field), getattr(b, field), a.queries)
                             for a, b in zip(scores[after], scores[before], strict=True)])
            for measure, field in (("R@1", "recall1"), ("linear probe", "probe"))
        ]  # fmt: skip
        lines.append(f"- {after}, minus {before}: {'; '.join(said)}.")
    return "\n".join(lines)


def _gains(measure: str, pairs: Sequence[tuple[float, float, int]]) -> str:
    gains = [a - b for a, b, _ in pairs]
    errors = [math.hypot(standard_error(a, n), standard_error(b, n)) for a, b, n in pairs]
    beyond = sum(gain > 2 * error for gain, error in zip(gains, errors, strict=True))
    return (
        f"{measure} {100 * mean(gains):+.1f} points on average, {100 * min(gains):+.1f} at least, "
        f"beyond two standard errors in {beyond} of {len(gains)} seeds"
    )


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
