"""Describes an artifact in one short phrase, which `vidssl status` shows beside its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vidssl.base.text import counted
from vidssl.workspace.artifacts import Artifact

Summary = Mapping[str, Any]
LITTLE = "learned_little"  # key in a checkpoint's summary; its value is a sentence
COLLAPSED = "collapsed"  # key in a checkpoint's summary; its value is a sentence on the collapse


def headline(artifact: Artifact) -> str:
    """Returns an artifact's most important figures in one phrase, empty if it has none."""
    try:
        return PHRASES[artifact.kind](artifact.summary)
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""  # a summary is for people alone, and may lack anything (docs/formats.md)


def percent(share: float, error: float | None = None) -> str:
    """Returns a share as per cent, with its standard error if there is one: "31.2 ± 2.0 %"."""
    return f"{100 * share:.1f}" + ("" if error is None else f" ± {100 * error:.1f}") + " %"


def size(count: float) -> str:
    """Returns a number of bytes with a fitting unit: "1.2 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _shards(s: Summary) -> str:
    cut = f" in {counted(s['segments'], 'segment')}" if "segments" in s else ""
    parts = [counted(s.get("videos", 0), "video") + cut, "+".join(s.get("views", {}))]
    if "bytes" in s:
        parts.append(size(s["bytes"]))
    if s.get("quarantined"):
        parts.append(f"{s['quarantined']} left out")
    return ", ".join(part for part in parts if part)


def _flow(s: Summary) -> str:
    method = s.get("views", {}).get("flow", {}).get("method")
    rest = _shards({**s, "views": {}})
    return f"{rest}, {method}" if method else rest


def _annotations(s: Summary) -> str:
    if not s.get("labelled"):
        return "no labels"
    splits = f", splits {', '.join(s['splits'])}" if s.get("splits") else ""
    return f"{s['labelled']} of {s['videos']} labelled, {counted(s['classes'], 'class')}{splits}"


def _checkpoint(s: Summary) -> str:
    parts = ["collapsed"] if COLLAPSED in s else ["learned little"] if LITTLE in s else []
    parts += [str(s[name]) for name in ("method", "backbone") if name in s]
    if "epochs" in s:
        parts.append(counted(s["epochs"], "epoch"))
    for name, shown in (
        ("loss", "loss {:.2f}"),
        ("purity", "purity {:.2f}"),
        ("knn", "kNN {:.2f}"),
    ):
        if s.get(name) is not None:
            parts.append(shown.format(s[name]))
    return ", ".join(parts)


def _features(s: Summary) -> str:
    windows, videos = counted(s["windows"], "window"), counted(s["videos"], "video")
    return f"{windows} of {videos}, width {s['width']}"


def _accuracy(s: Summary) -> str:
    return f"top-1 {percent(s['top1'], s.get('error'))}{_split(s)}" if "top1" in s else ""


def _retrieval(s: Summary) -> str:
    ks = [k for k in (1, 5, 10) if f"R@{k}" in s]
    named = [f"R@{k}" for k in ks] + (["mAP"] if "mAP" in s else [])
    return ", ".join(f"{name} {percent(s[name])}" for name in named) + _split(s)


def _split(s: Summary) -> str:
    return f" on {s['split']}" if "split" in s else ""


PHRASES: dict[str, Callable[[Summary], str]] = {
    "flow": _flow,
    "view": _shards,
    "pack": _shards,
    "annotations": _annotations,
    "checkpoint": _checkpoint,
    "features": _features,
    "probe": _accuracy,
    "finetune": _accuracy,
    "retrieval": _retrieval,
}
