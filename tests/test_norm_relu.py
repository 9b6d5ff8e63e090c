"""BatchNorm and ReLU in one layer give what BatchNorm3d and ReLU give, gradients and statistics.

On a GPU where there is one, else on Triton's interpreter (tests/conftest.py turns it on).
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("triton", reason="needs Triton")

from interpreting import CUDA_WHERE_THERE_IS, skip_unless_it_loops
from methods import METHODS, batch
from stubs import FixedBatches

from vidssl.backbones import BACKBONES, norm_relu
from vidssl.backbones import norm_relu_kernels as kernels
from vidssl.backbones.norm_relu import NormReLU, fuse_norms, row_spacing
from vidssl.backbones.recompute import recompute_activations
from vidssl.engine import Place, fit
from vidssl.optimisation import TrainSpec

skip_unless_it_loops()
pytestmark = CUDA_WHERE_THERE_IS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LAST = torch.channels_last_3d
SHAPES = {  # what each one shows
    "one block of channels": (2, 16, 2, 5, 6),
    "several, the last one in part": (2, 70, 2, 3, 4),
    "one channel": (3, 1, 2, 3, 4),
    "one clip of one frame": (1, 5, 1, 7, 9),
}


def layers(channels: int) -> nn.Sequential:
    """A BatchNorm that has seen something, and a ReLU."""
    torch.manual_seed(1)
    norm = nn.BatchNorm3d(channels)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    return nn.Sequential(norm, nn.ReLU()).to(DEVICE).train()


def noise(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """A map whose channels come last and whose means are far from 0."""
    draw = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(shape, generator=draw) + 10 * torch.randn(shape[1], 1, 1, 1, generator=draw)
    return x.to(DEVICE, dtype).contiguous(memory_format=LAST)


@pytest.fixture
def by_kernels(monkeypatch) -> list[int]:
    """Lets the layer take its kernels wherever it is; counts how often."""
    taken, apply = [], norm_relu.norm_relu

    def counted(*given):
        taken.append(1)
        return apply(*given)

    monkeypatch.setattr(norm_relu, "has_kernels", lambda x: True)
    monkeypatch.setattr(norm_relu, "norm_relu", counted)
    return taken


@pytest.fixture
def few_programs(monkeypatch) -> None:
    """The interpreter takes as long for a program of few values as for one of many."""
    monkeypatch.setattr(kernels, "TILE", 2**14)


def fused(sequence: nn.Sequential) -> nn.Sequential:
    made = copy.deepcopy(sequence)
    fuse_norms(made)
    return made


def passed(network: nn.Module, x: Tensor, above: Tensor | None = None) -> dict[str, Tensor]:
    """Runs forward and backward; gives the output, all gradients, and the statistics."""
    x = x.detach().requires_grad_()
    y = network(x)
    given = (
        torch.linspace(-1, 1, y.numel(), device=y.device).view(y.shape) if above is None else above
    )
    y.backward(given.to(y.dtype))
    gradients = {f"d {name}": p.grad for name, p in network.named_parameters()}
    return {"y": y.detach(), "dx": x.grad} | gradients | dict(network.named_buffers())


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], **tolerance: float) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, **tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("name", SHAPES)
def test_it_equals_both_layers(name, by_kernels):
    x = noise(SHAPES[name])
    plain = layers(x.shape[1])
    found, expected = passed(fused(plain), x), passed(plain, x)
    assert by_kernels and (expected["y"] == 0).any() and (expected["y"] > 0).any()
    assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_chunks_are_joined(by_kernels, monkeypatch):
    monkeypatch.setattr(kernels, "TILE", 64)
    monkeypatch.setattr(kernels, "JOINED", 4)
    x = noise((2, 10, 2, 4, 5))  # 80 rows, 4 to a tile: 20 chunks
    plain = layers(10)
    assert_close(passed(fused(plain), x), passed(plain, x), atol=2e-5, rtol=1e-4)


def test_chunks_of_several_tiles_with_a_shorter_last_one(by_kernels, monkeypatch):
    monkeypatch.setattr(kernels, "TILE", 64)
    monkeypatch.setattr(kernels, "CHUNKS", 8)
    x = noise((1, 10, 2, 5, 7))  # 18 tiles in 6 chunks, the last tile of two rows
    plain = layers(10)
    assert_close(passed(fused(plain), x), passed(plain, x), atol=2e-5, rtol=1e-4)


def test_bf16_is_as_near_to_float64_as_both_layers_are(by_kernels):
    worst = 1.05 if DEVICE.type == "cuda" else 2.1  # the interpreter cuts bits off
    x = noise((2, 24, 2, 6, 6), torch.bfloat16)
    plain = layers(24)
    truth = passed(copy.deepcopy(plain).double(), x.double())
    found, before = passed(fused(plain), x), passed(plain, x)
    assert (found["y"].dtype, found["dx"].dtype) == (torch.bfloat16, torch.bfloat16)
    for name in ("y", "dx", "d 0.weight", "d 0.bias"):
        off, off_before = ((m[name].double() - truth[name]).abs().mean() for m in (found, before))
        assert off <= worst * off_before, name
    for name in ("0.running_mean", "0.running_var"):
        torch.testing.assert_close(found[name], truth[name].float(), atol=1e-4, rtol=1e-4)


def test_variance_far_from_zero_does_not_cancel(by_kernels):
    x = noise((2, 4, 2, 5, 5)) / 3 + 1e4
    plain = layers(4)
    truth = passed(copy.deepcopy(plain).double(), x.double())
    found = passed(fused(plain), x)
    torch.testing.assert_close(
        found["0.running_var"].double(), truth["0.running_var"], rtol=1e-3, atol=0.0
    )
    torch.testing.assert_close(found["y"].double(), truth["y"], atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize("part", [slice(0, 6), slice(6, 16)])
def test_slices_of_channels_are_taken_as_they_lie(part, by_kernels):
    x, above = noise((2, 16, 2, 3, 4))[:, part], torch.flip(noise((2, 16, 2, 3, 4)), (0,))[:, part]
    assert row_spacing(x) == row_spacing(above) == 16
    plain = layers(x.shape[1])
    assert_close(passed(fused(plain), x, above), passed(plain, x, above), atol=1e-4, rtol=1e-4)


def test_other_layouts_are_copied(by_kernels):
    x = noise((2, 6, 2, 3, 4)).contiguous()
    above = torch.ones((), device=DEVICE).expand(x.shape)  # as a sum's gradient comes
    assert row_spacing(x) is None and row_spacing(above) is None
    plain = layers(6)
    found, expected = passed(fused(plain), x, above), passed(plain, x, above)
    assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert found["y"].is_contiguous(memory_format=LAST)


def test_rows_and_their_spacing():
    x = torch.empty(2, 3, 4, 5, 6)
    assert row_spacing(x.contiguous(memory_format=LAST)) == 3
    assert row_spacing(x) is None
    assert row_spacing(x.contiguous(memory_format=LAST)[:, :, ::2]) is None
    assert row_spacing(torch.empty(1, 7, 1, 1, 1)) == 7
    assert row_spacing(torch.empty(2, 1, 2, 2, 2)) == 1


def test_a_lost_number_is_not_hidden(by_kernels):
    x = noise((2, 3, 2, 3, 4))
    x[0, 1, 0, 0, 0] = torch.nan
    y = fused(layers(3))(x)
    assert y[:, 1].isnan().all() and not y[:, 0].isnan().any()


def test_one_value_for_each_channel_is_refused(by_kernels):
    with pytest.raises(ValueError, match="no variance"):
        fused(layers(3))(noise((1, 3, 1, 1, 1)))


def test_less_is_kept_for_the_backward_pass(by_kernels):
    x = noise((2, 8, 2, 8, 8)).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        fused(layers(8))(x)
    assert sorted(kept)[-1] == x.numel() and sorted(kept)[-2] == 8, (
        "x, and four tensors of channels"
    )


# ── in networks


@pytest.mark.parametrize("name", ["s3d", "tiny", "r2plus1d", "r3d_18"])
def test_names_and_tensors_of_a_network_stay(name):
    network = BACKBONES[name](3)
    before = dict(network.named_parameters()) | dict(network.named_buffers())
    fuse_norms(network)
    after = dict(network.named_parameters()) | dict(network.named_buffers())
    assert list(after) == list(before)
    assert all(after[key] is value for key, value in before.items())
    found = sum(isinstance(layer, NormReLU) for layer in network.modules())
    assert found > 0
    if name == "s3d":
        assert found == sum(isinstance(layer, nn.BatchNorm3d) for layer in network.modules()) == 77


def test_running_statistics_are_taken_in_eval_mode(by_kernels, monkeypatch):
    taken, of_old = [], norm_relu.norm_relu_of_old
    monkeypatch.setattr(
        norm_relu, "norm_relu_of_old", lambda *told: taken.append(1) or of_old(*told)
    )
    x, plain = noise((2, 6, 2, 3, 4)), layers(6).eval()
    one = fused(plain).eval()
    with torch.no_grad():
        torch.testing.assert_close(one(x), plain(x), atol=1e-5, rtol=1e-5)
    assert taken == [1] and not by_kernels
    # Where gradients are wanted it is both layers.
    assert_close(passed(one, x), passed(plain, x), atol=0.0, rtol=0.0)
    assert taken == [1] and not by_kernels


def test_in_eval_mode_and_on_a_cpu_it_is_both_layers():
    x = noise((2, 6, 2, 3, 4)).cpu()
    plain = layers(6).cpu()
    for mode in (True, False):
        one, other = copy.deepcopy(plain).train(mode), fused(plain).train(mode)
        assert all(
            a.equal(b)
            for a, b in zip(passed(one, x).values(), passed(other, x).values(), strict=True)
        )


def test_recomputed_statistics_move_once(by_kernels, few_programs):
    torch.manual_seed(0)
    x, network = noise((1, 3, 4, 32, 32)), BACKBONES["tiny"](3).to(DEVICE)
    fuse_norms(network)
    thrifty = copy.deepcopy(network)
    recompute_activations(thrifty)
    assert_close(passed(thrifty, x), passed(network, x), atol=0.0, rtol=0.0)


def test_a_run_ends_close_to_one_of_both_layers(by_kernels, few_programs, tmp_path):
    ends = []
    for fuse in (False, True):
        objective = METHODS["infonce"]()
        folder = tmp_path / str(fuse)
        folder.mkdir()
        batches = FixedBatches(2, lambda step, of=objective: batch(step, of))
        spec = TrainSpec(epochs=1, batch_size=4, optimizer="sgd", lr=1e-3, weight_decay=0.0)
        place = Place(torch.device("cpu"), fuse_norms=fuse)
        fit(objective, batches, spec, place, folder)
        ends.append(objective.state_dict())
    assert len(by_kernels) == 2 * 2 * 4, "steps, encoders, BatchNorms"
    assert list(ends[0]) == list(ends[1])
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, atol=1e-4, rtol=1e-3, msg=name)
