"""The switch for all Triton kernels: the environment variable VIDSSL_KERNELS.

VIDSSL_KERNELS=off turns them off, without a warning; "on" is the default. It is read here alone.
"""

from __future__ import annotations

import os

from vidssl.base.errors import UsageError

VARIABLE = "VIDSSL_KERNELS"
STATES = ("on", "off")


def kernels_are_on() -> bool:
    """Returns whether the user allows kernels: VIDSSL_KERNELS is not set, or "on".

    Raises:
        UsageError: it is neither "on" nor "off".
    """
    state = os.environ.get(VARIABLE, "on")
    if state not in STATES:
        raise UsageError(f"{VARIABLE} must be {' or '.join(STATES)}, not {state!r}")
    return state == "on"
