"""vidssl: self-supervised learning on folders of raw, unlabelled video.

The package is a stack of floors (docs/architecture.md); imports run downward only. The command
line in :mod:`vidssl.cli` is the top one, and everything below works without it.
"""

from vidssl.version import VERSION as __version__

__all__ = ["__version__"]
