"""Two gloo processes: ranks stay in sync, equal one process, and resume exactly.

Starting processes takes longer than training in them, so all methods share each start.
"""

from pathlib import Path

import ddp_worker
import pytest
import torch
from methods import BUILDERS
from two_processes import ends, launch

from vidssl.base.errors import VidsslError

# Not of a linear layer above a frozen encoder: BatchNorm stands between them, by its nature.
LINEAR = [f"linear-{method}" for method in BUILDERS if method != "linear"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    launch(BUILDERS, folder)
    return folder


@pytest.fixture(scope="module")
def resumed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    launch(BUILDERS, folder, stop_at=5)
    for method in BUILDERS:
        assert not ends(folder / method)
        assert all((folder / method / f"interrupted.{rank}").exists() for rank in (0, 1))
    launch(BUILDERS, folder)
    return folder


@pytest.fixture(scope="module")
def linear(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("linear")
    launch(LINEAR, folder)
    return folder


@pytest.fixture(scope="module")
def linear_by_four(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("four")
    launch(LINEAR, folder, ranks=4)
    return folder


@pytest.mark.parametrize("method", BUILDERS)
def test_two_processes_stay_in_sync(method, whole):
    first, second = ends(whole / method)
    for name, value in first["parameters"].items():
        assert value.equal(second["parameters"][name]), name
    own = [n for n, b in first["buffers"].items() if not b.equal(second["buffers"][n])]
    assert not any(n.startswith("queue.") for n in own), "queues of keys are common to all ranks"
    assert any("running_mean" in n for n in own), "BatchNorm is each rank's own"


@pytest.mark.parametrize("method", BUILDERS)
def test_two_processes_resume_exactly(method, whole, resumed):
    for rank, (one, other) in enumerate(
        zip(ends(whole / method), ends(resumed / method), strict=True)
    ):
        for group in ("parameters", "buffers"):
            for name, value in one[group].items():
                assert value.equal(other[group][name]), (rank, name)


@pytest.mark.parametrize("method", LINEAR)
def test_without_batchnorm_two_processes_equal_one_with_the_global_batch(method, linear, tmp_path):
    """ViCC without remembered features, which are each rank's own by design.

    Also where other ranks' clips are negatives that gradients flow to, as in CPC.
    """
    ddp_worker.train(method, tmp_path, -1)
    (one,), (two, _) = ends(tmp_path), ends(linear / method)
    torch.testing.assert_close(one["parameters"], two["parameters"], atol=5e-6, rtol=1e-4)
    torch.testing.assert_close(one["buffers"], two["buffers"], atol=5e-6, rtol=1e-4)


@pytest.mark.parametrize("method", LINEAR)
def test_four_processes_equal_two(method, linear, linear_by_four):
    (two, _), four = ends(linear / method), ends(linear_by_four / method)
    assert len(four) == 4
    for one in four:
        torch.testing.assert_close(one["parameters"], two["parameters"], atol=5e-6, rtol=1e-4)


def test_another_number_of_processes_is_refused(linear):
    with pytest.raises(VidsslError, match="was written by 2 processes"):
        ddp_worker.train(LINEAR[0], linear / LINEAR[0], -1)
