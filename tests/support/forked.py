"""Starts processes that have imported torch already, so that a test pays for that once.

A process is forked from a server that has imported what takes long and has done nothing else. It is
a process of its own in every way: it can be killed, it has its own environment and its own output.
Tests of what happens while modules are imported start Python itself instead.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from patience import PATIENCE

IMPORTED = [
    "torch", "torch.distributed", "torchvision", "cv2", "av", "h5py", "safetensors.torch", "typer",
    "rich.progress", "vidssl.cli", "vidssl.engine.loop", "vidssl.training.training_run",
    "vidssl.stages.cotrain", "vidssl.stages.pretrain", "vidssl.stages.finetune",
    "vidssl.stages.extract_flow", "vidssl.stages.pack", "vidssl.stages.demo",
]  # fmt: skip


class Forked:
    """One such process, with what it prints.

    Args:
        target: called in the process; its SystemExit is the exit code.
        environment: variables beside those of the test.
        session: in a session of its own, as a terminal starts it.
    """

    def __init__(
        self,
        target: Callable[..., Any],
        *arguments: Any,
        environment: Mapping[str, str] | None = None,
        session: bool = False,
    ) -> None:
        folder = Path(tempfile.mkdtemp(prefix="forked-"))
        self._out, self._err = folder / "out", folder / "err"
        variables = {str(k): str(v) for k, v in {**os.environ, **(environment or {})}.items()}
        files = (str(self._out), str(self._err))
        context = _context()
        self._process = context.Process(
            target=_run, args=(target, arguments, variables, files, session)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code; of a process that a signal ended, the negative signal; None: it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Returns :attr:`returncode`."""
        return self.returncode

    def wait(self, timeout: float = PATIENCE) -> int:
        """Waits until the process has ended; returns its exit code."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"it still runs after {timeout} s: {self.said()}"
        return self._process.exitcode

    def communicate(self, timeout: float = PATIENCE) -> tuple[str, str]:
        """Waits until the process has ended; returns what it printed, out and err."""
        self.wait(timeout)
        return self.said()

    def said(self) -> tuple[str, str]:
        """Returns what the process has printed so far, out and err."""
        return tuple(p.read_text() if p.exists() else "" for p in (self._out, self._err))  # type: ignore[return-value]

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def run_vidssl(*arguments: object, environment: Mapping[str, str] | None = None) -> Forked:
    """Starts `vidssl ARGUMENTS`."""
    return Forked(call_vidssl, [str(a) for a in arguments], environment=environment)


def run_ranks(target: Callable[..., Any], *arguments: Any, ranks: int = 2) -> None:
    """Runs a function in several processes, with the variables that torchrun sets; all must end."""
    with tempfile.TemporaryDirectory() as folder:
        common = {
            "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": _free_port(), "OMP_NUM_THREADS": 1, "TORCHELASTIC_RUN_ID": folder,
        }  # fmt: skip
        started = [
            Forked(target, *arguments, environment=common | {"RANK": rank, "LOCAL_RANK": rank})
            for rank in range(ranks)
        ]
        deadline = time.monotonic() + PATIENCE
        while any(process.returncode is None for process in started):
            failed = [process for process in started if process.returncode]
            if failed or time.monotonic() > deadline:
                said = [process.said()[1][-3000:] for process in failed or started]
                for process in started:
                    process.kill()
                raise AssertionError("\n".join(said))
            time.sleep(0.02)
        assert all(process.returncode == 0 for process in started), [p.said() for p in started]


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    if getattr(forkserver._forkserver, "_forkserver_pid", None) is None:
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"
        context.set_forkserver_preload(IMPORTED)
        try:
            forkserver.ensure_running()
        finally:
            if before is None:
                del os.environ["OMP_NUM_THREADS"]
            else:
                os.environ["OMP_NUM_THREADS"] = before
    return context


def call_vidssl(arguments: Sequence[str]) -> None:
    """Runs the command line as the program does; to be called in such a process."""
    from vidssl.__main__ import main

    sys.argv = ["vidssl", *arguments]
    main()


def _run(
    target: Callable[..., Any],
    arguments: tuple[Any, ...],
    variables: dict[str, str],
    files: tuple[str, str],
    session: bool,
) -> None:
    if session:
        os.setsid()
    os.environ.clear()
    os.environ.update(variables)
    for descriptor, path in zip((1, 2), files, strict=True):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    target(*arguments)
