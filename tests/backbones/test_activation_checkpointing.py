"""Recomputed activations: the same gradients and statistics, fewer tensors kept."""

import copy

import pytest
import torch
from methods import BUILDERS, batch
from stubs import FixedBatches

from vidssl.backbones import BACKBONES, Encoder
from vidssl.backbones.activation_checkpointing import blocks, recompute_activations, statistics_kept
from vidssl.engine.loop import RuntimeConfig, fit
from vidssl.engine.train_spec import TrainSpec

CPU = torch.device("cpu")
# Shares of what is kept otherwise, of clips this small.
LESS = {"tiny": 0.7, "motion": 0.9, "s3d": 0.4, "r2plus1d": 0.6, "r2d3d_18": 0.6, "r3d_18": 0.6}


def passed(network: torch.nn.Module, x: torch.Tensor) -> int:
    """Runs forward and backward; gives the bytes that autograd kept between, but for inputs."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = network(x).square().mean()
    loss.backward()
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
    return sum(size for runtime, size in kept.items() if runtime not in parameters)


@pytest.mark.parametrize("name", LESS)
def test_gradients_and_statistics_are_the_same_and_less_is_kept(name):
    torch.manual_seed(0)
    plain = BACKBONES[name](3).train()
    thrifty = copy.deepcopy(plain)
    recompute_activations(thrifty)
    x = torch.randn(2, 3, 8, 32, 32)
    kept, kept_thriftily = passed(plain, x), passed(thrifty, x)
    assert kept_thriftily < LESS[name] * kept
    for (key, value), (_, other) in zip(
        plain.state_dict().items(), thrifty.state_dict().items(), strict=True
    ):
        assert value.equal(other), key
    for (key, p), (_, q) in zip(plain.named_parameters(), thrifty.named_parameters(), strict=True):
        assert p.grad.equal(q.grad), key


@pytest.mark.parametrize("name", BACKBONES)
def test_blocks_hold_all_convolutions_but_a_stems(name):
    network = BACKBONES[name](3)
    whole = sum(isinstance(m, torch.nn.Conv3d) for m in network.modules())
    held = [m for block in blocks(network) for m in block.modules()]
    assert len(held) == len(set(held)), "no block lies in another"
    assert sum(isinstance(m, torch.nn.Conv3d) for m in held) >= whole - 1


def test_kept_statistics_stay_to_the_bit():
    norm = torch.nn.BatchNorm3d(2).train()
    norm(torch.randn(4, 2, 2, 3, 3))
    before = copy.deepcopy(norm.state_dict())
    with statistics_kept(norm):
        norm(torch.randn(4, 2, 2, 3, 3) * 1e3)
    assert all(value.equal(before[key]) for key, value in norm.state_dict().items())
    assert norm.momentum == 0.1


def test_a_run_ends_with_the_same_bytes(tmp_path):
    ends = []
    for recompute in (False, True):
        method = BUILDERS["infonce"]()
        assert any(isinstance(part, Encoder) for part in method.modules())
        folder = tmp_path / str(recompute)
        folder.mkdir()
        batches = FixedBatches(3, lambda step, of=method: batch(step, of))
        spec = TrainSpec(epochs=2, batch_size=4, lr=1e-2)
        fit(method, batches, spec, RuntimeConfig(CPU, recompute=recompute), folder)
        ends.append(method.state_dict())
    for key, value in ends[0].items():
        assert value.equal(ends[1][key]), key
