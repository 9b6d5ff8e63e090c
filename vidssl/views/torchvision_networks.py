"""Derivers that use torchvision's networks, and how their weights are found and loaded.

Weights come from a file or from torch's cache; nothing is downloaded.
"""

from __future__ import annotations

import multiprocessing
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from vidssl.base.errors import MissingInput, UsageError, VidsslError, nearest_name
from vidssl.base.files import file_digest
from vidssl.base.imagenet import IMAGENET_MEAN, IMAGENET_STD
from vidssl.base.text import counted
from vidssl.base.weight_files import UnreadableWeights, check_state_dict, read_torch_file
from vidssl.views.deriver import Deriver
from vidssl.views.resize import resize, short_side

BATCH_PIXELS = 4_000_000  # of network input in one batch on a GPU
MOST_FRAMES = 32  # in one batch


@dataclass(frozen=True)
class Weights:
    """A file of weights and the SHA-256 of its bytes."""

    path: Path
    sha256: str


def find_weights(model: str, given: str) -> Weights:
    """Finds a network's weights: the file that was given, or torchvision's in torch's cache.

    Raises:
        MissingInput: they are not there; the message says how to get them.
    """
    if given:
        path = Path(given)
        if not path.is_file():
            raise MissingInput(f"there is no file of weights {given}")
        return _weights(path.resolve())
    url = torchvision.models.get_model_weights(model).DEFAULT.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        raise MissingInput(
            f"the weights of {model} are not here: download {url} to {path.parent}, "
            "or name a file of them with --weights"
        )
    return _weights(path)


