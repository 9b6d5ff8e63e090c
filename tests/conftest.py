"""Fixtures that several test files share."""

import os
import shutil
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # before anything imports Triton: its kernels then run on a CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")


# Files whose tests start processes, run whole stages, train networks or run kernels on Triton's
# interpreter. All others are quick, and `pytest -m quick` does not even import these.
LONGER = {
    "augment": ["augment_policies"],
    "backbones": ["activation_checkpointing", "backbones", "published_weights"],
    "base": ["distributed", "parallel_jobs", "signals"],
    "benchmarks": ["*"],
    "cli": ["bad_inputs", "completion", "console", "help", "main", "next_step", "pipeline"],
    "clips": ["frame_cache", "gpu_batches", "loader"],
    "cuda": ["cuda"],
    "engine": ["collapse", "compile", "divergence", "resume", "step"],
    "evaluation": ["feature_cache", "handmade_features", "leakage", "linear_probe"],
    "extraction": ["*"],
    "faults": ["*"],
    "kernels": ["*"],
    "methods": ["contract", "ddp", "finetune_method", "golden_trajectory", "method_backbones"],
    "optical_flow": ["*"],
    "report": ["*"],
    "retrieval": ["contact_sheet"],
    "shards": ["shards"],
    "stages": ["*"],
    "tests": ["docs", "package", "results", "security"],
    "training": ["training_interrupts", "trial_steps"],
    "views": ["own_views", "person_segmentation", "pose", "rcnn", "torchvision_networks", "views"],
    "workspace": ["*"],
}


def is_longer(path: Path) -> bool:
    """Whether a test file is one of :data:`LONGER`."""
    names = LONGER.get(path.parent.name, [])
    return "*" in names or path.stem.removeprefix("test_") in names


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves longer files out where quick tests are asked for."""
    quick = config.getoption("markexpr") == "quick"
    return True if quick and is_longer(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as quick what is neither longer, nor slow, nor for a GPU."""
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        if not is_longer(item.path) and not marks & {"slow", "cuda"}:
            item.add_marker("quick")


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
