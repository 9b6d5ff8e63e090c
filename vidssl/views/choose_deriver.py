"""Chooses what derives a view: one of vidssl's own networks, or one that a user offers.

A file named in VIDSSL_VIEWS may offer further networks for views that exist:

    DERIVERS = {"pose": {"mymodel": MyPoseDeriver}, "mask": {"mymodel": MyMaskDeriver}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vidssl.base.errors import UsageError, nearest_name
from vidssl.base.optional_packages import is_installed
from vidssl.views import all_views, get_view
from vidssl.views.blazepose import BLAZEPOSE
from vidssl.views.deriver import Deriver
from vidssl.views.plugins import VARIABLE, plugin_derivers
from vidssl.views.view import View


def find_derivers(
    views: Sequence[str], model: str | None, device: str, weights: str = ""
) -> list[type[Deriver]]:
    """Returns the class that derives each of some views, all by the same network.

    Args:
        views: names; several are made in one pass.
        model: the network; None: the default of this device.
        device: cpu or cuda.
        weights: a file that the user named; then it is not looked for in the cache.

    Raises:
        UsageError: a view or network does not exist, or makes not all of these views in one pass.
    """
    if model is None and len(views) > 1 and any(BLAZEPOSE in get_view(v).models for v in views):
        model = BLAZEPOSE  # the only one of vidssl's own that makes several
    derivers = [find_deriver(get_view(view), model, device, weights) for view in views]
    one = derivers[0]
    if len(views) > 1 and not (set(views) <= set(one.makes) and _same_makers(derivers)):
        what = f"{model or 'what derives them'} makes one view at a time"
        raise UsageError(
            f"{' and '.join(views)} cannot be made in one pass: {what}; give one command for each"
        )
    return derivers


def _same_makers(derivers: Sequence[type[Deriver]]) -> bool:
    """Whether derivers share the code that makes several views, so that any of them may do it."""
    return len({deriver.derive_together for deriver in derivers}) == 1


def find_deriver(view: View, model: str | None, device: str, weights: str = "") -> type[Deriver]:
    """Returns the class that derives a view; the arguments are those of :func:`find_derivers`."""
    offered = _offered().get(view.name, {})
    if model is not None and model in offered:
        return offered[model]
    if not view.models:
        return view.deriver()  # a view of a user's own may take no argument
    chosen = model or _default_model(view, device, weights)
    known = [*view.models, *offered]
    if chosen not in known:
        raise UsageError(
            f"there is no model {chosen} for this view{nearest_name(chosen, known)}; "
            f"there are {', '.join(known)}"
        )
    return view.deriver(chosen)


def _offered() -> dict[str, dict[str, type[Deriver]]]:
    offered = plugin_derivers()
    views = all_views()
    for name, derivers in offered.items():
        if name not in views:
            raise UsageError(
                f"DERIVERS of a file in {VARIABLE} names a view {name!r}"
                f"{nearest_name(name, views)}, which does not exist"
            )
        if taken := derivers.keys() & set(views[name].models):
            raise UsageError(
                f"DERIVERS of a file in {VARIABLE} has a model {min(taken)} of {name}, as vidssl "
                "itself has: rename it"
            )
    return offered


def _default_model(view: View, device: str, weights: str) -> str:
    """Returns BlazePose on a CPU where its package and weights are there, else the first network.

    Weights that the user named without a model are torchvision's, unless their name ends as those
    of BlazePose do.
    """
    if BLAZEPOSE in view.models and weights.endswith((".task", ".tflite")):
        return BLAZEPOSE
    if device == "cpu" and BLAZEPOSE in view.models and not weights:
        from vidssl.views.blazepose.weights import cached_file

        if is_installed("ai_edge_litert") and cached_file() is not None:
            return BLAZEPOSE
    return view.models[0]


def usable_device(deriver: type[Deriver], device: str) -> str:
    """Returns `device` if the deriver can compute there, else the first one that it can use."""
    return device if device in deriver.devices else deriver.devices[0]


def recall_deriver(
    view: str, recorded: Mapping[str, Any], weights: str, device: str
) -> tuple[type[Deriver], Any]:
    """Returns the class that derived frames that are stored, and its `Config`.

    Args:
        recorded: what its `describe` returned; `model` in it says which network it was.

    Raises:
        VidsslError: the network or its weights are missing, or are not those recorded.
    """
    model = recorded.get("model")
    deriver = find_deriver(get_view(view), model if isinstance(model, str) else None, device)
    return deriver, deriver.recall(recorded, weights)
