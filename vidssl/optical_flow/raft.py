"""RAFT (Teed and Deng 2020): optical flow by torchvision's networks, many pairs at once.

RAFT takes RGB frames. It computes features at an eighth of the resolution and compares every place
of one frame with every place of the other. So pictures are padded to multiples of 8, and to at
least 128 pixels a side.

Legend: B pairs, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidssl.base.errors import VidsslError
from vidssl.optical_flow.batched import BatchedFlow, FramePair, TaggedFlow, batches_of_one_size
from vidssl.views.torchvision_networks import Weights, find_weights, load_network

MULTIPLE, LEAST = 8, 128
BATCH_PIXELS = 2_500_000  # the comparison of all places with all takes much memory
MOST_PAIRS = 32


def start(
    params: Mapping[str, Any], weights: str
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Returns an estimator of one pair after another, on the CPU; arguments as of :class:`Raft`."""
    raft = _raft(tuple(params.items()), weights, "cpu")
    return lambda before, after: raft.flow(before[None], after[None])[0]


def start_batched(params: Mapping[str, Any], device: str, weights: str) -> BatchedFlow:
    """Returns an estimator of many pairs at once; arguments as of :class:`Raft`."""
    return RaftFlow(_raft(tuple(params.items()), weights, device))


@lru_cache(maxsize=1)
def _raft(params: tuple[tuple[str, Any], ...], weights: str, device: str) -> Raft:
    return Raft(dict(params), weights, device)  # once per process, not per video


class RaftFlow(BatchedFlow):
    """Computes flow by RAFT in batches of pairs of one size."""

    def __init__(self, raft: Raft) -> None:
        self.raft = raft

    def flows(self, pairs: Iterable[FramePair | None]) -> Iterator[TaggedFlow]:
        for ready in batches_of_one_size(pairs, MOST_PAIRS):
            height, width = ready[0].before.shape[:2]
            most = pairs_at_once(height, width, self.raft.device)
            for first in range(0, len(ready), most):
                batch = ready[first : first + most]
                before, after = (
                    np.stack(frames)
                    for frames in zip(*((pair.before, pair.after) for pair in batch), strict=True)
                )
                flow_BHW2 = self.raft.flow(before, after)
                yield from zip((pair.tag for pair in batch), flow_BHW2, strict=True)


def with_weights(params: Mapping[str, Any], weights: str = "") -> dict[str, Any]:
    """Returns a preset's parameters with the digest of its weights, as they are recorded.

    Args:
        weights: a file; empty: torchvision's, in torch's cache.

    Raises:
        MissingInput: there are no weights; the sentence says how to get them.
    """
    found = find_weights(params["model"], weights)
    return dict(params) | {"weights": f"sha256:{found.sha256}"}


class Raft:
    """The network, which computes the flow of many pairs of frames at once.

    Args:
        params: as :func:`with_weights` returns them.
        weights: a file; empty: torchvision's, in torch's cache.
        device: cpu or cuda. It computes in float32 on both.

    Raises:
        VidsslError: the weights are missing, belong to another network, or are not those of
            `params`.
    """

    def __init__(self, params: Mapping[str, Any], weights: str = "", device: str = "cpu") -> None:
        self.device, self.updates = device, int(params["updates"])
        found = find_weights(params["model"], weights)
        _check_same(params, found)
        self.network = load_network(params["model"], found, device, torch.contiguous_format)

    @torch.inference_mode()
    def flow(self, before_BHW3: np.ndarray, after_BHW3: np.ndarray) -> np.ndarray:
        """Returns the flow between RGB frames, uint8: float32 [B, H, W, 2] in pixels."""
        height, width = before_BHW3.shape[1:3]
        before, after = (
            _padded(_between_ones(frames, self.device)) for frames in (before_BHW3, after_BHW3)
        )
        flow_B2HW: Tensor = self.network(before, after, self.updates)[-1]
        top, left = _margins(height)[0], _margins(width)[0]
        cut = flow_B2HW[:, :, top : top + height, left : left + width]
        found: np.ndarray = cut.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return found


def pairs_at_once(height: int, width: int, device: str) -> int:
    """Returns how many pairs of that size make a good batch: one on a CPU."""
    if device != "cuda":
        return 1
    return min(MOST_PAIRS, max(1, BATCH_PIXELS // (height * width)))


def _check_same(params: Mapping[str, Any], found: Weights) -> None:
    if params["weights"] != f"sha256:{found.sha256}":
        raise VidsslError(
            f"{found.path} holds other weights of {params['model']} than those that were used "
            f"({params['weights'][:15]}…): name their file with --weights"
        )


def _between_ones(frames_BHW3: np.ndarray, device: str) -> Tensor:
    """Returns frames as the network was trained on them: [B, 3, H, W] from −1 to 1."""
    frames = torch.from_numpy(frames_BHW3).to(device).permute(0, 3, 1, 2)
    return frames.float().div_(127.5).sub_(1)


def _padded(x_B3HW: Tensor) -> Tensor:
    height, width = x_B3HW.shape[2:]
    return F.pad(x_B3HW, (*_margins(width), *_margins(height)), mode="replicate")


def _margins(size: int) -> tuple[int, int]:
    """Returns how many pixels are added before and behind a side."""
    missing = max(LEAST, size + -size % MULTIPLE) - size
    return missing // 2, missing - missing // 2
