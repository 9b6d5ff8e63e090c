"""Recipes: every number of a training run, in shipped TOML files and the user's overrides.

A file holds tables for all methods and, under a method's (and view's) name, what differs:

    [clip]            frames, stride, size          [coclr.train]        only for coclr
    [train]           epochs, lr, …                 [coclr.flow.train]   only its flow stream
    [coclr.method]    the fields of the method's Config
    [probe]           how `vidssl probe --recipe` trains its classifier
    [finetune.evaluation]  how a finetuned network is tested, no part of its training; likewise
                           [linear.evaluation], where the encoder is frozen

`policy` in [augment] takes all of :data:`vidssl.augment.POLICIES`' entry of that name, which the
table's other fields then change.

Beside them a file says `title`; one of a published run also the method it is `of`, what the paper
`reports`, and the recipe that is its `base`, of which it then holds only the differences.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from vidssl.augment import AugmentSpec, get_policy
from vidssl.backbones import check_backbone
from vidssl.base.errors import UsageError, nearest_name, require
from vidssl.base.settings import configure, like, literal
from vidssl.clips.batch import ClipSpec
from vidssl.engine.optimizers import TrainSpec
from vidssl.evaluation.linear_probe import ProbeConfig
from vidssl.methods import METHODS


@dataclass(frozen=True)
class NetworkSpec:
    """Which network: an entry of BACKBONES, and the width of its projection head."""

    backbone: str = "s3d"
    project: int = 128

    def __post_init__(self) -> None:
        check_backbone(self.backbone)
        require("project", self.project, self.project >= 0, "0 (no head) or more")


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe. `explicit` names the fields that the user set, as opposed to defaults."""

    name: str
    method: str
    network: NetworkSpec
    clip: ClipSpec
    augment: AugmentSpec
    train: TrainSpec
    config: Any
    explicit: frozenset[str] = frozenset()

    def as_dict(self) -> dict[str, Any]:
        """Returns what identifies a run: every number, as plain JSON data."""
        tables = {name: dataclasses.asdict(getattr(self, part)) for name, part in PARTS.items()}
        tables["train"]["milestones"] = list(self.train.milestones)
        tables["augment"] = self.augment.as_dict()
        if self.clip.blocks == 1:  # came later: runs of whole clips keep their identity
            del tables["clip"]["blocks"]
        return {"recipe": self.name, "method_name": self.method, **tables}

    def override(self, part: str, **values: Any) -> Recipe:
        """Returns the recipe with some fields of one part changed."""
        return replace(self, **{part: replace(getattr(self, part), **values)})


@dataclass(frozen=True)
class RecipeCard:
    """What a recipe says of itself.

    Attributes:
        method: the one it is of; None: it has numbers for all.
        reports: what the paper reports of the run, empty where there is no paper.
    """

    title: str
    method: str | None = None
    reports: str = ""


@dataclass(frozen=True)
class EvaluationSpec:
    """How a network with a classifier is tested. Defaults: CoCLR's and ViCC's published code.

    Attributes:
        crops: "ten" or "centre" (:class:`vidssl.evaluation.features.WindowProtocol`).
        hop: frames between the starts of two windows; None: 16·stride − 1 for 32 frames.
        weight: of the stream's probabilities where those of several are averaged.
    """

    crops: str = "ten"
    hop: int | None = None
    weight: float = 1.0


PARTS = {
    "network": "network",
    "clip": "clip",
    "augment": "augment",
    "train": "train",
    "method": "config",
}


