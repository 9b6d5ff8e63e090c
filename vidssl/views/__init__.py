"""The views of a video that can be stored, learnt from and compared.

A view is one file here and one row of :data:`VIEWS`. Nothing in this package but
:mod:`vidssl.views.flow_algorithms` needs a flow algorithm, and nothing decodes video, so a
machine that only trains needs neither.
"""

from __future__ import annotations

from vidssl.errors import UsageError, nearest_name
from vidssl.views.flow import FlowView
from vidssl.views.rgb import RgbView
from vidssl.views.view import View

__all__ = ["VIEWS", "View", "get_view"]

VIEWS: dict[str, View] = {view.name: view for view in (RgbView(), FlowView())}


def get_view(name: str) -> View:
    """Gives the view called `name`.

    Raises:
        UsageError: there is none; the sentence names the nearest and lists all.
    """
    if name not in VIEWS:
        listed = ", ".join(VIEWS)
        raise UsageError(
            f"there is no view named {name!r}{nearest_name(name, VIEWS)}: the views are {listed}"
        )
    return VIEWS[name]
