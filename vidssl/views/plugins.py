"""Loads a user's own views from the files or modules in the environment variable VIDSSL_VIEWS.

    VIDSSL_VIEWS=difference.py vidssl extract-view VIDEOS --view difference

An entry is the path of a .py file or the name of an installed module; several are separated as in
PATH. Each defines `VIEW = …`, an instance of :class:`vidssl.views.view.View`. It is an environment
variable because every process that vidssl starts inherits it: workers, torchrun's ranks, jobs of a
batch system.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from vidssl.base.errors import UsageError
from vidssl.views.view import View

VARIABLE = "VIDSSL_VIEWS"


def plugin_views() -> dict[str, View]:
    """Returns {name: view} of the user's own views; empty if the variable names none.

    Raises:
        UsageError: an entry that cannot be loaded or holds no view.
    """
    return _load_all(os.environ.get(VARIABLE, ""))


@lru_cache(maxsize=1)
def _load_all(variable: str) -> dict[str, View]:
    views: dict[str, View] = {}
    for entry in filter(None, variable.split(os.pathsep)):
        view = getattr(_load(entry), "VIEW", None)
        if not isinstance(view, View):
            raise UsageError(
                f"{entry}, named in {VARIABLE}, holds no view: it must say VIEW = MyView(), an "
                "instance of vidssl.views.view.View"
            )
        if view.name in views:
            raise UsageError(f"two entries of {VARIABLE} hold a view named {view.name}")
        views[view.name] = view
    return views


def _load(entry: str) -> ModuleType:
    try:
        if not entry.endswith(".py"):
            return importlib.import_module(entry)
        path = Path(entry).resolve()
        # Named by its whole path, so that two files of the same name are two modules.
        name = f"vidssl_view_{path.stem}_{hashlib.blake2b(bytes(path), digest_size=4).hexdigest()}"
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module  # dataclasses look their module up
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
        return sys.modules[name]
    except Exception as error:
        # A user's file may fail in any way; which file it was matters more than the traceback.
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"{entry}, named in {VARIABLE}, cannot be loaded ({what})") from error
