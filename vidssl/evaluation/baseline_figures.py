"""The figures of a baseline, which stand beside those of what was learned."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BaselineFigures:
    """One baseline on one split.

    Attributes:
        features: the name of the baseline.
        error: one standard error of `recall` or `top1`.
        recall: R@1, from 0 to 1; None in a classification.
        precision: mAP; None in a classification, and in reports of version 0.2.
        top1: accuracy of its linear probe; None in a retrieval.
    """

    features: str
    error: float
    recall: float | None = None
    precision: float | None = None
    top1: float | None = None
