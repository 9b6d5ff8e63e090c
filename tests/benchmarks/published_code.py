"""CoCLR's published code, run from a checkout that the user names; no part of this project.

https://github.com/TengdaHan/CoCLR
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

# What the scripts import on top, for logs and LMDB, and what is never used here.
UNUSED = (
    "tensorboardX",
    "lmdb",
    "msgpack",
    "joblib",
    "pandas",
    "tqdm",
    "matplotlib",
    "matplotlib.pyplot",
)


def load(checkout: Path, name: str) -> ModuleType:
    """Imports a script of the checkout, such as ``main_nce``, without the packages it never uses.

    Raises:
        SystemExit: there is no such checkout.
    """
    if not (checkout / f"{name}.py").exists():
        sys.exit(f"{checkout} is no checkout of the published code: it has no {name}.py")
    importlib.import_module("torchvision")  # it looks for some of these packages itself
    absent = [m for m in UNUSED if importlib.util.find_spec(m.partition(".")[0]) is None]
    sys.modules.update({module: MagicMock() for module in absent})
    sys.path.insert(0, str(checkout))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(checkout))
        for module in absent:
            del sys.modules[module]


def augmentation(checkout: Path, frames: int, size: int) -> Callable[[list[Any]], list[Any]]:
    """Gives its training augmentation: both clips' frames (PIL) → as many tensors."""
    with redirect_stdout(StringIO()):
        return load(checkout, "main_nce").get_transform(
            "train", Namespace(img_dim=size, seq_len=frames)
        )


def decode(blobs: Sequence[bytes]) -> list[Any]:
    """Decodes frames as its loader does."""
    from PIL import Image

    return [Image.open(BytesIO(blob)).convert("RGB") for blob in blobs]
