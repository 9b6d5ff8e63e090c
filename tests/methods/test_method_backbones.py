"""Every method trains every backbone of the table."""

from __future__ import annotations

import pytest
import torch
from methods import BATCH, SIZE

from vidssl.backbones import BACKBONES, Encoder, EncoderSpec
from vidssl.clips.batch import ClipBatch
from vidssl.methods import METHODS, Method, StepState
from vidssl.methods import METHODS_BY_STAGE as METHODS_OF

FRAMES = 8  # the fewest that S3D can halve so often
VIEWS = {"rgb": 3, "flow": 2, "pose": 17, "mask": 1}
# So small, and nothing to wait for; each method takes what it knows.
FEW = {
    "queue": 8, "k": 2, "prototypes": 6, "predict": 1, "temperature": 0.1, "classes": 3,
    "queue_from_epoch": 0, "freeze_prototypes_epochs": 0, "wait_for_full_queue": False,
}  # fmt: skip
DENSE = ("cpc", "cocon")


def views_of(method: str) -> list[str]:
    """Returns which views train it here: all that it can take, odd numbers of channels included."""
    if method == "cocon":
        return list(VIEWS)
    return ["rgb", "flow"] if METHODS[method] in METHODS_OF["cotrain"].values() else ["mask"]


def make(method: str, backbone: str) -> Method:
    kind = METHODS[method]
    blocks = 3 if method in DENSE else 1
    encoders = {}
    for view in views_of(method):
        head = {"project": None, "context": "gru"} if blocks > 1 else {"project": 16}
        spec = EncoderSpec(view, backbone, VIEWS[view], FRAMES, 1, SIZE, blocks=blocks, **head)
        encoders[view] = Encoder(spec)
    known = kind.Config.__dataclass_fields__
    return kind.build(kind.Config(**{k: v for k, v in FEW.items() if k in known}), encoders, 0)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_every_backbone(method: str, backbone: str) -> None:
    torch.manual_seed(0)
    built = make(method, backbone).train()
    batch_spec = built.batch_spec
    (blocks,) = {encoder.spec.blocks for encoder in built.encoders.values()}
    clips = {
        view: torch.randn(
            BATCH,
            (1 if view in batch_spec.last_only else batch_spec.clips) * blocks,
            VIEWS[view],
            FRAMES,
            SIZE,
            SIZE,
        )
        for view in batch_spec.views
    }
    order = torch.arange(BATCH)
    batch = ClipBatch(clips, source=order, label=order % 3, index=order)
    step_state = StepState(seed=0, epoch=1, step=1)
    built.before_forward(step_state)
    output = built(batch, step_state)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    for name, parameter in built.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    learnt = [p for e in built.encoders.values() for p in e.backbone.parameters()]
    if method != "linear":
        assert any(p.grad.any() for p in learnt)
    built.after_step(step_state, [output.detached()])
