"""Work beside what follows it: on a CUDA stream of its own, where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


def begun(work: Callable[[], Result], stream: torch.cuda.Stream | None) -> Callable[[], Result]:
    """Begins `work` on a stream; gives what waits for it there and returns its result.

    Without a stream nothing is begun: the work is done when its result is asked for.

    The stream begins after all that was queued so far, and is waited for before its result is used.
    So each of the two finds the other's memory free again only when it has been read to the end,
    and the allocator need not be told.
    """
    if stream is None:
        return work
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    with torch.cuda.stream(stream):
        result = work()

    def joined() -> Result:
        torch.cuda.current_stream(stream.device).wait_stream(stream)
        return result

    return joined
