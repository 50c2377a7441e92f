"""Properties of the core: missing is masked, and nothing else is known about it."""

import pytest
import torch
from torch import nn

from omnisurv.core import Batch, Decoder, Latent, masked_mse
from omnisurv.core.masking import explicit, uniform

ALL = {"rna", "dnam", "clinical"}


def latent_of(mae, batch, visible):
    latent = mae.encode(batch, visible)
    return {
        (row, int(latent.slots[row, column])): latent.tokens[row, column]
        for row, column in latent.usable.nonzero().tolist()
    }, latent.summary


def test_absent_is_fully_masked_bit_for_bit(mae, batch, layout):
    masked = mae.encode(batch, explicit(batch.observed, layout, {"dnam", "clinical"}))
    gone = Batch({**batch.patches, "rna": torch.full_like(batch.patches["rna"], torch.nan)}, layout)
    absent = mae.encode(gone, gone.observed)
    for a, b in zip(masked, absent, strict=True):
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b)
    wanted = torch.ones_like(batch.observed)
    a = mae.reconstruct(batch, explicit(batch.observed, layout, {"dnam", "clinical"}), wanted)
    b = mae.reconstruct(gone, gone.observed, wanted)
    assert all(torch.equal(a[name], b[name]) for name in ALL)


@pytest.mark.parametrize("noise", [0.0, 1e6, torch.nan, torch.inf])
def test_hidden_values_change_nothing(mae, batch, layout, noise):
    visible = explicit(batch.observed, layout, {"rna", "clinical"})
    spoilt = Batch({**batch.patches, "dnam": torch.full_like(batch.patches["dnam"], noise)}, layout)
    wanted = torch.ones_like(visible)
    before, after = (mae.reconstruct(b, visible, wanted) for b in (batch, spoilt))
    assert all(torch.equal(before[name], after[name]) for name in ALL)


def test_hidden_values_have_zero_gradient(mae, batch, layout):
    generator = torch.Generator().manual_seed(3)
    visible = uniform(batch.observed, layout, 0.5, generator)
    leaves = {n: p.clone().requires_grad_() for n, p in batch.patches.items()}
    summary = mae.encode(Batch(leaves, layout), visible).summary
    summary.square().sum().backward()
    for name, where in layout.slices.items():
        gradient = leaves[name].grad
        assert gradient is not None
        assert (gradient[~visible[:, where]] == 0).all()
        seen = visible[:, where, None] & batch.patches[name].isfinite()
        assert (gradient[seen] != 0).any()
        assert (gradient[~seen] == 0).all()


def test_a_patient_does_not_depend_on_batch_mates(mae, batch):
    together, summary = latent_of(mae, batch, batch.observed)
    wanted = torch.ones_like(batch.observed)
    all_of_them = mae.reconstruct(batch, batch.observed, wanted)
    for row in range(len(batch)):
        one = batch.rows(torch.tensor([row]))
        alone, own_summary = latent_of(mae, one, one.observed)
        torch.testing.assert_close(own_summary[0], summary[row], rtol=1e-5, atol=1e-6)
        for (_, slot), token in alone.items():
            torch.testing.assert_close(token, together[row, slot], rtol=1e-5, atol=1e-6)
        mine = mae.reconstruct(one, one.observed, wanted[:1])
        for name in ALL:
            torch.testing.assert_close(mine[name][0], all_of_them[name][row], rtol=1e-5, atol=1e-6)


def test_order_of_patients_changes_nothing(mae, batch):
    order = torch.tensor([5, 3, 0, 2, 4, 1])
    shuffled = mae.encode(batch.rows(order), batch.observed[order]).summary
    torch.testing.assert_close(shuffled, mae.encode(batch, batch.observed).summary[order])


def test_a_patient_with_nothing_still_predicts(mae, batch):
    nothing = torch.zeros_like(batch.observed)
    predicted = mae.reconstruct(batch, nothing, ~nothing)
    assert all(p.isfinite().all() for p in predicted.values())
    assert mae.encode(batch, nothing).summary.isfinite().all()
    for p in predicted.values():  # nothing is known of anybody: all get the same
        torch.testing.assert_close(p, p[:1].expand_as(p))


def test_asking_for_less_gives_the_same_numbers(mae, batch, layout):
    visible = explicit(batch.observed, layout, {"clinical"})
    everything = mae.reconstruct(batch, visible, torch.ones_like(visible))
    one = torch.zeros_like(visible)
    one[:, 6] = True
    asked = mae.reconstruct(batch, visible, one)
    torch.testing.assert_close(asked["dnam"][:, 1], everything["dnam"][:, 1], rtol=1e-5, atol=1e-6)
    assert asked["rna"].isnan().all()
    assert asked["dnam"][:, [0, 2]].isnan().all()


def test_zero_scored_tokens_give_a_zero_loss_on_the_graph(mae, batch):
    loss, errors = mae(batch, batch.observed)
    assert loss.item() == 0.0
    assert errors == {}
    loss.backward()
    gradients = [p.grad for p in mae.encoder.parameters() if p.grad is not None]
    assert gradients
    assert all((g == 0).all() for g in gradients)


