"""What options say, as stages take it."""

from __future__ import annotations

import os
from typing import Any

from vidssl.base.errors import UsageError


def settings_from(texts: list[str] | None, **named: Any) -> tuple[tuple[str, Any], ...]:
    """Returns (field, value) pairs from `--set FIELD=VALUE` and from options of their own."""
    return (*only_given(**named).items(), *pairs_from("--set", texts))


def pairs_from(option: str, texts: list[str] | None) -> tuple[tuple[str, str], ...]:
    """Returns (name, value) of texts such as `lr=0.01`."""
    pairs = []
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            example = {"--set": "FIELD=VALUE, such as --set lr=0.01"}.get(option, "VIEW=FILE")
            raise UsageError(f"{option} takes {example}, not {text!r}")
        pairs.append((name.strip(), value.strip()))
    return tuple(pairs)


def division(shard: str | None, workers: int | None, dask: str | None) -> dict[str, Any]:
    """Returns the options that say who works on the videos: workers, part, dask."""
    from vidssl.extraction.partition import choose_part

    if dask is None:
        return {"workers": workers, "part": choose_part(shard, os.environ)}
    for option, value in (("--shard", shard), ("--workers", workers)):
        if value is not None:
            raise UsageError(f"the dask cluster divides the work by itself: leave {option} out")
    return {"dask": dask}


def names_in(text: str | None) -> tuple[str, ...]:
    """Returns the names in a text such as `rgb,flow`."""
    return tuple(name.strip() for name in text.split(",")) if text else ()


def only_given(**values: Any) -> dict[str, Any]:
    """Returns the values that are not None: what is not said is the stage's own default."""
    return {name: value for name, value in values.items() if value is not None}
