"""Reads recipe files, and writes a recipe whole, as TOML that stands alone.

It does not know which tables and fields there are: so it needs no PyTorch, and the command line can
list recipes quickly. :mod:`vidssl.recipes.recipe` describes what a file holds, and checks it.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from vidssl.base.errors import UsageError, VidsslError, nearest_name
from vidssl.base.stored_json import read_bytes

SUFFIX = ".toml"
LARGEST = 1 << 20  # bytes of a recipe
DEEPEST = 16  # tables and lists in each other; a recipe has five
Content = dict[str, Any]
TablePath = tuple[str, ...]  # such as ("coclr", "flow", "train")


def recipe_names() -> list[str]:
    """Returns the names of the shipped recipes."""
    files = resources.files(__package__).iterdir()
    return sorted(f.name.removesuffix(SUFFIX) for f in files if f.name.endswith(SUFFIX))


def is_file_name(recipe: str) -> bool:
    """Whether a recipe is named as a file of the user's: by a path, or with the suffix .toml."""
    return recipe.endswith(SUFFIX) or os.path.basename(recipe) != recipe


def recorded_name(recipe: str) -> str:
    """Returns what a run records as its recipe's name: of a file, its name without the suffix."""
    return Path(recipe).stem if is_file_name(recipe) else recipe


def read_recipe(recipe: str) -> Content:
    """Reads a recipe without its base: a shipped one by its name, one of the user's by its path.

    Raises:
        UsageError: there is none of that name, no such file, or it is no TOML.
    """
    return _read_file(recipe) if is_file_name(recipe) else tomllib.loads(_shipped_text(recipe))


def with_bases(content: Content) -> list[Content]:
    """Returns the contents of the shipped recipes that one is based on, the deepest first, and it.

    Raises:
        UsageError: there is no shipped recipe of the base's name.
    """
    if "base" not in content:
        return [content]
    return [*with_bases(tomllib.loads(_shipped_text(content["base"]))), content]


def merge(contents: list[Content]) -> Content:
    """Returns recipes that build on each other as one without a base, which says the same.

    Args:
        contents: as :func:`with_bases` returns them, the deepest base first.
    """
    tables: dict[TablePath, dict[str, Any]] = {}
    for content in contents:
        for path, fields in _tables(content):
            _lay_over(tables, path, fields)
    whole = {key: value for key, value in contents[-1].items() if not _is_table(value)}
    whole.pop("base", None)
    for path, fields in tables.items():
        table = whole
        for part in path:
            table = table.setdefault(part, {})
        table |= fields
    return whole


def whole_recipe(name: str) -> Content:
    """Returns a shipped recipe with all that it takes from its bases.

    Raises:
        UsageError: there is no shipped recipe of that name.
    """
    return merge(with_bases(tomllib.loads(_shipped_text(name))))


def recipe_text(name: str) -> str:
    """Returns a shipped recipe whole, as TOML: its own file, or one made of it and its bases."""
    text = _shipped_text(name)
    if "base" not in tomllib.loads(text):
        return text
    whole = whole_recipe(name)
    lines = [f"{key} = {_toml(value)}" for key, value in whole.items() if not _is_table(value)]
    for path, fields in _tables(whole):
        lines += ["", f"[{'.'.join(path)}]"]
        lines += [f"{field} = {_toml(value)}" for field, value in fields.items()]
    return "\n".join(lines) + "\n"


def _read_file(path: str) -> Content:
    try:
        text = read_bytes(Path(path), LARGEST).decode()
        content = tomllib.loads(text)
    except FileNotFoundError:
        raise UsageError(f"there is no recipe file {path}") from None
    except VidsslError as error:
        raise UsageError(str(error)) from error
    except RecursionError:
        raise UsageError(f"{path} is no recipe: its lists are nested too deep") from None
    except ValueError as error:  # no TOML, no UTF-8, or a number of thousands of digits
        raise UsageError(f"{path} is no TOML: {error!s:.200}") from error
    if _depth(content) > DEEPEST:
        raise UsageError(f"{path} is no recipe: its tables are nested more than {DEEPEST} deep")
    return content


def _depth(content: Content) -> int:
    """Returns how deep tables and lists are nested."""
    depth = 0
    level: list[Any] = [content]
    while level:
        depth += 1
        inner = [v for c in level for v in (c.values() if _is_table(c) else c)]
        level = [value for value in inner if isinstance(value, dict | list)]
    return depth


def _shipped_text(name: str) -> str:
    names = recipe_names()
    if name not in names:
        raise UsageError(
            f"there is no recipe {name}{nearest_name(name, names)}; there are {', '.join(names)}"
        )
    return resources.files(__package__).joinpath(f"{name}{SUFFIX}").read_text("utf-8")


def _tables(
    content: Mapping[str, Any], above: TablePath = ()
) -> Iterator[tuple[TablePath, Content]]:
    """Yields each table that holds fields, with its path, in the file's order."""
    for key, value in content.items():
        if not _is_table(value):
            continue
        if any(map(_is_table, value.values())):
            yield from _tables(value, (*above, key))
        else:
            yield (*above, key), value


def _lay_over(
    tables: dict[TablePath, dict[str, Any]], path: TablePath, fields: Mapping[str, Any]
) -> None:
    """Lets a table of a recipe override those of its bases.

    It overrides those for one method or view, too, since a recipe is applied after the whole of
    its base. A `policy` sets every field of [augment]: one of the base's may undo no field of the
    recipe's, and one of the recipe's leaves no field of the base's.
    """
    *level, name = path
    for other, base_fields in tables.items():
        if other[-1] != name or list(other[: len(level)]) != level:
            continue
        if "policy" in fields:
            base_fields.clear()
        for field, value in fields.items():
            if "policy" in base_fields:
                base_fields[field] = value
            else:
                base_fields.pop(field, None)
    tables[path] = {**tables.get(path, {}), **fields}
    for emptied in [other for other, left in tables.items() if not left]:
        del tables[emptied]


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _toml(value: str | bool | float | list[Any]) -> str:
    """Returns a value as TOML, which writes texts, numbers and lists of them as JSON does."""
    return json.dumps(value, ensure_ascii=False)
