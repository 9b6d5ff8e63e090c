"""Decides at start-up whether Triton kernels are used, or plain PyTorch in their place.

Kernels depend on the machine: on the compiler that builds them and on the GPU that runs them. So
each set of kernels is tried on a small example before it is used: plain PyTorch computes the same,
and the results are compared. Where kernels do not work, the user is told in one sentence, and
plain PyTorch, which gives the same result more slowly, is used.

VIDSSL_KERNELS=off turns all kernels off, without a warning (:mod:`vidssl.kernels.switch`).

This module imports no Triton: it also serves machines without it.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import TypeVar

from vidssl.base.errors import SlowerWay
from vidssl.kernels.switch import kernels_are_on

_Result = TypeVar("_Result")


def kernels_work(
    name: str,
    run_twin: Callable[[], _Result],
    run_kernels: Callable[[], _Result],
    difference: Callable[[_Result, _Result], str | None],
) -> bool:
    """Returns whether kernels may be used; where they are on and do not work, warns why.

    Args:
        name: of the kernels, plural: the beginning of the sentence.
        run_twin: computes a small example in plain PyTorch.
        run_kernels: computes the same example by the kernels; imports them, too.
        difference: gets both results and returns how they differ by more than is tolerated, as
            the end of the sentence; None: they agree.

    Raises:
        UsageError: as of :func:`kernels_are_on`.
    """
    if not kernels_are_on():
        return False
    fault = fault_of(run_twin, run_kernels, difference)
    if fault is not None:
        told = f"{name} do not work here, and plain PyTorch, which is slower, does it: {fault}"
        warnings.warn(SlowerWay(told), stacklevel=3)
    return fault is None


def fault_of(
    run_twin: Callable[[], _Result],
    run_kernels: Callable[[], _Result],
    difference: Callable[[_Result, _Result], str | None],
) -> str | None:
    """Returns why kernels do not work: no Triton, an error, or another result; None: they do.

    Args as of :func:`kernels_work`.
    """
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install 'vidssl[gpu]')"
    expected = run_twin()
    try:
        # A GPU reports some errors only when results are read, so they are compared in here.
        return difference(expected, run_kernels())
    except Exception as error:  # compilers and drivers raise nearly anything
        return f"{type(error).__name__}: {error}"
