"""vidssl: self-supervised learning on folders of raw, unlabelled video.

The package is a stack of floors (docs/architecture.md); imports run downward only. The command
line in :mod:`vidssl.cli` is the top one, and everything below works without it. From Python,
:func:`vidssl.embed` and :func:`vidssl.load_encoder` turn video files into vectors.
"""

from typing import TYPE_CHECKING, Any

from vidssl.version import VERSION as __version__

if TYPE_CHECKING:
    from vidssl.stages.embed import embed, load_encoder

__all__ = ["__version__", "embed", "load_encoder"]


def __getattr__(name: str) -> Any:
    """Imports the functions when they are asked for: PyTorch takes seconds."""
    if name in ("embed", "load_encoder"):
        from vidssl.stages import embed as stage

        return getattr(stage, name)
    raise AttributeError(f"module 'vidssl' has no attribute {name!r}")
