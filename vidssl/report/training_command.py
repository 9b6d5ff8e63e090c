"""Writes the command that trains a checkpoint again, from the settings that it recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from shlex import join
from typing import Any

from vidssl.base.errors import VidsslError
from vidssl.methods import METHODS_BY_STAGE
from vidssl.recipes.recipe import PARTS, load_recipe
from vidssl.recipes.recipe_file import recipe_names
from vidssl.workspace.artifacts import Artifact

DRAWN = ("80/20", "all")  # splits that no column names
# Where these are not set, they are fitted to the data, even if the recipe has the same numbers.
FITTED = ("epochs", "batch_size", "queue", "k")
PARENT_OPTIONS = {"pack": "--pack", "student": "--student", "partner": "--partner"}


def training_command(checkpoint: Artifact, known: Mapping[str, Artifact]) -> str:
    """Returns the command that trains a checkpoint again; empty where none can be told.

    It names the recipe, each number that differs from the recipe's, and those that would be fitted
    to the data. None can be told of imported weights, of finetuned networks, of a user's own recipe
    file, and of inputs that are gone.

    Args:
        known: {digest: artifact} of the workspace.
    """
    recipe = checkpoint.recipe
    stage, name, stream = (recipe.get(key) for key in ("stage", "recipe", "stream"))
    if stage not in ("pretrain", "cotrain") or name not in recipe_names():
        return ""
    words = ["vidssl", str(stage), "--stream", str(stream), "--recipe", str(name)]
    words += ["--method", _word(str(stage), str(recipe.get("method_name")))]
    for option, field in (("--split", "split"), ("--seed", "seed"), ("--precision", "precision")):
        value = recipe.get(field)
        if value is not None and not (field == "split" and value in DRAWN):
            words += [option, str(value)]
    for role, option in PARENT_OPTIONS.items():
        if role in checkpoint.parents:
            parent = known.get(checkpoint.parents[role])
            if parent is None:
                return ""
            words += [option, parent.label.partition("/")[2]]
    words += [word for setting in _settings(recipe) for word in ("--set", setting)]
    return join([*words, "--name", checkpoint.name])


def _word(stage: str, method: str) -> str:
    """Returns what `--method` calls a method in a stage."""
    words = {kind.name: word for word, kind in METHODS_BY_STAGE[stage].items()}
    return words.get(method, method)


def _settings(recorded: Mapping[str, Any]) -> list[str]:
    """Returns PART.FIELD=VALUE for each number that the named recipe does not have."""
    try:
        named = load_recipe(recorded["recipe"], recorded["method_name"], recorded["stream"])
    except (VidsslError, KeyError):
        return []
    found = []
    for part, attribute in PARTS.items():
        usual = asdict(getattr(named, attribute))
        for field, value in (recorded.get(part) or {}).items():
            differs = field in FITTED or _plain(usual.get(field)) != _plain(value)
            if value is not None and differs:
                found.append(f"{part}.{field}={_literal(value)}")
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _literal(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
