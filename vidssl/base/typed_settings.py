"""Sets the typed fields of frozen dataclasses from the texts that a user types."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from vidssl.base.errors import UsageError, nearest_name

_Config = TypeVar("_Config")

LARGEST = 2**63 - 1  # whole number, as TOML has them
KINDS = {
    "tuple": "a list of whole numbers, such as [60, 80]",
    "str": "a text",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
}


def added_later(default: Any) -> Any:
    """Returns a field of a dataclass that older runs do not have.

    At its default it is left out of a run's identity (:func:`identity_of`), so that a finished run
    of an older version is found again.
    """
    return dataclasses.field(default=default, metadata={"added_later": True})


def identity_of(config: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass as plain data, but for added ones at their defaults."""
    added = {f.name: f.default for f in dataclasses.fields(config) if "added_later" in f.metadata}
    whole = dataclasses.asdict(config)
    return {k: v for k, v in whole.items() if k not in added or v != added[k]}


def configure(owner: str, config: _Config, settings: Iterable[tuple[str, Any]]) -> _Config:
    """Returns a copy of `config` with some fields set.

    Args:
        owner: of the fields, for the sentence of an error.
        settings: (field, value); a text is read as TOML, unless the field itself is a text.

    Raises:
        UsageError: there is no such field (the sentence names the nearest), or the value has the
            wrong type.
    """
    known = [f.name for f in dataclasses.fields(config)]  # type: ignore[arg-type]
    for name, value in settings:
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UsageError(f"{owner} has no setting {name}{nearest_name(name, known)}; {has}")
        example = getattr(config, name)
        if not isinstance(example, str):  # a text stays one, such as a file called 2024
            value = literal(value)
        config = dataclasses.replace(config, **{name: like(name, example, value)})  # type: ignore[type-var]
    return config


def literal(value: Any) -> Any:
    """Returns the TOML value in a text, or the text if it is not TOML; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # no TOML, or a number or a list without end
        return value


def like(name: str, example: Any, value: Any) -> Any:
    """Returns `value` converted to the type of `example`.

    Args:
        name: of the field, for the sentence of an error.
        example: the field's present value; None stands for a whole number.

    Raises:
        UsageError: the value has another type.
    """
    kind = int if example is None else type(example)
    if kind is float:
        fits = _is_number(value)
    elif kind is tuple:
        number = _is_number if any(isinstance(v, float) for v in example) else _is_whole
        fits = isinstance(value, list | tuple) and all(map(number, value))
    elif kind is int:
        fits = _is_whole(value)
    else:
        fits = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
    if not fits:
        raise UsageError(f"{name} takes {_kind(example)}, not {_shown(value)}")
    return kind(value)


def _kind(example: Any) -> str:
    if isinstance(example, tuple) and any(isinstance(v, float) for v in example):
        return "a list of numbers, such as [0.6, 0.8]"
    return KINDS["int" if example is None else type(example).__name__]


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return _is_whole(value) if isinstance(value, int) else math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.200}"
    except (ValueError, RecursionError):  # thousands of digits, or of lists in each other
        return "what it says"


def flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (name, value) of nested settings, with names joined by dots."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
