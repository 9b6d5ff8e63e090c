"""Kernels are used only where they are on, run, and give what plain PyTorch gives."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable

import pytest

from vidssl.base.errors import SlowerWay, UsageError
from vidssl.kernels.start_up_check import fault_of, kernels_work
from vidssl.kernels.switch import kernels_are_on


def difference(expected: int, found: int) -> str | None:
    return None if expected == found else f"{found} is not {expected}"


class Computation:
    """Returns a number or raises an error, and counts how often it was asked to."""

    def __init__(self, result: int | Exception) -> None:
        self.result, self.runs = result, 0

    def __call__(self) -> int:
        self.runs += 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def works(kernels: Callable[[], int], twin: Callable[[], int] | None = None) -> bool:
    return kernels_work("these kernels", twin or Computation(7), kernels, difference)


@pytest.fixture(autouse=True)
def triton(monkeypatch):
    """Triton looks installed, whether it is or not."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.delenv("VIDSSL_KERNELS", raising=False)


@pytest.mark.parametrize("state", [None, "on"])
def test_kernels_that_agree_are_used_in_silence(state, monkeypatch):
    if state is not None:
        monkeypatch.setenv("VIDSSL_KERNELS", state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert works(Computation(7))


def test_kernels_that_are_off_are_not_even_tried(monkeypatch):
    monkeypatch.setenv("VIDSSL_KERNELS", "off")
    twin, kernels = Computation(7), Computation(7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not works(kernels, twin)
    assert (twin.runs, kernels.runs) == (0, 0)


@pytest.mark.parametrize("state", ["", "0", "OFF", "maybe"])
def test_any_other_value_is_one_sentence(state, monkeypatch):
    monkeypatch.setenv("VIDSSL_KERNELS", state)
    with pytest.raises(UsageError) as told:
        kernels_are_on()
    assert str(told.value) == f"VIDSSL_KERNELS must be on or off, not {state!r}"


def test_kernels_that_disagree_are_told_in_one_sentence():
    with pytest.warns(SlowerWay) as told:
        assert not works(Computation(8))
    (one,) = told
    assert str(one.message) == (
        "these kernels do not work here, and plain PyTorch, which is slower, does it: 8 is not 7"
    )


def test_kernels_that_do_not_compile_or_start_are_told():
    with pytest.warns(SlowerWay, match="does it: RuntimeError: no ptxas$"):
        assert not works(Computation(RuntimeError("no ptxas")))


def test_an_error_that_shows_when_results_are_read_is_the_kernels_fault():
    def unreadable(expected: int, found: int) -> None:
        raise RuntimeError("illegal address")

    assert fault_of(Computation(7), Computation(7), unreadable) == "RuntimeError: illegal address"


def test_an_error_of_plain_pytorch_is_not_hidden():
    with pytest.raises(RuntimeError, match="no memory"):
        works(Computation(7), Computation(RuntimeError("no memory")))


def test_without_triton_the_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    kernels = Computation(7)
    with pytest.warns(SlowerWay, match=r"Triton is not installed \(pip install 'vidssl\[gpu\]'\)"):
        assert not works(kernels)
    assert kernels.runs == 0


def test_the_switch_needs_no_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    for name in ("switch", "start_up_check"):
        monkeypatch.delitem(sys.modules, f"vidssl.kernels.{name}")
    check, switch = (
        importlib.import_module(f"vidssl.kernels.{name}") for name in ("start_up_check", "switch")
    )
    assert switch.kernels_are_on() and check.fault_of is not fault_of
