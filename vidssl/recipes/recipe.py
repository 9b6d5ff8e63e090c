"""Resolves recipes: every number of a training run, from TOML files and the user's overrides.

A file holds tables for all methods and, under a method's (and view's) name, what differs:

    [clip]            frames, stride, size          [coclr.train]        only for coclr
    [train]           epochs, lr, …                 [coclr.flow.train]   only its flow stream
    [coclr.method]    the fields of the method's Config
    [probe]           how `vidssl probe --recipe` trains its classifier
    [finetune.evaluation]  how a finetuned network is tested, no part of its training; likewise
                           [linear.evaluation], where the encoder is frozen

`policy` in [augment] takes all of :data:`vidssl.augment.POLICIES`' entry of that name, which the
table's other fields then change.

Beside them a file says `title`, and `recorded_as` where it is an earlier form of another recipe,
whose finished runs it finds again; one of a published run also the method it is `of`, what the
paper `reports`, and the shipped recipe that is its `base`, of which it then holds only the
differences.

A shipped recipe is chosen by its name, a file of the user's by its path.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vidssl.augment import AugmentSpec, get_policy
from vidssl.backbones import check_backbone
from vidssl.base.errors import UsageError, nearest_name, require
from vidssl.base.typed_settings import added_later, configure, identity_of, like, literal
from vidssl.clips.batch import ClipSpec
from vidssl.engine.train_spec import TrainSpec
from vidssl.evaluation.linear_probe import ProbeConfig
from vidssl.methods import METHODS, METHODS_BY_STAGE
from vidssl.recipes.recipe_file import Content, is_file_name, read_recipe, recorded_name, with_bases
from vidssl.views import all_views


@dataclass(frozen=True)
class NetworkSpec:
    """Which network: an entry of BACKBONES, the width of its projection head, and its BatchNorm."""

    backbone: str = "s3d"
    project: int = 128
    head_norm: bool = added_later(False)

    def __post_init__(self) -> None:
        check_backbone(self.backbone)
        require("project", self.project, self.project >= 0, "0 (no head) or more")


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


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe.

    Attributes:
        name: of the shipped recipe; of a file of the user's, the file's name without its suffix.
        config: the method's own numbers, an instance of its Config.
        explicit: the fields that the user set, as opposed to defaults.
        own_clip: the fields of the clip that the recipe sets for this method alone.
        evaluation: how the network is tested that finetuning makes; no part of the identity.
    """

    name: str
    method: str
    network: NetworkSpec
    clip: ClipSpec
    augment: AugmentSpec
    train: TrainSpec
    config: Any
    explicit: frozenset[str] = frozenset()
    own_clip: frozenset[str] = frozenset()
    evaluation: EvaluationSpec = EvaluationSpec()

    def as_dict(self) -> dict[str, Any]:
        """Returns what identifies a run: every number, as plain JSON data."""
        tables = {name: identity_of(getattr(self, part)) for name, part in PARTS.items()}
        tables["train"]["milestones"] = list(self.train.milestones)
        tables["augment"] = self.augment.as_dict()
        return {"recipe": self.name, "method_name": self.method, **tables}

    def override(self, part: str, **values: Any) -> Recipe:
        """Returns the recipe with some fields of one part changed."""
        return replace(self, **{part: replace(getattr(self, part), **values)})


@dataclass(frozen=True)
class RecipeCard:
    """What a recipe file states about the recipe, beside the numbers.

    Attributes:
        method: the one method that it is for; None: it has numbers for all.
        reports: results that the paper reports of this run; empty where there is no paper.
    """

    title: str
    method: str | None = None
    reports: str = ""


WORDS = ("title", "of", "base", "reports", "recorded_as")  # what a file holds beside the tables
PARTS = {
    "network": "network",
    "clip": "clip",
    "augment": "augment",
    "train": "train",
    "method": "config",
}


