"""Reads small stored files: regular, bounded in size, UTF-8, JSON that fits a dataclass.

What was written by vidssl comes back as a typed record. Anything else (a damaged file, one that
was edited by hand, a device, a text nested without end) ends in one sentence that names the file.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from vidssl.base.errors import VidsslError
from vidssl.base.files import SENTENCES, system_sentence
from vidssl.base.files import open_regular as open_regular

LARGEST = 64 << 20  # bytes of a small file; manifests of 100,000 videos take a tenth of it
DEEPEST = 64  # nested lists and objects in JSON

_Record = TypeVar("_Record")


class DamagedFile(VidsslError):
    """A stored file does not hold what vidssl writes. The sentence names the file."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The allowed values of a field: `field(metadata=bounded(at_least=1))`."""

    at_least: float | None = None
    at_most: float | None = None
    pattern: str | None = None

    def problem(self, value: Any) -> str | None:
        """Returns what is wrong with a value, or None."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            if self.at_least is not None and value < self.at_least:
                return f"must be at least {self.at_least:g}"
            if self.at_most is not None and value > self.at_most:
                return f"must be at most {self.at_most:g}"
        if self.pattern and isinstance(value, str) and not re.fullmatch(self.pattern, value):
            return f"must look like {self.pattern}"
        return None


def bounded(
    at_least: float | None = None, at_most: float | None = None, pattern: str | None = None
) -> dict[str, Bounds]:
    """Returns the metadata of a dataclass field with bounds."""
    return {"bounds": Bounds(at_least, at_most, pattern)}


def read_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """Returns the bytes of a small regular file.

    Raises:
        VidsslError: the path is no regular file, or the file is larger than `largest` bytes.
        FileNotFoundError: there is no such file.
    """
    try:
        with open_regular(path) as file:
            data = file.read(largest + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        said = system_sentence(error, path) if error.errno in SENTENCES else None
        raise VidsslError(said or f"{path} cannot be read: {error.strerror}") from error
    if len(data) > largest:
        raise DamagedFile(f"{path} is damaged: it has more than {largest} bytes")
    return data


def read_text(path: Path, largest: int = LARGEST) -> str:
    """Returns the text of a small regular file in UTF-8.

    Raises:
        VidsslError: as :func:`read_bytes`, or the text is not UTF-8.
        FileNotFoundError: there is no such file.
    """
    try:
        return read_bytes(path, largest).decode("utf-8")
    except UnicodeDecodeError:
        raise DamagedFile(f"{path} is damaged: it is not UTF-8 text") from None


def parse_json(text: str, where: Path | str) -> Any:
    """Returns the value of a JSON text.

    Args:
        where: the file, for the sentence of an error.

    Raises:
        DamagedFile: the text is not JSON, is nested too deep, or has a number that is not finite.
    """
    if _depth(text) > DEEPEST:
        raise DamagedFile(f"{where} is damaged: its JSON is nested more than {DEEPEST} deep")
    try:
        return json.loads(text, parse_constant=_not_finite)
    except (ValueError, RecursionError):
        raise DamagedFile(f"{where} is damaged: it is not JSON") from None


def _not_finite(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _depth(text: str) -> int:
    """Returns how deep brackets are nested in a JSON text; those in strings do not count."""
    deepest = depth = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    return deepest


def read_json(path: Path, largest: int = LARGEST) -> Any:
    """Returns the value in a small JSON file.

    Raises:
        VidsslError: as :func:`read_text` and :func:`parse_json`.
        FileNotFoundError: there is no such file.
    """
    return parse_json(read_text(path, largest), path)


def read_record(cls: type[_Record], path: Path, largest: int = LARGEST) -> _Record:
    """Returns the record in a small JSON file; errors as :func:`read_json` and :func:`record`."""
    return record(cls, read_json(path, largest), path)


def record(cls: type[_Record], value: Any, where: Path | str, ignore: bool = False) -> _Record:
    """Returns a dataclass with the fields of a JSON object, each of the annotated type.

    Known types: str, int, float, bool, None, Any, `X | Y`, list, tuple, dict, Mapping and other
    dataclasses. A whole number may stand for a float; a bool stands for no number. Fields may have
    :func:`bounded` metadata.

    Args:
        where: the file (and the place in it), for the sentence of an error.
        ignore: leave out fields that the dataclass does not have; else they are an error.

    Raises:
        DamagedFile: a field is missing, unknown, of another type or out of bounds.
    """
    return _record(cls, value, "", where, ignore)


def _record(cls: type[Any], value: Any, at: str, where: Path | str, ignore: bool) -> Any:
    if not isinstance(value, Mapping):
        _fail(where, at, "an object", value)
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls) if f.init}
    if (unknown := [name for name in value if name not in known]) and not ignore:
        raise DamagedFile(f"{where} is damaged: it has an unknown field {at}{unknown[0]!s:.60}")
    found = {}
    for name, field in known.items():
        if name not in value:
            if _has_default(field):
                continue
            raise DamagedFile(f"{where} is damaged: it has no {at}{name}")
        found[name] = _typed(hints[name], value[name], f"{at}{name}", where, ignore)
        bounds: Bounds | None = field.metadata.get("bounds")
        if bounds and (problem := bounds.problem(found[name])):
            raise DamagedFile(f"{where} is damaged: {at}{name} {problem}, not {value[name]!r:.60}")
    return cls(**found)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _typed(hint: Any, value: Any, at: str, where: Path | str, ignore: bool) -> Any:
    """Returns `value` as the type `hint` says, or raises DamagedFile."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _one_of(inner, value, at, where, ignore)
    if dataclasses.is_dataclass(hint):
        return _record(typing.cast(type, hint), value, f"{at}.", where, ignore)
    if origin is tuple and inner[-1:] != (Ellipsis,):
        if not isinstance(value, list | tuple) or len(value) != len(inner):
            _fail(where, at, f"a list of {len(inner)}", value)
        items = zip(inner, value, strict=True)
        return tuple(_typed(h, v, f"{at}[{i}]", where, ignore) for i, (h, v) in enumerate(items))
    if origin in (list, tuple) or hint in (list, tuple):
        if not isinstance(value, list | tuple):
            _fail(where, at, "a list", value)
        each = inner[0] if inner else Any
        made = (_typed(each, v, f"{at}[{i}]", where, ignore) for i, v in enumerate(value))
        return (origin or hint)(made)
    if (origin or hint) in (dict, Mapping):
        if not isinstance(value, Mapping):
            _fail(where, at, "an object", value)
        each = inner[1] if inner else Any
        return {k: _typed(each, v, f"{at}.{k!s:.60}", where, ignore) for k, v in value.items()}
    return _plain(hint, value, at, where)


def _one_of(hints: tuple[Any, ...], value: Any, at: str, where: Path | str, ignore: bool) -> Any:
    for hint in hints:
        try:
            return _typed(hint, value, at, where, ignore)
        except DamagedFile as error:
            problem = error
    raise problem


def _plain(hint: Any, value: Any, at: str, where: Path | str) -> Any:
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    if hint is float:
        return float(value) if _is_number(value) else _fail(where, at, names[float], value)
    if hint in (None, type(None)):
        return None if value is None else _fail(where, at, "null", value)
    if isinstance(value, hint) and isinstance(value, bool) == (hint is bool):
        return value
    return _fail(where, at, names[hint], value)


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _fail(where: Path | str, at: str, expected: str, value: Any) -> typing.NoReturn:
    name = at.rstrip(".") or "it"
    raise DamagedFile(f"{where} is damaged: {name} must be {expected}, not {value!r:.60}")
