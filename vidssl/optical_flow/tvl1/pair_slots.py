"""PairSlots for many pairs on one device: their buffers, and the kernel launches that compute flow.

A slot holds one pair (:mod:`vidssl.kernels.tvl1_tiles`). The kernels need no answer from the host.
So a block of launches is always the same, and on a GPU it is recorded once as a CUDA graph. The
host learns which slots are done from a copy of the slots' states that was taken after a block,
while later blocks run.

Legend: N slots, F of them at once, S scales, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidssl.base.errors import VidsslError
from vidssl.kernels.tvl1_iteration import step, stop_converged
from vidssl.kernels.tvl1_median import median_filter
from vidssl.kernels.tvl1_stages import enter_scale, next_stage
from vidssl.kernels.tvl1_state import Field, Phase
from vidssl.kernels.tvl1_tiles import NUM_WARPS, TILE_H, TILE_W
from vidssl.kernels.tvl1_warp import linearise
from vidssl.optical_flow.tvl1.parameters import Parameters
from vidssl.optical_flow.tvl1.pyramid import pyramid

ITERATIONS = 10  # in a block: slots that stop early wait for its end
BLOCKS = 4  # launched at once


class DeviceEvent:
    """A point in the device's work that the host can wait for; on a CPU it is always reached."""

    def __init__(self, device: torch.device) -> None:
        # Blocking: a waiting thread leaves its core to threads that decode.
        self._event = torch.cuda.Event(blocking=True) if device.type == "cuda" else None
        if self._event is not None:
            self._event.record()

    def wait(self) -> None:
        if self._event is not None:
            self._event.synchronize()


class StateSnapshot:
    """A copy of the slots' states on its way to the host."""

    def __init__(self, state: Tensor, work: Tensor, device: torch.device) -> None:
        self._state, self._work = _on_host(state), _on_host(work)
        self._copied = DeviceEvent(device)

    def done(self) -> np.ndarray:
        """Waits for the copy and returns the slots whose flow is done."""
        self._copied.wait()
        return np.flatnonzero(self._state[:, Field.PHASE].numpy() == Phase.DONE)

    def side(self, slots: np.ndarray) -> np.ndarray:
        """Returns the side on which each slot's flow lies."""
        sides: np.ndarray = self._state[:, Field.U_SIDE].numpy()[slots]
        return sides

    def work(self, slots: np.ndarray) -> np.ndarray:
        """Returns the pixels times iterations that each slot took."""
        work: np.ndarray = self._work.numpy()[slots]
        return work


class FlowCopy:
    """A copy of finished flow on its way to the host."""

    def __init__(self, flow_FHW2: Tensor, device: torch.device) -> None:
        self._flow_FHW2 = _on_host(flow_FHW2)
        self._copied = DeviceEvent(device)

    def wait(self) -> np.ndarray:
        """Waits for the copy and returns float32 [F, H, W, 2]."""
        self._copied.wait()
        return self._flow_FHW2.numpy()


