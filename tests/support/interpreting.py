"""Triton's interpreter, on which kernels run where there is no GPU (conftest.py turns it on)."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from typing import Any

import pytest
import torch

# Of tests of kernels: those that a GPU runs are among those that are for GPUs.
CUDA_WHERE_THERE_IS = [pytest.mark.cuda] if torch.cuda.is_available() else []


def use_the_interpreter() -> None:
    """Quickens kernels on the interpreter, or skips a file of tests where it cannot loop.

    That of Triton 3.6 makes a loop's bounds of arrays by int(), which NumPy 2.4 refuses.
    """
    triton, numpy = (tuple(map(int, version(n).split(".")[:2])) for n in ("triton", "numpy"))
    if not torch.cuda.is_available() and triton < (3, 7) and numpy >= (2, 4):
        pytest.skip(
            "this Triton's interpreter cannot loop with this NumPy", allow_module_level=True
        )
    if not torch.cuda.is_available():
        _quicken()


def _quicken() -> None:
    """Halves the time of kernels on the interpreter, where it is as it is in Triton 3.8.

    It prepares Triton's whole language again at every call of a function within a kernel, and asks
    of every sum of integers whether it overflowed, which none of a test's size can.
    """
    try:
        interpreter = import_module("triton.runtime.interpreter")
        function, options = interpreter.InterpretedFunction, interpreter.interpreter_builder.options
        if (
            callable(function.rewrite)
            and callable(interpreter._patch_lang)
            and options.sanitize_overflow
        ):
            function.__call__ = _call
            interpreter.interpreter_builder.options = replace(options, sanitize_overflow=False)
    except (ImportError, AttributeError, TypeError):
        return  # another release: slower, and as right


def _call(self: Any, *arguments: Any, **named: Any) -> Any:
    """Calls a function within a kernel; the kernel's call has prepared what vidssl's own need."""
    module = self.fn.__module__
    if not module.startswith("vidssl.") and module not in _PREPARED:
        import_module("triton.runtime.interpreter")._patch_lang(self.fn)  # which is never undone
        _PREPARED.add(module)
    return self.rewrite()(*arguments, **named)


_PREPARED: set[str] = set()
