"""The CPU backbone: shapes, gradients, and that it sees the order of frames."""

import pytest
import torch

from vidssl.backbones.tiny import Tiny


@pytest.mark.parametrize("channels", (1, 2, 3, 17))
@pytest.mark.parametrize(
    ("frames", "height", "width"), ((4, 32, 32), (5, 33, 47), (8, 64, 64), (16, 112, 80))
)
def test_shapes(channels, frames, height, width):
    net = Tiny(channels)
    y = net(torch.randn(2, channels, frames, height, width))
    assert y.shape[:2] == (2, net.dim)
    assert y.shape[2:] == (-(-frames // 2), -(-height // 16), -(-width // 16))


def test_every_parameter_gets_a_gradient():
    net = Tiny()
    net(torch.randn(2, 3, 8, 32, 32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_features_depend_on_the_order_of_frames():
    torch.manual_seed(0)
    net, x = Tiny().eval(), torch.randn(1, 3, 8, 32, 32)
    pooled = net(x).mean((2, 3, 4))
    assert torch.allclose(pooled, net(x).mean((2, 3, 4)))
    assert not torch.allclose(pooled, net(x.flip(2)).mean((2, 3, 4)), rtol=1e-3)


def test_memory_layout_of_the_input_does_not_matter():
    net, x = Tiny().eval(), torch.randn(2, 3, 8, 32, 32)
    same = net(x.contiguous(memory_format=torch.channels_last_3d))
    assert torch.allclose(net(x), same, atol=1e-5)
