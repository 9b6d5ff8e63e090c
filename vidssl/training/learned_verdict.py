"""Says what a training did beyond nothing: the trained encoder against the same one untrained.

A loss that falls does not show that anything of use was learned. Two figures do, on videos of the
training part alone. Without labels: how often the window that is nearest to a window of a video is
of the same video. With labels: how often the nearest video of another group has the label.

Legend: V videos, W windows of all of them, D feature width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vidssl.backbones import Encoder
from vidssl.clips.frame_reader import TrainingVideos
from vidssl.evaluation.features import Features, WindowProtocol, embed_videos
from vidssl.evaluation.kept_windows_of_pack import kept_windows_of
from vidssl.evaluation.neighbours import centred_unit
from vidssl.evaluation.untrained_encoder import untrained_encoder
from vidssl.shards import open_shards
from vidssl.workspace.artifacts import Artifact

MOST_VIDEOS = 256  # a sample, so that it takes seconds
ERRORS = 2.0  # standard errors that a difference must exceed
NEAR_CHANCE = 0.95  # of ln(classes): a classifier whose loss ends above it tells nothing apart
FEWEST = 30  # trials; of fewer nothing is said, since hardly any difference is beyond noise


@dataclass(frozen=True)
class Share:
    """A share of hits of the trained and of the untrained encoder, over the same trials.

    Attributes:
        trained, untrained: from 0 to 1.
        error: one standard error of their difference, of paired trials.
        trials: how many.
    """

    trained: float
    untrained: float
    error: float
    trials: int

    @property
    def better(self) -> bool:
        """Whether the trained encoder is better beyond noise."""
        return self.trained - self.untrained > ERRORS * self.error


@dataclass(frozen=True)
class Verdict:
    """What one encoder does beyond the same one untrained.

    Attributes:
        own: share of windows whose nearest other window is of the same video; None where no video
            has two.
        label: share of videos whose nearest video of another group has the label; None where there
            are no labels.
    """

    view: str
    own: Share | None
    label: Share | None

    @property
    def little(self) -> bool:
        """Whether it learned little: nothing that was tried often is better than untrained."""
        shares = [s for s in (self.own, self.label) if s is not None and s.trials >= FEWEST]
        return bool(shares) and not any(share.better for share in shares)

    def phrase(self) -> str:
        """Returns the figures in words."""
        parts = []
        if self.own is not None:
            parts.append(f"own video found {_percents(self.own)}")
        if self.label is not None:
            parts.append(f"own class {_percents(self.label)}")
        return ", ".join(parts)


def _percents(share: Share) -> str:
    return f"{100 * share.trained:.0f} % (untrained {100 * share.untrained:.0f} %)"


def compare(
    encoder: Encoder,
    pack: Artifact,
    videos: TrainingVideos,
    seed: int,
    device: torch.device,
) -> Verdict:
    """Compares an encoder with the one that its training would have begun with from scratch.

    Draws no random number and changes no weight.

    Args:
        videos: the training part; at most 256 of them are looked at.
        seed: of the training.
    """
    rows = np.unique(np.linspace(0, len(videos) - 1, MOST_VIDEOS).round().astype(np.int64))
    before = untrained_encoder(encoder.spec, seed)
    after, start = (_embed(e, pack, videos.index[rows], device) for e in (encoder, before))
    own = _paired(_own_found(after), _own_found(start))
    labels, groups = videos.label[rows], videos.source[rows]
    by_label = _paired(*(_label_found(f, labels, groups) for f in (after, start)))
    return Verdict(encoder.spec.view, own, by_label)


def verdict_sentence(
    name: str, verdicts: Sequence[Verdict], loss: float | None, chance: float | None
) -> str | None:
    """Returns a sentence where a training learned little, else None.

    Args:
        loss: at the end, and its value at `chance`, where known.
    """
    if not verdicts or not all(each.little for each in verdicts):
        return None
    parts = [
        f"{each.view}: {each.phrase()}" if len(verdicts) > 1 else each.phrase() for each in verdicts
    ]
    if loss is not None and chance is not None:
        parts.insert(0, f"loss {loss:.2f}, chance {chance:.2f}")
    return f"{name} learned little: {'; '.join(parts)}"


def classifier_sentence(name: str, loss: float | None, classes: int) -> str | None:
    """Returns a sentence where a classifier's training loss ended near that of guessing, else None.

    Args:
        loss: the mean cross-entropy of the last epoch.
        classes: how many; ln(classes) is the loss of equal probabilities.
    """
    chance = math.log(classes)
    if loss is None or loss < NEAR_CHANCE * chance:
        return None
    return (
        f"{name} has learned nothing: its training loss ends at {loss:.2f}, and guessing among "
        f"{classes} classes has {chance:.2f}; more --epochs or another rate (--set lr=...) may help"
    )


def verdict_figures(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Returns the shares for a checkpoint's summary; those of several views bear their names."""
    found: dict[str, float] = {}
    for each in verdicts:
        suffix = f"_{each.view}" if len(verdicts) > 1 else ""
        for name, share in (("own_video", each.own), ("own_class", each.label)):
            if share is not None:
                found[f"{name}{suffix}"] = share.trained
                found[f"{name}_untrained{suffix}"] = share.untrained
    return found


def _embed(encoder: Encoder, pack: Artifact, videos: np.ndarray, device: torch.device) -> Features:
    mode, place = encoder.training, next(encoder.parameters()).device
    protocol, ids = WindowProtocol(), [str(v) for v in videos]
    with open_shards(pack) as reader:
        kept = kept_windows_of(pack, reader, encoder, protocol, device)
        found = embed_videos(encoder, reader, videos, ids, protocol, device, kept=kept)
    encoder.to(place).train(mode)
    return found


def _own_found(features: Features) -> np.ndarray:
    """Returns for each window of a video with several whether the nearest other is of it: bool."""
    counts = np.diff(features.offsets)
    of_window = np.repeat(np.arange(len(counts)), counts)
    unit_WD = centred_unit(features.unit_windows())
    score_WW = unit_WD @ unit_WD.T
    np.fill_diagonal(score_WW, -np.inf)
    hit_W: np.ndarray = of_window[score_WW.argmax(1)] == of_window
    return hit_W[counts[of_window] > 1]


def _label_found(features: Features, label_V: np.ndarray, group_V: np.ndarray) -> np.ndarray:
    """Returns for each labelled video whether the nearest of another group has its label: bool."""
    unit_VD = centred_unit(features.video_means())
    score_VV = unit_VD @ unit_VD.T
    usable_VV = (group_V[:, None] != group_V) & (label_V >= 0)
    nearest_V = np.where(usable_VV, score_VV, -np.inf).argmax(1)
    hit_V: np.ndarray = label_V[nearest_V] == label_V
    return hit_V[(label_V >= 0) & usable_VV.any(1)]


def _paired(trained: np.ndarray, untrained: np.ndarray) -> Share | None:
    if not len(trained):
        return None
    apart = trained.astype(float) - untrained
    error = float(apart.std() / math.sqrt(len(apart)))
    return Share(float(trained.mean()), float(untrained.mean()), error, len(apart))
