"""Small real instances of every method, for the contract suite. A new method adds one line.

Those that contrast within the batch are called METHOD-batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from vidssl.backbones import Encoder, EncoderSpec
from vidssl.clips.batch import ClipBatch
from vidssl.methods import (
    CMC,
    CPC,
    CMCConfig,
    CoCLR,
    CoCLRConfig,
    CoCon,
    CoConConfig,
    CPCConfig,
    Finetune,
    FinetuneConfig,
    InfoNCE,
    InfoNCEConfig,
    Linear,
    LinearConfig,
    Method,
    UberNCE,
    UberNCEConfig,
    ViCC,
    ViCCConfig,
    ViCCCross,
    ViCCCrossConfig,
)

BATCH, FRAMES, SIZE, QUEUE, BLOCKS = 4, 4, 32, 8, 3
# Prototypes few, trained at once, and remembered features in use within the suite's few steps.
CLUSTERS = dict(prototypes=6, queue=QUEUE, queue_from_epoch=0, freeze_prototypes_epochs=0)
CHANNELS = {"rgb": 3, "flow": 2}


def encoder(view: str, seed: int = 0, blocks: int = 1) -> Encoder:
    """Returns a projection head for one block, a context for several."""
    torch.manual_seed(seed)
    head = {"project": 16} if blocks == 1 else {"project": None, "context": "gru"}
    spec = EncoderSpec(view, "tiny", CHANNELS[view], FRAMES, 1, SIZE, blocks=blocks, **head)
    return Encoder(spec)


def coclr_in_the_batch(student: Encoder, partner: Encoder) -> CoCLR:
    """Returns a CoCLR whose videos 0 to 11 have their two followers as mined neighbours."""
    config = CoCLRConfig(
        queue=QUEUE, k=2, drop_self_prob=0.5, negatives="batch", mining="set", log_of_sum=False
    )
    method = CoCLR(config, student, partner)
    video = torch.arange(12)
    method.set_neighbours(torch.stack([(video + 1) % 12, (video + 2) % 12], dim=1))
    return method


BUILDERS: dict[str, Callable[[], Method]] = {
    "infonce": lambda: InfoNCE(InfoNCEConfig(queue=QUEUE, momentum=0.9), encoder("rgb")),
    "coclr": lambda: CoCLR(
        CoCLRConfig(queue=QUEUE, momentum=0.9, k=2, drop_self_prob=0.5),
        encoder("rgb"),
        encoder("flow", seed=1),
    ),
    "ubernce": lambda: UberNCE(UberNCEConfig(queue=QUEUE, momentum=0.9), encoder("rgb")),
    "vicc": lambda: ViCC(ViCCConfig(**CLUSTERS), encoder("rgb")),
    "vicc-cross": lambda: ViCCCross(
        ViCCCrossConfig(**CLUSTERS), encoder("rgb"), encoder("flow", seed=1)
    ),
    "cmc": lambda: CMC(
        CMCConfig(queue=QUEUE, momentum=0.9),
        {"rgb": encoder("rgb"), "flow": encoder("flow", seed=1)},
    ),
    "finetune": lambda: Finetune(FinetuneConfig(classes=3, dropout=0.5), encoder("rgb")),
    "linear": lambda: Linear(LinearConfig(classes=3), encoder("rgb")),
    "cpc": lambda: CPC(CPCConfig(predict=1, temperature=0.1), encoder("rgb", blocks=BLOCKS)),
    "cocon": lambda: CoCon(
        CoConConfig(predict=1, temperature=0.1),
        {"rgb": encoder("rgb", blocks=BLOCKS), "flow": encoder("flow", seed=1, blocks=BLOCKS)},
    ),
    "infonce-batch": lambda: InfoNCE(InfoNCEConfig(queue=QUEUE, negatives="batch"), encoder("rgb")),
    "ubernce-batch": lambda: UberNCE(UberNCEConfig(queue=QUEUE, negatives="batch"), encoder("rgb")),
    "coclr-batch": lambda: coclr_in_the_batch(encoder("rgb"), encoder("flow", seed=1)),
    "cmc-batch": lambda: CMC(
        CMCConfig(queue=QUEUE, negatives="batch"),
        {"rgb": encoder("rgb"), "flow": encoder("flow", seed=1)},
    ),
}


def batch(step: int, method: Method, size: int = BATCH) -> list[ClipBatch]:
    """Returns one micro-batch of what a method needs, else a function of the step alone."""
    draw = torch.Generator().manual_seed(step)
    index = torch.randint(0, 12, (size,), generator=draw)
    batch_spec = method.batch_spec
    (blocks,) = {encoder.spec.blocks for encoder in method.encoders.values()}
    entries = batch_spec.clips * blocks
    clips = {
        view: torch.randn(size, entries, channels, FRAMES, SIZE, SIZE, generator=draw)
        for view, channels in CHANNELS.items()
    }
    clips |= {view: clips[view][:, -blocks:] for view in batch_spec.last_only}
    return [ClipBatch(clips, source=index // 2, label=index % 3, index=index)]
