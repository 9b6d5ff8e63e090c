"""How many cores a process may use: affinity, a container's quota, torchrun's ranks."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

import vidssl
from vidssl.base import cores_and_memory


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch, tmp_path):
    """A process that may run on eight cores, in the group /a/b of an empty tree of groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    own = tmp_path / "own"
    own.write_text("1:cpu:/elsewhere\n0::/a/b\n")
    monkeypatch.setattr(cores_and_memory, "OWN_GROUP", own)
    monkeypatch.setattr(cores_and_memory, "CONTROL_GROUPS", tmp_path / "groups")
    (tmp_path / "groups" / "a" / "b").mkdir(parents=True)


def grant(tmp_path: Path, group: str, text: str) -> None:
    (tmp_path / "groups" / group / "cpu.max").write_text(text)


def test_the_cores_it_may_run_on(tmp_path):
    assert cores_and_memory.cores() == 8
    grant(tmp_path, "a", "max 100000\n")
    assert cores_and_memory.cores() == 8


def test_the_least_quota_of_its_group_and_those_above(tmp_path):
    grant(tmp_path, "a", "250000 100000\n")
    assert cores_and_memory.cores() == 2
    grant(tmp_path, "a/b", "400000 100000\n")
    assert cores_and_memory.cores() == 2
    grant(tmp_path, "a/b", "50000 100000\n")
    assert cores_and_memory.cores() == 1


def test_ranks_share_them(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert cores_and_memory.cores() == 2
    grant(tmp_path, "a", "600000 100000\n")
    assert cores_and_memory.cores() == 1


def test_a_system_without_control_groups(monkeypatch, tmp_path):
    monkeypatch.setattr(cores_and_memory, "OWN_GROUP", tmp_path / "nowhere")
    assert cores_and_memory.cores() == 8


def test_nothing_else_counts_cores():
    package = Path(vidssl.__file__).parent
    counters = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("cpu_count", "sched_getaffinity")
    ]
    assert set(counters) == {"base/cores_and_memory.py"}


def test_the_memory_of_the_machine_or_of_its_group(tmp_path, monkeypatch):
    monkeypatch.setattr(cores_and_memory, "MEMORY", tmp_path / "meminfo")
    assert cores_and_memory.memory() is None
    (tmp_path / "meminfo").write_text("MemTotal:  1000 kB\nMemAvailable:  600 kB\n")
    assert (cores_and_memory.memory(), cores_and_memory.free_memory()) == (1024000, 614400)
    (tmp_path / "groups" / "a" / "memory.max").write_text("5000\n")
    (tmp_path / "groups" / "a" / "b" / "memory.max").write_text("max\n")
    assert cores_and_memory.memory() == 5000
