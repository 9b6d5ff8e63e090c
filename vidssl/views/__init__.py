"""The views of a video: rgb, flow, pose, mask, and a user's own.

A view says how its frames are stored, mirrored and shown to a network. Each is one file here and
one entry of :data:`VIEWS`, or a file of a user's own (:mod:`vidssl.views.plugins`).

A machine that only trains loads no detector and no flow algorithm. The networks that derive views
(:mod:`vidssl.views.keypoint_rcnn`, :mod:`vidssl.views.person_segmentation`) are imported by
:meth:`vidssl.views.view.View.deriver` alone, flow algorithms
(:mod:`vidssl.optical_flow.algorithms`) by `vidssl extract-flow` and `vidssl retrieve QUERY`.
"""

from __future__ import annotations

from vidssl.base.errors import UsageError, nearest_name
from vidssl.views.flow import FlowView
from vidssl.views.mask import MaskView
from vidssl.views.plugins import VARIABLE, plugin_views
from vidssl.views.pose import PoseView
from vidssl.views.rgb import RgbView
from vidssl.views.view import View

__all__ = ["VIEWS", "View", "all_views", "get_view"]

VIEWS: dict[str, View] = {
    view.name: view for view in (RgbView(), FlowView(), PoseView(), MaskView())
}


def all_views() -> dict[str, View]:
    """Returns {name: view} of vidssl's views and the user's own.

    Raises:
        UsageError: one of the user's own cannot be loaded, or has the name of one of vidssl's.
    """
    own = plugin_views()
    if taken := own.keys() & VIEWS.keys():
        raise UsageError(
            f"a view named in {VARIABLE} is called {min(taken)}, as one of vidssl is: rename it"
        )
    return VIEWS | own


def get_view(name: str) -> View:
    """Returns the view called `name`.

    Raises:
        UsageError: there is none; the message names the nearest and lists all.
    """
    if name in VIEWS:
        return VIEWS[name]
    views = all_views()
    if name not in views:
        raise UsageError(
            f"there is no view named {name!r}{nearest_name(name, views)}: the views are "
            f"{', '.join(views)} (one of your own is named in {VARIABLE})"
        )
    return views[name]
