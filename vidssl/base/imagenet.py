"""Mean and standard deviation of ImageNet's pixels, as in torchvision, CoCLR and ViCC."""

from __future__ import annotations

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # red, green, blue; pixels from 0 to 1
IMAGENET_STD = (0.229, 0.224, 0.225)
