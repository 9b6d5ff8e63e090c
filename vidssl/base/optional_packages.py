"""Checks for optional dependencies before work that needs them starts."""

from __future__ import annotations

import importlib.util

from vidssl.base.errors import VidsslError


def is_installed(module: str) -> bool:
    """Whether an optional module can be imported; it is not imported."""
    return importlib.util.find_spec(module) is not None


def require_extra(extra: str, what: str, *modules: str, more: str = "") -> None:
    """Checks that optional modules are installed.

    Args:
        extra: of this package that installs them, as pip takes it.
        what: the feature that needs them.
        more: the end of the sentence.

    Raises:
        VidsslError: a module is missing; the sentence says how to install it.
    """
    missing = [name for name in modules if not is_installed(name)]
    if missing:
        raise VidsslError(
            f"{what} needs {' and '.join(missing)}, which an extra brings: "
            f"pip install 'vidssl[{extra}]'{more}"
        )
