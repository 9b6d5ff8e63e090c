"""Bytes that ranks send each other are those of the formulas."""

import pytest
from benchmarks import communication


@pytest.mark.slow
def test_bytes_between_ranks_are_those_of_the_formula():
    method = communication.make_method("coclr")
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    clip = 4 * 3 * communication.FRAMES * communication.SIZE**2
    wanted = communication.formula("coclr", communication.SAMPLES, clip, trained, 128)
    assert communication.counted("coclr", 2) == wanted


def test_shuffled_clips_cost_the_same_however_many_ranks_there_are():
    sent = {"gradients": 8, "clips, shuffled": 1000, "queue": 10}
    eight, more = (communication.seconds(sent, ranks, False) for ranks in (16, 64))
    assert more["clips, shuffled"] < 1.06 * eight["clips, shuffled"]
    gathered = communication.seconds(sent, 64, clips_gathered=True)
    assert gathered["clips, shuffled"] == pytest.approx(64 * more["clips, shuffled"])