class PairSlots:
    """PairSlots for N pairs of at most `tiles` tiles each; sizes and stages may differ.

    Args:
        count: N.
        tiles: most tiles of TILE_H × TILE_W pixels that a picture may have; see
            :func:`tiles_of`.
        iterations: in a block.
        blocks: launched by one :meth:`advance`.
        graph: whether to record the launches as a CUDA graph.

    Raises:
        VidsslError: the device lacks memory.
    """

    def __init__(
        self,
        parameters: Parameters,
        count: int,
        tiles: int,
        device: torch.device,
        iterations: int = ITERATIONS,
        blocks: int = BLOCKS,
        graph: bool = True,
    ) -> None:
        self.parameters, self.count, self.tiles, self.device = parameters, count, tiles, device
        self.iterations, self.blocks = iterations, blocks
        self.plane = tiles * TILE_H * TILE_W
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        scales, plane = parameters.nscales, self.plane
        with self._on_device():
            try:
                self._pictures = self._zeros(count, 2, scales, plane)
                self._slope = self._zeros(count, 2, plane)
                self._data = self._zeros(count, 3, plane)
                self._u = self._zeros(count, 2, 2, plane)
                self._p = self._zeros(count, 2, 4, plane)
            except torch.OutOfMemoryError:
                raise VidsslError(
                    f"the device lacks memory for the flow of {count} pairs at once"
                ) from None
            self._partial = self._zeros(count, tiles)
            self._tolerance = self._zeros(count, scales)
            self._shapes = self._zeros(count, scales, 3, dtype=torch.int32)
            self._state = self._zeros(count, len(Field), dtype=torch.int32)
            self._work = self._zeros(count, dtype=torch.int64)
        self._graph = self._recorded() if graph and device.type == "cuda" else None

    def enter(self, slots: Sequence[int], pictures_F2HW: np.ndarray) -> None:
        """Puts pairs of one size, uint8, into slots that are empty or done."""
        parameters, (height, width) = self.parameters, pictures_F2HW.shape[2:]
        sizes = parameters.scales(height, width)
        with self._on_device():
            which = self._upload(np.asarray(slots))
            pictures = self._upload(pictures_F2HW).float().flatten(0, 1)
            for scale, level in enumerate(pyramid(pictures, sizes, parameters.scale_step)):
                pitch = pitch_of(level.shape[2])
                rows = F.pad(level, (0, pitch - level.shape[2])).flatten(1).unflatten(0, (-1, 2))
                self._pictures[:, :, scale, : rows.shape[2]][which] = rows
            shapes = np.zeros((parameters.nscales, 3), np.int32)
            shapes[: len(sizes)] = [(rows, columns, pitch_of(columns)) for rows, columns in sizes]
            tolerance = np.zeros(parameters.nscales, np.float32)
            tolerance[: len(sizes)] = [parameters.tolerance(*size) for size in sizes]
            state = np.zeros(len(Field), np.int32)
            # As if a scale coarser than the coarsest were finished: `next_stage` then enters the
            # coarsest.
            state[Field.PHASE] = Phase.RUNNING
            state[Field.STOPPED] = state[Field.CONVERGED] = 1
            state[Field.SCALE] = state[Field.SCALES] = len(sizes)
            state[Field.WARP] = parameters.warps - 1
            self._shapes[which] = self._upload(shapes)
            self._tolerance[which] = self._upload(tolerance)
            self._state[which] = self._upload(state)
            self._work[which] = 0

    def advance(self) -> StateSnapshot:
        """Launches some blocks and returns the states after them; waits for nothing."""
        with self._on_device():
            if self._graph is not None:
                self._graph.replay()
            else:
                self._launch()
            return StateSnapshot(self._state, self._work, self.device)

    def fetch(self, slots: np.ndarray, sides: np.ndarray, size: tuple[int, int]) -> FlowCopy:
        """Begins to copy the flow of slots that are done, all of one size (H, W).

        The slots may be filled again at once.
        """
        height, width = size
        pitch = pitch_of(width)
        with self._on_device():
            which, side = self._upload(slots), self._upload(sides.astype(np.int64))
            flow = self._u[which, side, :, : height * pitch].unflatten(2, (height, pitch))
            flow_FHW2 = flow[..., :width].permute(0, 2, 3, 1).contiguous()
            return FlowCopy(flow_FHW2, self.device)

    # ── launching

    def _launch(self) -> None:
        for _ in range(self.blocks):
            self._launch_block()

    def _launch_block(self) -> None:
        p, every, state = self.parameters, (self.tiles, self.count), self._state
        many = {
            "plane": self.plane, "H": TILE_H, "W": TILE_W, "num_warps": NUM_WARPS
        }  # fmt: skip
        scales = {"S": p.nscales}
        next_stage[(self.count,)](
            state, self._shapes, p.outer_iterations, p.warps, **scales, num_warps=1
        )
        enter_scale[every](
            self._u, self._p, self._slope, self._pictures, state, self._shapes, 1 / p.scale_step,
            **scales, **many,
        )  # fmt: skip
        linearise[every](self._u, self._data, self._slope, self._pictures, state, **scales, **many)
        median_filter[(*every, 2)](self._u, self._p, state, p.dual_step, **many)
        for _ in range(self.iterations):
            self._iterate()

    def _iterate(self) -> None:
        p, tile = self.parameters, {"H": TILE_H, "W": TILE_W}
        step[self.tiles, self.count](
            self._u, self._p, self._data, self._partial, self._state, self.tiles,
            p.data_step, p.dual_step, p.coupling,
            plane=self.plane, **tile, num_warps=NUM_WARPS,
        )  # fmt: skip
        stop_converged[(self.count,)](
            self._partial, self._state, self._tolerance, self._work, self.tiles,
            p.inner_iterations, S=p.nscales, **tile, num_warps=1,
        )  # fmt: skip

    def _recorded(self) -> torch.cuda.CUDAGraph:
        with self._on_device():
            self._launch_block()  # with empty slots: compiles what is not compiled yet
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self.device),
            torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
        ):
            self._launch()
        return graph

    # ── the device

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Makes the device and this object's stream the current ones."""
        if self._stream is None:
            yield
            return
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream), torch.no_grad():
            yield

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def _upload(self, array: np.ndarray) -> Tensor:
        host = torch.from_numpy(np.ascontiguousarray(array))
        if self._stream is None:
            return host
        # From pinned memory: a copy from other memory would wait for all work on the device.
        return host.pin_memory().to(self.device, non_blocking=True)


def pitch_of(width: int) -> int:
    """Returns the places from one row of a plane to the next, for pictures of a width."""
    return -(-width // TILE_W) * TILE_W


def tiles_of(height: int, width: int) -> int:
    """Returns the tiles that a picture of this size needs."""
    return -(-height // TILE_H) * -(-width // TILE_W)


def bytes_per_tile(scales: int) -> int:
    """Returns the device memory that one tile of a slot takes."""
    return 4 * (TILE_H * TILE_W * (2 * scales + 17) + 1)


def _on_host(x: Tensor) -> Tensor:
    """Starts a copy to pinned memory, or copies at once where there is no device."""
    if x.device.type != "cuda":
        return x.clone()
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)