def _weights(path: Path) -> Weights:
    status = path.stat()
    return Weights(path, _digest(path, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=8)
def _digest(path: Path, size: int, changed: int) -> str:
    return file_digest(path)


def load_network(
    model: str, weights: Weights, device: str, layout: torch.memory_format, **options: Any
) -> nn.Module:
    """Builds a torchvision network in eval mode, with these weights, on a device.

    Args:
        layout: of its tensors; float16 is fast in channels_last.
        options: arguments of torchvision's function of that name.

    Raises:
        VidsslError: the file holds no weights of this network, or only as code to be run.
    """
    if multiprocessing.parent_process() is not None:
        _limit_to_share(device)
    network = torchvision.models.get_model(model, weights=None, **options)
    try:
        # Weights from before 2020, such as torchvision's R-CNNs, are in PyTorch's first format.
        whole = read_torch_file(weights.path)
        state = check_state_dict(weights.path, _state_in(whole))
        network.load_state_dict(state)
    except UnreadableWeights as error:
        raise VidsslError(
            f"{weights.path} holds no weights of {model}: it {error.fault}"
        ) from error
    except RuntimeError as error:  # names or shapes of another network
        wanted = network.state_dict()
        different = [name for name in sorted({*state, *wanted}) if not _fits(name, state, wanted)]
        raise VidsslError(
            f"{weights.path} holds no weights of {model}: {counted(len(different), 'tensor')} "
            f"apart, such as {different[0] if different else error!s:.100}"
        ) from error
    return network.to(device, memory_format=layout).eval().requires_grad_(False)


def _state_in(whole: Any) -> Any:
    """Returns the state_dict of a file, which torchvision's own training puts under "model"."""
    return whole.get("model", whole) if isinstance(whole, dict) else whole


def _fits(name: str, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    return name in state and name in wanted and state[name].shape == wanted[name].shape


def _limit_to_share(device: str) -> None:
    """Limits a worker process to its share of the machine: one core, or one of the GPUs."""
    if device == "cuda":
        turn = os.environ.get("LOCAL_RANK") or os.getpid()  # workers start one after another
        torch.cuda.set_device(int(turn) % torch.cuda.device_count())
    else:
        torch.set_num_threads(1)


def half_precision(device: str) -> AbstractContextManager[Any]:
    """Returns a context in which convolutions run in float16 on CUDA; elsewhere it does nothing."""
    return torch.autocast("cuda", torch.float16) if device == "cuda" else nullcontext()


def precision(device: str) -> str:
    """Returns the name of the precision that :func:`half_precision` computes in."""
    return "float16" if device == "cuda" else "float32"


# ── derivers with a network ──────────────────────────────────────────────────────────────────


class NetworkDeriver(Deriver):
    """A deriver that runs a torchvision network on frames, in batches on a GPU.

    Its `Config` has `model`; `weights`, a file (empty: torch's cache); and `detector_size`, the
    short side at which the network sees frames (0: the model's own). The digest of the weights is
    recorded, not their path, and the size that is used.

    Attributes:
        models: {torchvision's name of a network that can be used: its own size}.
    """

    models: ClassVar[Mapping[str, int]]
    stride = 2
    stored_size = 96

    def load(self, weights: Weights, **options: Any) -> nn.Module:
        """Loads the network of the settings; `options` are as of :func:`load_network`."""
        layout = torch.channels_last if self.device == "cuda" else torch.contiguous_format
        options |= {"weights_backbone": None}  # or torchvision would download them
        return load_network(self.config.model, weights, self.device, layout, **options)

    @abstractmethod
    def see(self, x_B3HW: Tensor, size: tuple[int, int]) -> Tensor:
        """Returns frames of the view at (height, width) `size`: float in 0..1 [B, C, h, w].

        Args:
            x_B3HW: frames as :func:`imagenet_input` makes them.
        """

    def derive(
        self, frames: Iterable[np.ndarray], stride: int, size: int | None
    ) -> Iterator[np.ndarray]:
        chosen = islice(frames, 0, None, stride)
        first = next(chosen, None)
        if first is None:
            return
        height, width = first.shape[:2]
        stored = short_side(width, height, size)[::-1]
        seen = _scaled(width, height, own_size(self.models, self.config))
        # Small frames are enlarged: these networks were trained on people of 100 pixels and more.
        method = cv2.INTER_AREA if seen < (width, height) else cv2.INTER_LINEAR
        shown = (resize(frame, seen, method) for frame in chain([first], chosen))
        for batch_BHWC in in_batches(shown, self.device):
            with torch.inference_mode():
                view_BChw = self.see(imagenet_input(batch_BHWC, self.device), stored)
                levels = (255 * view_BChw).clamp(0, 255).round().to(torch.uint8)
            yield from levels.permute(0, 2, 3, 1).cpu().numpy()

    @classmethod
    def describe(cls, config: Any, device: str) -> dict[str, Any]:
        if config.model not in cls.models:
            raise UsageError(
                f"there is no model {config.model} for this view"
                f"{nearest_name(config.model, cls.models)}; there are {', '.join(cls.models)}"
            )
        return asdict(config) | {
            "weights": f"sha256:{find_weights(config.model, config.weights).sha256}",
            "detector_size": own_size(cls.models, config),
            "precision": precision(device),
        }

    @classmethod
    def recall(cls, recorded: Mapping[str, Any], weights: str = "") -> Any:
        fields = {name: value for name, value in recorded.items() if name != "precision"}
        config = replace(cls.Config(**fields), weights=weights)
        found = find_weights(config.model, weights)
        if f"sha256:{found.sha256}" != recorded["weights"]:
            raise VidsslError(
                f"{found.path} holds other weights of {config.model} than those that were used "
                f"({recorded['weights'][:15]}…): name their file with --weights"
            )
        return config


def own_size(models: Mapping[str, int], config: Any) -> int:
    """Returns the short side, in pixels, at which a network sees frames."""
    return int(config.detector_size or models[config.model])


def _scaled(width: int, height: int, short: int) -> tuple[int, int]:
    """Returns (width, height) scaled to this short side."""
    scale = short / min(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


# ── frames ───────────────────────────────────────────────────────────────────────────────────


def in_batches(frames: Iterable[np.ndarray], device: str) -> Iterator[np.ndarray]:
    """Yields frames [H, W, C] in batches [B, H, W, C]; B is 1 on a CPU."""
    batch: list[np.ndarray] = []
    for frame in frames:
        batch.append(frame)
        pixels = frame.shape[0] * frame.shape[1]
        most = min(MOST_FRAMES, max(1, BATCH_PIXELS // pixels)) if device == "cuda" else 1
        if len(batch) >= most:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def imagenet_input(frames_BHWC: np.ndarray, device: str) -> Tensor:
    """Returns RGB uint8 frames as input of torchvision's networks: float32 [B, 3, H, W]."""
    frames = torch.from_numpy(frames_BHWC).to(device).permute(0, 3, 1, 2)
    mean, std = (
        torch.tensor(values, device=device).view(3, 1, 1)
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (frames.float() / 255 - mean) / std
