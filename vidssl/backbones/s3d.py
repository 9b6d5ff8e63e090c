"""S3D (Xie et al. 2018): torchvision's, with the published BatchNorm and initialisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class S3D(nn.Module):
    """S3D without gating and without its tail: 32×128×128 in, 1024×4×4×4 out.

    torchvision's default BatchNorm (eps 1e-3, momentum 1e-3) differs from that of CoCLR and ViCC
    (1e-5, 0.1), and so would outputs, gradients and running statistics: hence
    `norm_layer=BatchNorm3d`. Convolutions start from N(0, 0.01) as published.

    Args:
        channels: of the input; the stem convolution is made for that many.
    """

    dim = 1024

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        # Here, since loading torchvision takes as long as loading torch.
        from torchvision.models.video import S3D as TorchvisionS3D

        features = TorchvisionS3D(norm_layer=nn.BatchNorm3d).features
        if channels != 3:
            features[0][0][0] = nn.Conv3d(
                channels, 64, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False
            )
        for module in features.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.normal_(module.weight, std=0.01)
        self.features = features

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Returns the feature map [B, 1024, T/8, H/32, W/32] of clips [B, C, T, H, W]."""
        features: torch.Tensor = self.features(x_BCTHW)
        return features