def load_recipe(
    name: str, method: str, stream: str, overrides: Iterable[tuple[str, Any]] = ()
) -> Recipe:
    """Resolves a recipe for a method and a stream.

    Args:
        name: of a shipped recipe, or the path of a file.
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
    contents = _contents(name, method)
    recorded = contents[-1].get("recorded_as", recorded_name(name))
    recipe = resolve(recorded, contents, method, stream)
    settings: dict[str, dict[str, Any]] = {}
    for field, value in overrides:
        part, field = _locate(recipe, field)
        settings.setdefault(part, {})[field] = literal(value)
    explicit = frozenset(field for fields in settings.values() for field in fields)
    return replace(_apply(recipe, settings), explicit=explicit)


def probe_config(name: str | None, overrides: Iterable[tuple[str, Any]] = ()) -> ProbeConfig:
    """Returns how a probe is trained: the [probe] of a recipe, and what the user set.

    Args:
        name: of a shipped recipe, or the path of a file; None: the defaults.

    Raises:
        UsageError: an unknown recipe or field, or a value of the wrong type.
    """
    config = ProbeConfig()
    for content in _contents(name) if name is not None else []:
        config = configure("a probe", config, content.get("probe", {}).items())
    return configure("a probe", config, overrides)


def recipe_card(name: str) -> RecipeCard:
    """Returns a recipe's title, its method, and the results that its paper reports."""
    content = _contents(name)[-1]
    return RecipeCard(content.get("title", ""), content.get("of"), content.get("reports", ""))


def _contents(name: str, method: str | None = None) -> list[Content]:
    """Reads a recipe's bases, the deepest first, and then the recipe itself.

    A user's file is checked; shipped ones are checked by the tests.

    Args:
        method: the one to be trained: a file is checked for it even if it has no table for it.
    """
    content = read_recipe(name)
    if not is_file_name(name):
        return with_bases(content)
    try:
        _check_names(content)
        contents = with_bases(content)
        _check_fields(contents, method)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    return contents


def resolve(name: str, contents: Iterable[Content], method: str, stream: str) -> Recipe:
    """Resolves contents of recipe files, each over the ones before it, for a method and a stream.

    Args:
        name: that runs record.

    Raises:
        UsageError: a field that does not exist, or a value that it does not take.
    """
    recipe = Recipe(
        name, method, NetworkSpec(), ClipSpec(), AugmentSpec(), TrainSpec(),
        METHODS[method].Config(),
    )  # fmt: skip
    own_clip: set[str] = set()
    evaluation: dict[str, Any] = {}
    for content in contents:
        own = content.get(method, {})
        for layer in (content, own, own.get(stream, {})):
            recipe = _apply(recipe, {p: layer[p] for p in PARTS if p in layer})
        for layer in (own, own.get(stream, {})):
            own_clip |= layer.get("clip", {}).keys()
            evaluation |= layer.get("evaluation", {})
    tested = configure("an evaluation", EvaluationSpec(), evaluation.items())
    return replace(recipe, own_clip=frozenset(own_clip), evaluation=tested)


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


# ── a file of the user's ─────────────────────────────────────────────────────────────────────


def _check_names(content: Content) -> None:
    """Checks the names of a file's tables, and title, method and base.

    Raises:
        UsageError: the sentence names the nearest that there is.
    """
    tables = [*PARTS, "probe", *METHODS]
    for key, value in content.items():
        if key in tables:
            _require_table(key, value)
        elif key not in WORDS:
            raise UsageError(
                f"a recipe has no table {key}{nearest_name(key, [*tables, *WORDS])}; it has "
                f"{', '.join(tables)}"
            )
        elif not isinstance(value, str):
            raise UsageError(f"{key} takes a text, not {value!r:.100}")
    if "of" in content and content["of"] not in METHODS:
        known = f"{nearest_name(content['of'], METHODS)}; there are {', '.join(METHODS)}"
        raise UsageError(f"there is no method {content['of']}{known}")
    for method in METHODS.keys() & content.keys():
        _check_own_tables(method, content[method], [*all_views()])


def _check_own_tables(path: str, tables: Mapping[str, Any], views: list[str]) -> None:
    method = path.partition(".")[0]
    tested = METHODS[method] in METHODS_BY_STAGE["finetune"].values()
    parts = [*PARTS, "evaluation"] if tested else [*PARTS]
    for key, value in tables.items():
        if key not in parts + views:
            raise UsageError(f"{path} has no table {key}{nearest_name(key, parts + views)}")
        _require_table(f"{path}.{key}", value)
        if key in views:
            _check_own_tables(f"{path}.{key}", value, [])


def _require_table(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise UsageError(f"{name} is a table of fields, which begins with [{name}]")


def _check_fields(contents: list[Content], method: str | None) -> None:
    """Checks fields and values of all tables, also of those that this run does not read.

    Raises:
        UsageError: a field that does not exist, or a value that it does not take.
    """
    content = contents[-1]
    configure("a probe", ProbeConfig(), content.get("probe", {}).items())
    methods = METHODS.keys() & content.keys()
    for each in sorted(methods | ({method} if method else set())):
        streams = [key for key in content.get(each, {}) if key not in PARTS]
        for stream in streams or [""]:
            resolve("", contents, each, stream)
