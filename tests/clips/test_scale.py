"""What must not grow: the work of finding a place in training, and what ranks send each other."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from benchmarks import communication, scale

from vidssl.augment import POLICIES
from vidssl.base import distributed
from vidssl.clips.batch import ClipSpec
from vidssl.clips.frame_reader import TrainingVideos
from vidssl.clips.loader import ClipLoader

VIDEOS, BATCH = 40, 4


class Counting:
    """Frames of noise, and how often they were asked for."""

    asked = 0

    def frame_count(self, view):
        return np.full(VIDEOS, 12)

    def pictures(self, view, video, indices, for_copying=False):
        self.asked += 1
        return [np.zeros((24, 32, 3), np.uint8) for _ in indices]


@pytest.mark.parametrize("step", [0, 7, 10**6 + 3])
def test_going_to_any_step_is_the_same_work(step, monkeypatch):
    """One order of an epoch is drawn, and one batch is read; nothing of the steps before."""
    reader, rows = Counting(), np.arange(VIDEOS)
    videos = TrainingVideos(reader, rows, rows, rows)
    loader = ClipLoader(videos, ["rgb"], ClipSpec(4, 1, 16), POLICIES["truthful"], BATCH)
    orders = []
    order = loader._order
    monkeypatch.setattr(loader, "_order", lambda epoch: orders.append(epoch) or order(epoch))
    ((made,),) = loader.steps(step, step + 1)
    assert len(made.index) == BATCH
    assert (reader.asked, orders) == (BATCH, [step // (VIDEOS // BATCH)])


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("channels_last", [False, True])
def test_rows_go_to_the_rank_that_wants_them(ranks, channels_last, monkeypatch):
    """Ranks one after another: what each hands over is kept, then dealt out."""
    rows = 4
    whole = torch.randn(ranks * rows, 2, 3, 5, 5)
    if channels_last:
        whole = whole.to(memory_format=torch.channels_last_3d)
    wanted = torch.randperm(len(whole)).view(ranks, rows)
    handed: dict[int, list[torch.Tensor]] = {}
    for dealing in (False, True):
        for rank in range(ranks):

            def all_to_all(into, send, counts, given, rank=rank, dealing=dealing):
                assert sum(given) == len(send) == rows, "no row goes to two ranks"
                if not dealing:
                    handed[rank] = list(send.split(given))
                    return
                parts = [handed[sender][rank] for sender in range(ranks)]
                assert [len(part) for part in parts] == counts
                into.copy_(torch.cat(parts))

            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            monkeypatch.setattr(distributed, "world_size", lambda: ranks)
            monkeypatch.setattr(distributed, "dist", SimpleNamespace(all_to_all_single=all_to_all))
            mine = whole[rank * rows : (rank + 1) * rows]
            got = distributed._rows_of_ranks(mine, wanted)
            if dealing:
                assert got.equal(whole[wanted[rank]])
                last = got.is_contiguous(memory_format=torch.channels_last_3d)
                assert last == channels_last


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


def test_the_bench_of_scale_prints_a_row_for_each_number_of_videos(capsys):
    scale.main(["--videos", "70", "96"])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split("|")[1:3] for row in rows] == [[" 70 ", " 2 "], [" 96 ", " 3 "]]


def test_the_bench_of_the_start_names_what_takes_time(capsys):
    scale.main(["--start", "64"])
    out = capsys.readouterr().out
    assert "plan: index, labels, split" in out and "first batch of a run resumed" in out
