"""The time grid by pycox's conventions, and curves on raw time."""

import numpy as np
import pytest
import torch

from omnisurv.heads.survival import TimeGrid, curves


def draw(n=200, seed=0):
    generator = np.random.default_rng(seed)
    return generator.exponential(900, n) + 1.0, generator.random(n) < 0.6


@pytest.mark.parametrize("scheme", ["quantiles", "equidistant"])
@pytest.mark.parametrize("intervals", [5, 20])
def test_cuts_and_labels_are_pycox(scheme, intervals):
    from pycox.preprocessing.label_transforms import LabTransDiscreteTime

    time, event = draw()
    transform = LabTransDiscreteTime(intervals, scheme=scheme)
    index, happened = transform.fit_transform(time, event.astype(float))
    grid = TimeGrid.fit(time, event, intervals, scheme)
    np.testing.assert_allclose(grid.cuts, transform.cuts)
    ours, ours_happened = grid.transform(time, event)
    if scheme == "equidistant":
        # With quantiles pycox lets events beyond the last cut count as events at it.
        np.testing.assert_array_equal(ours, index)
        np.testing.assert_array_equal(ours_happened, happened == 1)
    inside = time <= grid.cuts[-1]
    np.testing.assert_array_equal(ours[inside], index[inside])
    np.testing.assert_array_equal(ours_happened[inside], happened[inside] == 1)


@pytest.mark.parametrize("scheme", ["quantiles", "equidistant"])
def test_events_go_up_and_censorings_down(scheme):
    time, event = draw()
    grid = TimeGrid.fit(time, event, 10, scheme)
    later, later_event = draw(seed=9)
    index, happened = grid.transform(later, later_event)
    for t, d, k, h in zip(later, later_event, index, happened, strict=True):
        if t > grid.cuts[-1]:
            assert (k, h) == (len(grid.cuts) - 1, False)
        elif d:
            assert h
            assert grid.cuts[k - 1] < t <= grid.cuts[k]
        else:
            assert not h
            assert grid.cuts[k] <= t
            assert k == len(grid.cuts) - 1 or t < grid.cuts[k + 1]


def test_interval_zero_never_holds_an_event():
    time, event = draw()
    grid = TimeGrid.fit(time, event, 8, "quantiles")
    assert grid.cuts[0] == 0
    time, event = np.array([0.001, 0.001, grid.cuts[1]]), np.array([True, False, True])
    index, happened = grid.transform(time, event)
    assert index.tolist() == [1, 0, 1]
    assert happened.tolist() == [True, False, True]


def test_beyond_the_last_cut_is_censored_there():
    grid = TimeGrid(np.array([0.0, 10.0, 20.0]))
    index, happened = grid.transform(np.array([20.0, 20.5, 99.0]), np.array([True, True, False]))
    assert index.tolist() == [2, 2, 2]
    assert happened.tolist() == [True, False, False]


def test_tied_event_times_give_fewer_cuts():
    grid = TimeGrid.fit(np.array([5.0] * 30 + [9.0] * 10), np.ones(40, dtype=bool), 10, "quantiles")
    assert grid.cuts.tolist() == [0.0, 5.0, 9.0]


def test_curves_are_the_product_of_one_minus_hazard():
    logits = torch.tensor([[-9.0, 0.0, 1.0], [2.0, -3.0, 40.0]])
    hazard = 1 / (1 + np.exp(-logits.double().numpy()))
    hazard[:, 0] = 0.0  # nobody dies in interval 0, whatever its logit
    np.testing.assert_allclose(
        curves(logits).numpy(), np.cumprod(1 - hazard, axis=1), rtol=1e-5, atol=1e-12
    )


class FakeNetwork:
    """What pycox's interpolation asks of a model."""

    def __init__(self, hazard):
        self.hazard = hazard

    def predict_hazard(self, *_):
        return self.hazard


def test_interpolation_is_pycox_const_hazard():
    from pycox.models.interpolation import InterpolateLogisticHazard

    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(7, 6, generator=generator, dtype=torch.float64) - 1.0
    logits[:, 0] = -50.0
    grid = TimeGrid(np.array([0.0, 40.0, 100.0, 350.0, 800.0, 2000.0]))
    theirs = InterpolateLogisticHazard(
        FakeNetwork(torch.sigmoid(logits)), "const_hazard", duration_index=grid.cuts, sub=10
    ).predict_surv_df(np.zeros(1))
    ours = grid.interpolate(curves(logits).numpy(), theirs.index.to_numpy())
    np.testing.assert_allclose(ours.T, theirs.to_numpy(), rtol=1e-5)


def test_interpolated_curves_start_at_one_and_never_rise():
    generator = torch.Generator().manual_seed(4)
    logits = 6 * torch.randn(50, 8, generator=generator)
    grid = TimeGrid(np.linspace(0.0, 700.0, 8))
    at_cuts = curves(logits).double().numpy()
    times = np.linspace(0.0, 1500.0, 400)  # beyond the last cut too
    S = grid.interpolate(at_cuts, times)
    assert (S[:, 0] == 1).all()
    assert (np.diff(S, axis=1) <= 1e-12).all()
    assert ((S >= 0) & (S <= 1)).all()
    np.testing.assert_allclose(grid.interpolate(at_cuts, grid.cuts), at_cuts, rtol=1e-9, atol=1e-12)
    # Beyond the last cut the hazard of the last interval goes on.
    np.testing.assert_allclose(
        grid.interpolate(at_cuts, np.array([800.0]))[:, 0],
        np.clip(at_cuts[:, -1], 1e-12, 1) ** 2 / np.clip(at_cuts[:, -2], 1e-12, 1),
        rtol=1e-6,
    )
