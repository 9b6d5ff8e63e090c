"""Mines the neighbours of all training videos at once, from the features of two encoders.

Single clips make poor miners of a small set: of five neighbours one or two have the label. Means
over a video's windows, whitened and added up over two views, and only neighbours that choose each
other, have about twice as many (docs/results.md). No label is used.

Legend: V training videos, D feature width, k neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vidssl.backbones import Encoder
from vidssl.base import distributed
from vidssl.base.progress import SILENT, Progress
from vidssl.evaluation.features import WindowProtocol, count_windows, embed_videos
from vidssl.evaluation.kept_windows_of_pack import kept_windows_of
from vidssl.evaluation.neighbours import centred_unit
from vidssl.evaluation.whitening import fit_whitening
from vidssl.methods import CoCLR, Method
from vidssl.shards import open_shards
from vidssl.training.data import TrainingData


def give_neighbours(
    method: Method,
    encoders: Sequence[Encoder],
    data: TrainingData,
    device: str,
    progress: Progress = SILENT,
) -> None:
    """Gives a CoCLR that mines in the whole set the neighbours of all training videos.

    Videos outside the training part have no neighbours and are nobody's.

    Args:
        encoders: of different views; their similarities are added.
    """
    if not isinstance(method, CoCLR) or method.config.mining != "set":
        return
    config, videos = method.config, data.videos
    where = distributed.local_device(device)
    views = [_whitened_means(encoder, data, where, progress) for encoder in encoders]
    chosen_Vk = mutual_neighbours(views, videos.source, config.k, config.mutual)
    table = np.full((len(open_shards(data.pack)), config.k), -1, np.int64)
    table[videos.index] = np.where(chosen_Vk >= 0, videos.index[chosen_Vk], -1)
    method.set_neighbours(torch.from_numpy(table))


def _whitened_means(
    encoder: Encoder, data: TrainingData, device: torch.device, progress: Progress
) -> np.ndarray:
    """Returns the whitened unit features of the training videos: float32 [V, D]."""
    spec, videos, reader = encoder.spec, data.videos.index, open_shards(data.pack)
    protocol = WindowProtocol()  # the windows that evaluations look at, and so often kept
    ids = [reader.video_id(int(video)) for video in videos]
    total = count_windows(spec, protocol, reader.frame_count(spec.view)[videos])
    mode = encoder.training
    kept = kept_windows_of(data.pack, reader, encoder, protocol, device)
    with progress.task(f"mine {spec.view}", total, "window") as task:
        found = embed_videos(
            encoder, reader, videos, ids, protocol, device, embedded=task.advance, kept=kept
        )
    encoder.train(mode)
    return centred_unit(fit_whitening(found, range(len(ids)))(found.video_means()))


def mutual_neighbours(
    views: Sequence[np.ndarray], source_V: np.ndarray, k: int, mutual: bool
) -> np.ndarray:
    """Returns the k nearest videos of other sources by the sum of cosines: int64 [V, k].

    Args:
        views: unit features of each view [V, D].
        source_V: number of the group each video was cut from.
        mutual: keep only neighbours that have the video among theirs; −1 stands for the others.
    """
    unit_VD = torch.from_numpy(np.hstack(views))
    source = torch.from_numpy(np.asarray(source_V))
    rows = [
        _nearest_others(block, unit_VD, own, source, k)
        for block, own in zip(unit_VD.split(1024), source.split(1024), strict=True)
    ]
    near_Vk = torch.cat(rows)
    if mutual:
        of_theirs_Vkk = near_Vk[near_Vk.clamp(min=0)]
        back_Vk = (of_theirs_Vkk == torch.arange(len(near_Vk))[:, None, None]).any(2)
        near_Vk = near_Vk.masked_fill(~back_Vk, -1)
    return near_Vk.numpy()


def _nearest_others(
    block_ND: torch.Tensor,
    unit_VD: torch.Tensor,
    own_N: torch.Tensor,
    source_V: torch.Tensor,
    k: int,
) -> torch.Tensor:
    """Returns the k nearest of other sources [N, k], −1 where there are fewer."""
    score_NV = block_ND @ unit_VD.T
    score_NV = score_NV.masked_fill(own_N[:, None] == source_V, float("-inf"))
    most = min(k, score_NV.shape[1])
    value, index = score_NV.topk(most, dim=1)
    index = index.masked_fill(value == float("-inf"), -1)
    return torch.nn.functional.pad(index, (0, k - most), value=-1)
