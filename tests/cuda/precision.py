"""Whether bf16 changes what is learned: loss curves in float32 and bf16, with several seeds.

    python tests/cuda/precision.py --out DIR                       on a GPU: S3D
    python tests/cuda/precision.py --out DIR --device cpu --backbone tiny \
        --frames 8 --size 64 --stride 2 --videos 240

InfoNCE on rendered clips, once for each seed and precision; a seed draws weights, batches and
augmentation, and both precisions get the same. Prints a table: the mean loss of each tenth of
training, how far the precisions are apart with the same seed, and how far the seeds are apart with
the same precision. Interrupted and run again it goes on: every run is one of `vidssl pretrain`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from rendered import make_pack

from vidssl.base.cores_and_memory import cores
from vidssl.engine.log import read_log
from vidssl.stages import pretrain
from vidssl.workspace.workspace import Workspace

PARTS = 10  # of training, whose mean losses are compared
SETTINGS = ("backbone", "frames", "size", "stride", "epochs", "batch_size")
PRECISIONS = ("float32", "bf16")


def curves(
    workspace: Workspace, settings: dict[str, Any], device: str, seeds: int, threads: int | None
) -> dict[str, list[list[float]]]:
    """Returns {precision: for each seed the mean loss of each part of training}."""
    found: dict[str, list[list[float]]] = {}
    for precision in PRECISIONS:
        found[precision] = []
        for seed in range(seeds):
            options = pretrain.PretrainOptions(
                recipe="cpu", settings=tuple(settings.items()), seed=seed, device=device,
                precision=precision, name=f"{precision}-{seed}", threads=threads,
            )  # fmt: skip
            checkpoint = pretrain.run(workspace, options).artifact
            assert checkpoint is not None
            found[precision].append(parts([float(r["loss"]) for r in read_log(checkpoint.path)]))
            print(precision, seed, " ".join(f"{loss:.3f}" for loss in found[precision][-1]))
    return found


def parts(losses: Sequence[float]) -> list[float]:
    """Returns the mean of each of equally long parts."""
    count = min(PARTS, len(losses))
    edges = [round(i * len(losses) / count) for i in range(count + 1)]
    return [mean(losses[a:b]) for a, b in pairwise(edges)]


def differences(found: dict[str, list[list[float]]]) -> dict[str, list[float]]:
    """Returns, for each part, mean absolute differences between precisions and between seeds.

    Seeds are compared with the next one (the last with the first), within each precision.
    """
    one, other = found.values()
    between = [mean(abs(a - b) for a, b in zip(*part, strict=True)) for part in _paired(one, other)]
    neighbours = [_paired(runs, [*runs[1:], runs[0]]) for runs in found.values()]
    seeds = [
        mean(abs(a - b) for pairs in part for a, b in zip(*pairs, strict=True))
        for part in zip(*neighbours, strict=True)
    ]
    return {"precisions": between, "seeds": seeds}


def _paired(
    one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]
) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Returns, part by part, the values of all runs in `one` and in `other`."""
    return list(zip(zip(*one, strict=True), zip(*other, strict=True), strict=True))


def markdown(found: dict[str, list[list[float]]]) -> str:
    """Returns the curves and their differences as a table."""
    apart = differences(found)
    runs = [f"{precision}, seed {n}" for precision, all in found.items() for n in range(len(all))]
    lines = [f"| part | {' | '.join(runs)} | precisions apart | seeds apart |"]
    lines.append("|" + "---|" * (len(runs) + 3))
    values = zip(*(curve for all in found.values() for curve in all), strict=True)
    for n, (losses, p, s) in enumerate(zip(values, *apart.values(), strict=True), 1):
        shown = " | ".join(f"{loss:.3f}" for loss in losses)
        lines.append(f"| {n} | {shown} | {p:.3f} | {s:.3f} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--backbone", default="s3d")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--videos", type=int, default=600)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--stored", type=int, default=144)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args(words)
    workspace = Workspace(arguments.out / "workspace")
    make_pack(workspace, arguments.videos, arguments.length, arguments.stored, cores())
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    found = curves(workspace, settings, arguments.device, arguments.seeds, arguments.threads)
    results = {"curves": found, "apart": differences(found)}
    (arguments.out / "precision.json").write_text(json.dumps(results, indent=1) + "\n")
    print(markdown(found))
    return results


if __name__ == "__main__":
    main()
