"""Samplers draw visible ⊆ observed, in the shares they promise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnisurv.core import Layout
from omnisurv.core.masking import dirichlet, drop_modalities, explicit, uniform


def draw_observed(seed, layout, rows=40, share=0.6):
    generator = torch.Generator().manual_seed(seed)
    observed = torch.rand(rows, layout.slots, generator=generator) < 0.9
    has = torch.rand(rows, len(layout.lengths), generator=generator) < share
    return observed & has[:, layout.modality_of_slot]


layouts = st.lists(st.integers(1, 12), min_size=1, max_size=4).map(
    lambda lengths: Layout(
        {f"m{i}": n for i, n in enumerate(lengths)}, {f"m{i}": 1 for i in range(len(lengths))}
    )
)


@settings(max_examples=60, deadline=None)
@given(layouts, st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_visible_is_observed_and_seeded(layout, seed, ratio):
    observed = draw_observed(seed, layout)
    for sampler in (
        lambda g: uniform(observed, layout, ratio, g),
        lambda g: dirichlet(observed, layout, ratio, 1.0, g),
        lambda g: drop_modalities(observed, layout, ratio, g),
    ):
        first, again = (sampler(torch.Generator().manual_seed(seed)) for _ in range(2))
        assert first.dtype == torch.bool
        assert not (first & ~observed).any()
        assert torch.equal(first, again)


@settings(max_examples=60, deadline=None)
@given(layouts, st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_uniform_keeps_its_share_of_each_modality(layout, seed, ratio):
    observed = draw_observed(seed, layout)
    visible = uniform(observed, layout, ratio, torch.Generator().manual_seed(seed))
    for where in layout.slices.values():
        exact = observed[:, where].sum(1) * (1 - ratio)
        kept = visible[:, where].sum(1)
        assert ((kept - exact).abs() < 1 + 1e-4).all()


def test_uniform_hides_single_tokens_at_the_ratio():
    layout = Layout({"clinical": 1}, {"clinical": 1})
    observed = torch.ones(4000, 1, dtype=torch.bool)
    visible = uniform(observed, layout, 0.3, torch.Generator().manual_seed(0))
    assert visible.float().mean().item() == pytest.approx(0.7, abs=0.03)


@settings(max_examples=60, deadline=None)
@given(layouts, st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_dirichlet_spends_exactly_its_budget_on_present_modalities(layout, seed, ratio):
    observed = draw_observed(seed, layout)
    visible = dirichlet(observed, layout, ratio, 1.0, torch.Generator().manual_seed(seed))
    budget = torch.round(observed.sum(1) * (1 - ratio)).long()
    assert torch.equal(visible.sum(1), budget)


def test_dirichlet_shares_vary_between_patients():
    layout = Layout({"t1": 64, "t2": 64}, {"t1": 1, "t2": 1})
    observed = torch.ones(2000, 128, dtype=torch.bool)
    visible = dirichlet(observed, layout, 0.75, 1.0, torch.Generator().manual_seed(0))
    share = visible[:, :64].sum(1) / 32
    assert share.mean().item() == pytest.approx(0.5, abs=0.03)
    assert share.std().item() == pytest.approx((1 / 12) ** 0.5, abs=0.03)  # uniform at alpha = 1


@settings(max_examples=60, deadline=None)
@given(layouts, st.integers(0, 10_000), st.floats(0.0, 1.0))
def test_dropping_never_takes_the_last_modality(layout, seed, rate):
    observed = draw_observed(seed, layout)
    visible = drop_modalities(observed, layout, rate, torch.Generator().manual_seed(seed))
    assert torch.equal(visible.any(1), observed.any(1))
    for where in layout.slices.values():  # whole or not at all
        kept, had = visible[:, where], observed[:, where]
        assert (torch.where(kept.any(1, keepdim=True), kept == had, ~kept)).all()


def test_explicit_shows_what_is_named():
    layout = Layout({"rna": 2, "dnam": 3}, {"rna": 1, "dnam": 1})
    observed = torch.tensor([[True, False, True, True, False]])
    assert explicit(observed, layout, {"dnam"}).tolist() == [[False, False, True, True, False]]
    assert not explicit(observed, layout, set()).any()
