"""The options that all evaluations of encoders share."""

from __future__ import annotations

from dataclasses import dataclass, field

from vidssl.evaluation.features import WindowProtocol


@dataclass(frozen=True)
class EvaluationOptions:
    """Which encoders are evaluated, on which split of which pack.

    Attributes:
        checkpoints: one, or one for each view; none: the newest of each of `streams`.
        streams: the views that are evaluated together; none: the checkpoints' own, or rgb.
        pack: None: the pack that the first checkpoint was trained on.
        split: None: the split that the first checkpoint was trained with.
        protocol: how windows are cut from the videos.
        metric: how features are compared, one of :data:`vidssl.evaluation.whitening.METRICS`.
        name: of the artifact; None: the checkpoints'.
        new: evaluate again, even if it is finished.
        device: "cpu" or "cuda"; None: "cuda" if there is one.
        dry_run: return the plan, and do nothing.
    """

    checkpoints: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    pack: str | None = None
    split: str | None = None
    protocol: WindowProtocol = field(default_factory=WindowProtocol)
    metric: str = "centred"
    name: str | None = None
    new: bool = False
    device: str | None = None
    dry_run: bool = False
