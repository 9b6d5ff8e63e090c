"""CPC's and CoCon's losses: the published numbers, slow twins, invariants, hand-made values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from methods import batch, encoder
from paths import DATA

from vidssl.backbones.dpc_context import unit_channels
from vidssl.base.errors import UsageError
from vidssl.methods import CPC, CoCon, CoConConfig, CPCConfig, StepState
from vidssl.methods.cocon import _others, block_vectors, similarity_loss, synchrony_loss
from vidssl.methods.cpc import dense_nce, dense_scores, own_column, top_shares
from vidssl.methods.modules.seeded_dropout import seeded_dropout

GOLDEN = np.load(DATA / "cocon_losses.npz")
TOLERANCE = 1e-5


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name]).float()


def vectors(name: str) -> torch.Tensor:
    return unit_channels(block_vectors(golden(name)), 1)


def assert_agrees(loss: torch.Tensor, name: str) -> None:
    assert loss.item() == pytest.approx(float(GOLDEN[name]), rel=TOLERANCE)


def test_the_published_numbers():
    one_temperature = float(GOLDEN["temperature"]) ** 2  # both factors were divided by it
    scores = dense_scores(golden("pred0"), golden("z0")[:, -3:], one_temperature)
    assert_agrees(dense_nce(scores), "cpc")
    assert_agrees(synchrony_loss(vectors("z0"), vectors("z1"), "l1"), "sync_l1")
    assert_agrees(synchrony_loss(vectors("z0"), vectors("z1"), "l2"), "sync_l2")
    assert_agrees(similarity_loss(vectors("z0"), vectors("z1")), "sim")


def test_every_prediction_is_right_at_its_own_place():
    pred, target = torch.randn(2, 3, 5, 2, 2), torch.randn(2, 3, 5, 2, 2)
    scores = dense_scores(pred, target, 0.5)
    assert own_column(scores).equal(torch.arange(2 * 3 * 4))
    at = iter(scores.diagonal())
    for b in range(2):
        for p in range(3):
            for y in range(2):
                for x in range(2):
                    own = pred[b, p, :, y, x] @ target[b, p, :, y, x] / 0.5
                    torch.testing.assert_close(next(at), own)


def test_a_perfect_prediction_of_orthogonal_features_costs_nothing():
    target = torch.eye(8).view(2, 1, 2, 2, 8).permute(0, 1, 4, 2, 3)
    scores = dense_scores(target, target, 0.0049)
    assert dense_nce(scores) < 1e-6
    assert top_shares(scores) == {"top1": torch.tensor(1.0), "top3": torch.tensor(1.0)}
    assert dense_nce(0 * scores).item() == pytest.approx(np.log(8))


def test_two_views_that_agree_perfectly_cost_nothing():
    h = torch.eye(6)
    assert synchrony_loss(h, h) == 0 and synchrony_loss(h, h, "l2") == 0
    assert similarity_loss(h, h) == 0


def test_synchrony_does_not_feel_a_rotation_and_similarity_does():
    h0, h1 = (F.normalize(torch.randn(6, 4, dtype=torch.float64), dim=1) for _ in range(2))
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    for norm in ("l1", "l2"):
        torch.testing.assert_close(
            synchrony_loss(h0, h1, norm), synchrony_loss(h0, h1 @ turn, norm)
        )
    assert (similarity_loss(h0, h1) - similarity_loss(h0, h1 @ turn)).abs() > 1e-4


def test_similarity_by_hand():
    h0, h1 = torch.eye(2), torch.tensor([[0.6, 0.8], [-1.0, 0.0]])
    # Cosines: 0.6 and 0 on the diagonal; −1 (no cost) and 0.8 beside it.
    assert similarity_loss(h0, h1).item() == pytest.approx(0.5 * 0.7 + 0.5 * 0.4)


def test_the_entries_beside_the_diagonal():
    x = torch.randn(5, 5)
    assert _others(x).equal(x[~torch.eye(5, dtype=torch.bool)])


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 7])
def test_pooling_is_the_published_chain_where_that_is_defined(side):
    z = torch.randn(2, 3, 4, side, side)
    h = block_vectors(z)
    assert h.shape == (6, 4)
    flat = z.flatten(0, 1)
    if side == 2:
        chain = F.avg_pool2d(flat, 2)
    elif side == 4:
        chain = F.avg_pool2d(F.max_pool2d(flat, 2), 2)
    elif side == 7:
        chain = F.avg_pool2d(F.max_pool2d(F.max_pool2d(flat, 2, padding=1), 2), 2)
    else:
        return
    torch.testing.assert_close(h, chain.flatten(1))


# ── the methods ──────────────────────────────────────────────────────────────────────────────


def step_state(step: int = 0) -> StepState:
    return StepState(seed=0, epoch=0, step=step)


def test_one_view_of_cocon_is_cpc():
    config = dict(predict=1, temperature=0.1)
    cpc = CPC(CPCConfig(**config), encoder("rgb", blocks=3)).train()
    cocon = CoCon(CoConConfig(**config), {"rgb": encoder("rgb", blocks=3)}).train()
    (clips,) = batch(0, cpc)
    one, other = cpc(clips, step_state()), cocon(clips, step_state())
    assert one.loss.equal(other.loss)
    assert "sync" not in other.metrics


def test_weights_of_zero_leave_the_sum_of_the_views():
    config = CoConConfig(predict=1, temperature=0.1, dropout=0, sim_weight=0, sync_weight=0)
    cocon = CoCon(config, {view: encoder(view, blocks=3) for view in ("rgb", "flow")}).train()
    (clips,) = batch(0, cocon)
    output = cocon(clips, step_state())
    torch.testing.assert_close(output.loss.detach(), output.metrics["cpc"])
    alone = [
        CPC(CPCConfig(predict=1, temperature=0.1, dropout=0), encoder(view, blocks=3)).train()
        for view in ("rgb", "flow")
    ]
    losses = [method(clips, step_state()).loss for method in alone]
    torch.testing.assert_close(output.loss, sum(losses))


def test_dpc_has_neither_norms_nor_temperature():
    config = CPCConfig(predict=1, temperature=1.0, unit=False, dropout=0)
    cpc = CPC(config, encoder("rgb", blocks=3)).train()
    (clips,) = batch(0, cpc)
    z = cpc.encoder.block_maps(clips.clips["rgb"])
    h = torch.zeros_like(z[:, 0])
    for block in (0, 1):
        h = cpc.encoder.context.gru(z[:, block].relu(), h)
    places = "bdhw->bhwd"
    pred = torch.einsum(places, cpc.encoder.context.predict(h)).reshape(-1, z.shape[2])
    target = torch.einsum(places, z[:, 2]).reshape(-1, z.shape[2])
    slow = -(pred @ target.T).log_softmax(1).diagonal().mean()
    torch.testing.assert_close(cpc(clips, step_state()).loss, slow)


def test_dropout_is_repeated_by_the_clock_and_keeps_the_mean():
    h = torch.ones(64, 32, 4, 4)
    first, again = (seeded_dropout(0.1, step_state(3))(h) for _ in range(2))
    assert first.equal(again)
    assert not first.equal(seeded_dropout(0.1, step_state(4))(h))
    assert not first.equal(seeded_dropout(0.1, step_state(3), 1)(h))
    assert first.mean().item() == pytest.approx(1, abs=0.01)
    assert (first == 0).float().mean().item() == pytest.approx(0.1, abs=0.01)


def test_encoders_that_cannot_foretell_are_refused_in_a_sentence():
    with pytest.raises(UsageError, match="foretells 3 blocks"):
        CPC(CPCConfig(), encoder("rgb", blocks=3))
    with pytest.raises(UsageError, match="needs an encoder with a context"):
        CPC(CPCConfig(), encoder("rgb"))
    with pytest.raises(UsageError, match="sync_norm must be l1 or l2"):
        CoConConfig(sync_norm="l3")
