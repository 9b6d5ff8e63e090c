"""Runs a network in TensorFlow Lite's format on one core, with ai-edge-litert."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vidssl.base.errors import VidsslError
from vidssl.base.held_stderr import HeldStderr
from vidssl.base.optional_packages import require_extra


def require_interpreter() -> None:
    """Checks that ai-edge-litert is installed.

    Raises:
        VidsslError: it is not; the sentence says how to install it.
    """
    require_extra("pose", "--model blazepose", "ai_edge_litert")


def make_interpreter(model: bytes) -> Any:
    """Returns ai-edge-litert's interpreter of a network."""
    require_interpreter()
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_content=model, num_threads=1)


class Network:
    """A network with one input and several outputs.

    Args:
        model: the bytes of its file.
        where: the file, for the sentences of errors.
        side: of its input, in pixels.
        outputs: their shapes, each another one.

    Raises:
        VidsslError: the bytes are no network, or one with other inputs or outputs.
    """

    def __init__(
        self, model: bytes, where: str, side: int, outputs: Sequence[tuple[int, ...]]
    ) -> None:
        with HeldStderr() as said:  # it tells which of its parts it uses, line after line
            try:
                interpreter = make_interpreter(model)
                interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                said.forget()
                raise VidsslError(
                    f"{where} cannot be used: it is no network in TensorFlow Lite's format, or a "
                    "damaged one"
                ) from error
            said.forget_lines("INFO:")
        self._interpreter = interpreter
        inputs = interpreter.get_input_details()
        found = {tuple(map(int, o["shape"])): o["index"] for o in interpreter.get_output_details()}
        wanted = (1, side, side, 3)
        if [tuple(map(int, i["shape"])) for i in inputs] != [wanted] or found.keys() != {*outputs}:
            raise VidsslError(f"{where} is another network than BlazePose's of this name")
        self._input = inputs[0]["index"]
        self._outputs = [found[shape] for shape in outputs]

    def run(self, x_1HW3: np.ndarray) -> list[np.ndarray]:
        """Returns the outputs, in the order of their shapes, for an input float32 [1, H, W, 3]."""
        self._interpreter.set_tensor(self._input, x_1HW3)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]
