"""Torchvision's networks with random weights, in files: nothing can be downloaded in tests."""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision


def random_network(model: str, **options: object) -> torch.nn.Module:
    """Builds a network in eval mode that sees something, though nothing that is there."""
    torch.manual_seed(0)
    if not model.startswith("raft"):
        options["weights_backbone"] = None
    network = torchvision.models.get_model(model, weights=None, **options)
    if hasattr(network, "roi_heads"):
        with torch.no_grad():
            network.roi_heads.box_predictor.cls_score.bias[1] = 4.5  # scores from 0.3 to 0.9
    if hasattr(network, "classifier") and hasattr(network.classifier, "low_classifier"):
        with torch.no_grad():
            network.classifier.low_classifier.weight.mul_(1000)  # else one value everywhere
    return network.eval()


def random_weights(folder: Path, model: str, **options: object) -> Path:
    """Writes a network's random weights into a file and gives its path."""
    path = folder / f"{model}.pth"
    torch.save(random_network(model, **options).state_dict(), path)
    return path


def noise_frames(count: int, height: int = 48, width: int = 64, seed: int = 0) -> torch.Tensor:
    """Returns RGB noise in coarse blocks: uint8 [count, height, width, 3]."""
    chance = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 3, 6, 8), generator=chance).float()
    frames = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return frames.round().to(torch.uint8).permute(0, 2, 3, 1)
