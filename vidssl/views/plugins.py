"""Loads a user's own views from the files or modules in the environment variable VIDSSL_VIEWS.

    VIDSSL_VIEWS=difference.py vidssl extract-view VIDEOS --view difference

An entry is the path of a .py file or the name of an installed module; several are separated as in
PATH. Each defines `VIEW = …`, an instance of :class:`vidssl.views.view.View`, or
`DERIVERS = {view: {model: class}}`, networks for views that exist, or both. It is an environment
variable because every process that vidssl starts inherits it: workers, torchrun's ranks, jobs of a
batch system.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from vidssl.base.errors import UsageError
from vidssl.views.deriver import Deriver
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
        module = _load(entry)
        view = getattr(module, "VIEW", None)
        if view is None and hasattr(module, "DERIVERS"):
            continue
        if not isinstance(view, View):
            raise UsageError(
                f"{entry}, named in {VARIABLE}, holds no view: it must say VIEW = MyView(), an "
                "instance of vidssl.views.view.View"
            )
        if view.name in views:
            raise UsageError(f"two entries of {VARIABLE} hold a view named {view.name}")
        views[view.name] = view
    return views


def plugin_derivers() -> dict[str, dict[str, type[Deriver]]]:
    """Returns {view: {model: class}} of the networks that the user offers for views that exist.

    Raises:
        UsageError: an entry that cannot be loaded, or whose DERIVERS has another form.
    """
    offered: dict[str, dict[str, type[Deriver]]] = {}
    for entry in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        for view, model, deriver in _derivers(entry, getattr(_load(entry), "DERIVERS", {})):
            if model in offered.setdefault(view, {}):
                raise UsageError(f"two entries of {VARIABLE} hold a model {model} of {view}")
            offered[view][model] = deriver
    return offered


def _derivers(entry: str, derivers: Any) -> Iterator[tuple[str, str, type[Deriver]]]:
    form = (
        f"DERIVERS of {entry}, named in {VARIABLE}, must be "
        '{"pose": {"mymodel": MyDeriver}}, with a subclass of vidssl.views.deriver.Deriver'
    )
    if not isinstance(derivers, dict) or not all(isinstance(v, dict) for v in derivers.values()):
        raise UsageError(form)
    for view, models in derivers.items():
        for model, deriver in models.items():
            if not isinstance(deriver, type) or not issubclass(deriver, Deriver):
                raise UsageError(form)
            # The name is recorded with the frames, so that a query is derived by the same network.
            if getattr(deriver.Config(), "model", None) != model:
                raise UsageError(
                    f"the Config of {deriver.__name__} in {entry} needs a field "
                    f'model: str = "{model}", the name that DERIVERS gives it'
                )
            yield view, model, deriver


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
