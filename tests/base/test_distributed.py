"""Rows of a batch that are exchanged between ranks."""

from types import SimpleNamespace

import pytest
import torch

from vidssl.base import distributed


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