def test_gradients_are_the_same_bits_with_many_threads(mae, layout):
    """Many tokens share what says of which modality they are; its gradient is a sum over them."""
    generator = torch.Generator().manual_seed(0)
    patches = {
        name: torch.randn(3000, length, layout.widths[name], generator=generator)
        for name, length in layout.lengths.items()
    }
    batch, threads, found = Batch(patches, layout), torch.get_num_threads(), []
    visible = uniform(batch.observed, layout, 0.5, generator)
    torch.set_num_threads(2)
    try:
        for _ in range(4):
            mae.zero_grad()
            mae(batch, visible)[0].backward()
            found.append([p.grad.clone() for p in mae.parameters() if p.grad is not None])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_training_loss_ignores_what_nobody_measured(mae, batch, layout):
    generator = torch.Generator().manual_seed(0)
    visible = uniform(batch.observed, layout, 0.5, generator)
    loss, errors = mae(batch, visible)
    loss.backward()
    assert loss.isfinite()
    assert set(errors) == ALL
    assert all(p.grad is None or p.grad.isfinite().all() for p in mae.parameters())


def test_masked_mse_equals_loops(batch, layout):
    generator = torch.Generator().manual_seed(0)
    predicted = {n: torch.randn(p.shape, generator=generator) for n, p in batch.patches.items()}
    scored = torch.rand(batch.observed.shape, generator=generator) < 0.7
    packed = {name: predicted[name][scored[:, where]] for name, where in layout.slices.items()}
    errors = masked_mse(packed, batch, scored)
    for name, where in layout.slices.items():
        squares = [
            (float(predicted[name][row, slot, value] - target)) ** 2
            for row in range(len(batch))
            for slot in range(layout.lengths[name])
            if scored[row, where.start + slot]
            for value, target in enumerate(batch.patches[name][row, slot].tolist())
            if target == target
        ]
        assert errors[name].item() == pytest.approx(sum(squares) / len(squares), rel=1e-5)


class Tagged(nn.Module):
    """Embeds every patch as the absolute number of its slot."""

    def __init__(self, start):
        super().__init__()
        self.start = start

    def forward(self, x, inside):
        return (self.start + inside).float()[:, None].expand(len(x), 16)


def test_slot_i_gets_token_i(batch, layout):
    """Tagged tokens through pack and unshuffle: the bug that scrambles impuTMAE's own code."""
    from tests.core.conftest import build

    mae = build(layout, depth=0, trunk=0)
    for name, where in layout.slices.items():
        mae.encoder.embeds[name] = Tagged(where.start)
        mae.encoder.get_buffer(f"position_{name}").zero_()
    nn.init.zeros_(mae.encoder.modality)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        visible = uniform(batch.observed, layout, 0.5, generator)
        latent = mae.encode(batch, visible)
        assert torch.equal(latent.usable.sum(1), visible.sum(1))
        for row, column in latent.usable.nonzero().tolist():
            slot = int(latent.slots[row, column])
            assert latent.tokens[row, column, 0].item() == slot
            assert visible[row, slot]


def test_decoder_writes_each_prediction_to_its_own_slot(layout):
    """A decoder whose states are its positions must hand slot i's position to slot i."""

    class Position(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.width = width

        def forward(self, states, inside):
            return inside.float()[:, None].expand(len(states), self.width)

    decoder = Decoder(
        layout,
        {n: Position(w) for n, w in layout.widths.items()},
        encoder_dim=16,
        dim=12,
        heads=2,
        mlp=24,
        depth=1,
    )
    latent = Latent(
        torch.zeros(3, 16),
        torch.zeros(3, 2, 16),
        torch.tensor([[1, 1], [1, 0], [0, 0]]).bool(),
        torch.tensor([[7, 1], [2, 0], [0, 0]]),
        (),
    )
    wanted = torch.rand(3, layout.slots, generator=torch.Generator().manual_seed(0)) < 0.6
    predicted = decoder(latent, wanted)
    for name, where in layout.slices.items():
        for row in range(3):
            for slot in range(layout.lengths[name]):
                values = predicted[name][row, slot]
                if wanted[row, where.start + slot]:
                    assert (values == slot).all()
                else:
                    assert values.isnan().all()


def test_holes_inside_a_patch_are_told_from_zeros(mae, batch, layout):
    torch.manual_seed(0)
    nn.init.normal_(mae.encoder.embeds["dnam"].holes.weight)
    zeros = Batch({**batch.patches, "dnam": torch.nan_to_num(batch.patches["dnam"])}, layout)
    with_holes = mae.encode(batch, batch.observed).summary[4]
    with_zeros = mae.encode(zeros, batch.observed).summary[4]
    assert not torch.allclose(with_holes, with_zeros)


def test_masks_are_bool(batch):
    assert batch.observed.dtype == torch.bool


def test_what_is_absent_is_not_computed(mae, batch, layout):
    """No row of an absent modality ever reaches its embedding."""
    seen = []
    mae.encoder.embeds["rna"].register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    mae.encode(batch, batch.observed)
    assert sum(seen) == int(batch.observed[:, layout.slices["rna"]].sum())
    seen.clear()
    mae.encode(batch, explicit(batch.observed, layout, {"dnam"}))
    assert not seen
