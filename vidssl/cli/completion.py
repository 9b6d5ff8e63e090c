"""Completes names on the command line, without loading PyTorch: views, recipes, methods."""

from __future__ import annotations

from collections.abc import Callable
from glob import escape, glob
from os import path

from vidssl.base.errors import VidsslError


def one_of(*names: str) -> Callable[[str], list[str]]:
    """Returns a completion of one of some names."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def complete_views(incomplete: str) -> list[str]:
    """Completes a view, or the last one of a list such as rgb,flow; a user's own ones as well."""
    from vidssl.views import VIEWS, all_views

    before, comma, last = incomplete.rpartition(",")
    try:
        views = all_views()
    except VidsslError:  # a view of the user's own cannot be loaded: the command itself says so
        views = VIEWS
    return [f"{before}{comma}{name}" for name in views if name.startswith(last)]


def complete_shipped_recipes(incomplete: str) -> list[str]:
    """Completes the name of a shipped recipe."""
    from vidssl.recipes.recipe_file import recipe_names

    return [name for name in recipe_names() if name.startswith(incomplete)]


def complete_recipes(incomplete: str) -> list[str]:
    """Completes the name of a shipped recipe, or a folder or TOML file of the user's."""
    found = sorted(glob(f"{escape(incomplete)}*"))
    folders = [f"{name}/" for name in found if path.isdir(name)]
    files = [name for name in found if name.endswith(".toml") and path.isfile(name)]
    return [*complete_shipped_recipes(incomplete), *files, *(folders if incomplete else [])]
