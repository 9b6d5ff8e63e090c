"""Collective operations among torchrun's processes; in a single process they do nothing.

Legend: W ranks, B rows per rank.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vidssl.base.errors import VidsslError


def launched() -> int:
    """Returns W, the number of processes that torchrun started; it needs no process group."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched_by_torchrun() -> bool:
    """Whether this process is one of several that torchrun started."""
    return launched() > 1


def start(device_type: str) -> None:
    """Joins torchrun's process group, if there is one: NCCL for CUDA tensors, gloo for others.

    Flags and plain data use gloo, so that they do not wait for a GPU.
    """
    if launched_by_torchrun() and not dist.is_initialized():
        if device_type == "cuda":  # else NCCL would use the first device in every rank
            torch.cuda.set_device(local_device(device_type))
        dist.init_process_group("cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo")


def leave(code: int = 0) -> None:
    """Ends this process if it is in a process group; else does nothing.

    A thread of gloo frees an operation's tensors some time after the operation has ended. If the
    interpreter is shutting down by then, the thread aborts the process, and torchrun reports a
    finished run as failed. So the process ends without shutting the interpreter down.
    """
    if not dist.is_initialized():
        return
    if code == 0:  # after an error other ranks may be gone, and this would wait for them
        dist.destroy_process_group()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


@contextmanager
def lost_process_is_one_sentence() -> Iterator[None]:
    """Turns the error of a collective operation whose other processes are gone into one sentence.

    Raises:
        VidsslError: another process of this group has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if world_size() > 1 and ("gloo" in str(error) or isinstance(error, dist.DistBackendError)):
            raise VidsslError(
                "another process of this training has ended; the same command, with as many "
                "processes, goes on from what was saved last"
            ) from error
        raise


def world_size() -> int:
    """Returns W, 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Returns this process's rank, 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_device(kind: str) -> torch.device:
    """Returns this process's device: torchrun's local rank picks the CUDA device."""
    if kind == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(kind)


@torch.no_grad()
def gather(rows_B: Tensor) -> Tensor:
    """Returns the rows of all ranks [W·B, …] in rank order, without gradient."""
    if world_size() == 1:
        return rows_B.detach()
    parts = [torch.empty_like(rows_B) for _ in range(world_size())]
    dist.all_gather(parts, rows_B.contiguous())
    return torch.cat(parts)


class _GatherWithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_B: Tensor) -> Tensor:
        ctx.rows = rows_B.shape[0]
        return gather(rows_B)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Each rank has its own loss, and DDP averages the gradients of parameters. The sum over
        # ranks here makes gradients equal those of one process with the global batch.
        dist.all_reduce(gradient)
        begin = rank() * ctx.rows
        return gradient[begin : begin + ctx.rows]


def gather_with_gradient(rows_B: Tensor) -> Tensor:
    """Like :func:`gather`, but gradients flow back to the rank that a row came from."""
    return rows_B if world_size() == 1 else _GatherWithGradient.apply(rows_B)


def sum_over_ranks(value: Tensor) -> Tensor:
    """Returns the sum of `value` over all ranks, without gradient."""
    if world_size() > 1:
        value = value.detach().clone()
        dist.all_reduce(value)
    return value


def max_over_ranks(value: Tensor) -> Tensor:
    """Returns the elementwise maximum of `value` over all ranks, without gradient."""
    if world_size() > 1:
        value = value.detach().clone()
        dist.all_reduce(value, dist.ReduceOp.MAX)
    return value


def mean_in_rank_order(gradients: Tensor) -> torch.futures.Future[Tensor]:
    """Averages gradients over the ranks, added up in rank order: a communication hook for DDP.

    DDP itself adds in an order that depends on a gradient's place in its bucket, and puts other
    gradients into a bucket after the first step of a process. With three or more ranks a resumed
    training would be rounded otherwise than one that went through.
    """
    parts = gather(gradients[None])
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(total / len(parts))
    return done


def any_rank(flag: bool) -> bool:
    """Whether `flag` is set on any rank; all ranks must call it at the same step."""
    if world_size() == 1:
        return flag
    value = torch.tensor(int(flag))
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())


def from_rank_zero(value: Any) -> Any:
    """Returns the `value` of rank 0 (plain Python data) on every rank."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def all_ranks(value: Any) -> list[Any]:
    """Returns the values of all ranks in rank order, on every rank: plain data and CPU tensors."""
    if world_size() == 1:
        return [value]
    box: list[Any] = [None] * world_size()
    dist.all_gather_object(box, value)
    return box


@torch.no_grad()
def with_shuffled_batch(
    encode: Callable[[Tensor], Tensor], x_B: Tensor, generator: torch.Generator
) -> Tensor:
    """Shuffles a batch over the ranks, encodes it, and puts the rows back in order.

    Shuffle-BN (He et al. 2020, MoCo §3.3): the BatchNorm statistics of a key come from other clips
    than those of its query, so that they do not reveal the pair.

    Args:
        generator: in the same state on every rank.
    """
    if world_size() == 1:
        return encode(x_B)
    order = torch.randperm(world_size() * len(x_B), generator=generator)
    shuffled = gather(encode(_rows_of_ranks(x_B, order.view(world_size(), -1))))
    back = torch.argsort(order).view(world_size(), -1)[rank()]
    return shuffled[back.to(x_B.device, non_blocking=True)]


def _rows_of_ranks(x_B: Tensor, wanted_WB: Tensor) -> Tensor:
    """Returns the rows of all ranks' x that this rank wants, in the wanted order.

    Each row is sent only to the rank that wants it. (MoCo gathers all rows on all ranks, which
    sends W times as many bytes, and clips are large.)

    Args:
        wanted_WB: for each rank the numbers of its rows among the rows of all ranks; on the CPU.
    """
    here, rows = rank(), len(x_B)
    owner_WB = wanted_WB // rows
    mine_WB = owner_WB == here
    send_B = wanted_WB[mine_WB] - here * rows  # by the rank that wants them
    last = x_B.movedim(1, -1)
    as_it_lies = last if last.is_contiguous() else x_B  # channels may come last in memory
    send = as_it_lies[send_B.to(x_B.device, non_blocking=True)].contiguous()
    received = torch.empty_like(send)
    counts = torch.bincount(owner_WB[here], minlength=world_size()).tolist()
    dist.all_to_all_single(received, send, counts, mine_WB.sum(1).tolist())
    # Received rows are ordered by the rank that sent them.
    place_B = torch.argsort(torch.argsort(owner_WB[here], stable=True))
    found = received[place_B.to(x_B.device, non_blocking=True)]
    return found if as_it_lies is x_B else found.movedim(-1, 1)
