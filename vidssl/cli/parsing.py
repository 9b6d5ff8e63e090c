"""Turns the texts of options into what stages take: settings, names, parts of the work."""

from __future__ import annotations

import os
from typing import Any

from vidssl.base.errors import UsageError


def settings_from(texts: list[str] | None, **named: Any) -> tuple[tuple[str, Any], ...]:
    """Returns (field, value) pairs: those of `named` that are not None, then those of --set."""
    return (*only_given(**named).items(), *pairs_from("--set", texts))


def pairs_from(option: str, texts: list[str] | None) -> tuple[tuple[str, str], ...]:
    """Returns (name, value) pairs of texts such as `lr=0.01`.

    Args:
        option: the texts' option, for the sentence of an error.

    Raises:
        UsageError: a text without a name or an equals sign.
    """
    pairs = []
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            example = {"--set": "FIELD=VALUE, such as --set lr=0.01"}.get(option, "VIEW=FILE")
            raise UsageError(f"{option} takes {example}, not {text!r}")
        pairs.append((name.strip(), value.strip()))
    return tuple(pairs)


def division(shard: str | None, workers: int | None, dask: str | None) -> dict[str, Any]:
    """Returns the stage's options that divide the videos among processes.

    They are `workers` and `part`, or `dask`.

    Raises:
        UsageError: there is no such part, or an option that a dask cluster has no use for.
    """
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


def splits_in(split: str | None, splits: str | None) -> tuple[str, ...]:
    """Returns the names of several splits that were asked for; empty: one split, or the default.

    Args:
        split: of --split; several names are divided by commas.
        splits: of --splits: "all", or names.

    Raises:
        UsageError: both were given.
    """
    if split is not None and splits is not None:
        raise UsageError("--split and --splits name the same thing: give one of them")
    if splits is not None:
        return names_in(splits)
    return names_in(split) if split is not None and "," in split else ()


def only_given(**values: Any) -> dict[str, Any]:
    """Returns the values that are not None; for the others the stage's own defaults hold."""
    return {name: value for name, value in values.items() if value is not None}
