"""Optional dependencies: whether they are here is asked before any work that needs them."""

from __future__ import annotations

import importlib.util

from vidssl.base.errors import VidsslError


def require_extra(extra: str, what: str, *modules: str, more: str = "") -> None:
    """Raises a :class:`VidsslError` that says how to get what is missing, if anything is.

    Args:
        extra: of this package, as pip takes it.
        what: needs it.
        more: ends the sentence.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise VidsslError(
            f"{what} needs {' and '.join(missing)}, which an extra brings: "
            f"pip install 'vidssl[{extra}]'{more}"
        )