def recipe_names() -> list[str]:
    """Returns the names of the shipped recipes."""
    files = resources.files(__package__).iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def load_recipe(
    name: str, method: str, stream: str, overrides: Iterable[tuple[str, Any]] = ()
) -> Recipe:
    """Resolves a shipped recipe for a method and a stream.

    Args:
        overrides: (field, value) pairs; a value may be a text, read as TOML where it is any.
            A field is known by its name, or as PART.NAME.

    Raises:
        UsageError: an unknown recipe, method or field, or a value of the wrong type.
    """
    if method not in METHODS:
        raise UsageError(
            f"there is no method {method}{nearest_name(method, METHODS)}; "
            f"there are {', '.join(METHODS)}"
        )
    recipe = Recipe(
        name, method, NetworkSpec(), ClipSpec(), AugmentSpec(), TrainSpec(),
        METHODS[method].Config(),
    )  # fmt: skip
    for text in _with_bases(name):
        own = text.get(method, {})
        for layer in (text, own, own.get(stream, {})):
            recipe = _apply(recipe, {p: layer[p] for p in PARTS if p in layer})
    settings: dict[str, dict[str, Any]] = {}
    for field, value in overrides:
        part, field = _locate(recipe, field)
        settings.setdefault(part, {})[field] = literal(value)
    explicit = frozenset(field for fields in settings.values() for field in fields)
    return replace(_apply(recipe, settings), explicit=explicit)


def probe_config(name: str | None, overrides: Iterable[tuple[str, Any]] = ()) -> ProbeConfig:
    """Returns how a probe is trained: the [probe] of a shipped recipe, and what the user set.

    Args:
        name: None: the defaults.

    Raises:
        UsageError: an unknown recipe or field, or a value of the wrong type.
    """
    config = ProbeConfig()
    for text in _with_bases(name) if name is not None else []:
        config = configure("a probe", config, text.get("probe", {}).items())
    return configure("a probe", config, overrides)


def own_table(name: str, method: str, stream: str, table: str) -> dict[str, Any]:
    """Returns what a recipe says in a table for one method (and stream) alone, bases included."""
    found: dict[str, Any] = {}
    for text in _with_bases(name):
        own = text.get(method, {})
        for layer in (own, own.get(stream, {})):
            found |= layer.get(table, {})
    return found


def evaluation_of(name: str, method: str, stream: str) -> EvaluationSpec:
    """Returns how a recipe tests what one of the methods of finetuning made of a stream."""
    told = own_table(name, method, stream, "evaluation")
    return configure("an evaluation", EvaluationSpec(), told.items())


def recipe_card(name: str) -> RecipeCard:
    """Returns what a recipe says of itself."""
    text = _read(name)
    return RecipeCard(text["title"], text.get("of"), text.get("reports", ""))


def _with_bases(name: str) -> list[dict[str, Any]]:
    """Returns a recipe's text after the texts of those it is based on, the deepest first."""
    text = _read(name)
    return [*(_with_bases(text["base"]) if "base" in text else []), text]


def _read(name: str) -> dict[str, Any]:
    if name not in recipe_names():
        raise UsageError(
            f"there is no recipe {name}{nearest_name(name, recipe_names())}; "
            f"there are {', '.join(recipe_names())}"
        )
    return tomllib.loads(resources.files(__package__).joinpath(f"{name}.toml").read_text())


def _apply(recipe: Recipe, tables: Mapping[str, Mapping[str, Any]]) -> Recipe:
    for part, values in tables.items():
        current = getattr(recipe, PARTS[part])
        known = {f.name for f in dataclasses.fields(current)}
        for field in values:
            if field not in known:
                raise UsageError(
                    f"{part} of {recipe.method} has no field {field}{nearest_name(field, known)}"
                )
        typed = {f: like(f, getattr(current, f), value) for f, value in values.items()}
        if part == "augment" and "policy" in typed:
            recipe = replace(recipe, augment=get_policy(typed["policy"]))
        recipe = recipe.override(PARTS[part], **typed)
    return recipe


def _locate(recipe: Recipe, field: str) -> tuple[str, str]:
    part, _, name = field.rpartition(".")
    fields = {
        p: [f.name for f in dataclasses.fields(getattr(recipe, attribute))]
        for p, attribute in PARTS.items()
    }
    homes = [p for p in fields if name in fields[p] and part in ("", p)]
    if not homes:
        names = [n for names in fields.values() for n in names]
        raise UsageError(
            f"{recipe.method} has no setting {field}{nearest_name(name, names)}; "
            f"its own are {', '.join(fields['method'])}"
        )
    return homes[0], name
