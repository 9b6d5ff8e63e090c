"""Settings as a user types them: texts turned into the typed fields of a frozen dataclass."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable
from typing import Any, TypeVar

from vidssl.errors import UsageError, nearest_name

_Config = TypeVar("_Config")

KINDS = {
    "tuple": "a list of whole numbers, such as [60, 80]",
    "str": "a text",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
}


def configure(owner: str, config: _Config, settings: Iterable[tuple[str, Any]]) -> _Config:
    """Gives `config` with some fields set; a value may be a text, read as TOML where it is any.

    Args:
        owner: what the fields belong to, for the sentence of an error.

    Raises:
        UsageError: there is no such field (the sentence names the nearest), or a value of the
            wrong type.
    """
    known = [f.name for f in dataclasses.fields(config)]  # type: ignore[arg-type]
    for name, value in settings:
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UsageError(f"{owner} has no setting {name}{nearest_name(name, known)}; {has}")
        example = getattr(config, name)
        if not isinstance(example, str):  # a file may be called 2024
            value = literal(value)
        config = dataclasses.replace(config, **{name: like(name, example, value)})  # type: ignore[type-var]
    return config


def literal(value: Any) -> Any:
    """Gives what a text says in TOML, or the text itself; other values are left alone."""
    if not isinstance(value, str):
        return value
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def like(name: str, example: Any, value: Any) -> Any:
    """Gives `value` in the type of `example`, the field's value so far.

    Raises:
        UsageError: it is of another type.
    """
    if isinstance(example, bool) or isinstance(value, bool):
        fits = isinstance(example, bool) and isinstance(value, bool)
    elif isinstance(example, float):
        fits = isinstance(value, int | float)
    elif isinstance(example, tuple):
        fits = isinstance(value, list | tuple) and all(isinstance(v, int) for v in value)
    else:
        fits = isinstance(value, type(example))
    if not fits:
        raise UsageError(f"{name} takes {KINDS[type(example).__name__]}, not {value!r}")
    return type(example)(value)
