"""Fixtures that several test files share."""

import os
import shutil
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # before anything imports Triton: its kernels then run on a CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Networks this small are faster in one thread, above all where tests run side by side."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> dict[str, Path]:
    """Videos and a workspace in which the pipeline has run up to cotrain; read only."""
    from cli_workspace import make_videos, run_pipeline

    root = tmp_path_factory.mktemp("finished")
    videos, workspace = make_videos(root / "videos"), root / "workspace"
    run_pipeline(videos, workspace)
    return {"videos": videos, "workspace": workspace}


@pytest.fixture
def copied(finished, tmp_path) -> dict[str, Path]:
    """The same, in a copy that a test may change."""
    workspace = tmp_path / "workspace"
    shutil.copytree(finished["workspace"], workspace)
    return {"videos": finished["videos"], "workspace": workspace}
