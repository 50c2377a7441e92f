import numpy as np
import pytest

from omnisurv.metrics import Curves, censoring_curve, horizon, kaplan_meier_curve

TIMES = np.array([10.0, 20.0])
S = np.array([[0.8, 0.5], [0.4, 0.5]])


def test_linear_curves_start_at_one_and_end_level():
    curves = Curves(TIMES, S)
    assert curves.at([0, 5, 10, 15, 20, 99])[:, 0] == pytest.approx([1, 0.9, 0.8, 0.6, 0.4, 0.4])
    assert curves.own([15.0, 5.0]) == pytest.approx([0.6, 0.75])


def test_step_curves_are_right_continuous():
    curves = Curves(TIMES, S, "step")
    assert curves.at([0, 9.999, 10, 19.999, 20])[:, 0] == pytest.approx([1, 1, 0.8, 0.8, 0.4])


def test_restricted_mean_is_the_area_under_the_curve():
    assert Curves(TIMES, S).restricted_mean(20)[0] == pytest.approx(9 + 6)
    assert Curves(TIMES, S, "step").restricted_mean(15)[0] == pytest.approx(10 + 4)
    assert Curves(TIMES, S).restricted_mean(30)[0] == pytest.approx(15 + 4)


@pytest.mark.parametrize(
    ("times", "values", "message"),
    [
        ([1.0, 1.0], S, "strictly increasing"),
        ([-1.0, 1.0], S, ">= 0"),
        ([1.0], S, "got shapes"),
        ([1.0, 2.0], S + 0.7, r"in \[0, 1\]"),
        ([1.0, 2.0], S * np.nan, "without NaN"),
        ([1.0, 2.0], S[::-1], "must not rise"),
    ],
)
def test_what_is_no_survival_curve_is_refused(times, values, message):
    with pytest.raises(ValueError, match=message):
        Curves(np.array(times), values)


def test_curves_are_not_read_before_zero():
    with pytest.raises(ValueError, match="only be read at times >= 0"):
        Curves(TIMES, S).at([-1.0])


def test_kaplan_meier_and_censoring_agree_with_sksurv_under_ties():
    from sksurv.nonparametric import kaplan_meier_estimator

    draw = np.random.default_rng(0)
    time, event = draw.integers(1, 15, 80).astype(float), draw.random(80) < 0.5
    for curve, reverse in ((kaplan_meier_curve, False), (censoring_curve, True)):
        theirs = kaplan_meier_estimator(event, time, reverse=reverse)
        ours = curve(time, event)
        assert ours.times == pytest.approx(theirs[0])
        assert ours.values == pytest.approx(theirs[1], abs=1e-12)


def test_left_limits_of_a_step_function():
    G = censoring_curve([1.0, 2.0, 3.0, 4.0], [1, 0, 1, 0])
    assert G.at([0.5, 2.0, 4.0]) == pytest.approx([1, 2 / 3, 0])
    assert G.before([2.0, 3.0, 4.0, 9.0]) == pytest.approx([1, 2 / 3, 2 / 3, 0])
    assert G.limit == 3.0


def test_horizon_stays_inside_both_follow_ups(train, test):
    end = horizon(*train.endpoint)
    assert end == pytest.approx(np.quantile(train.time, 0.8))
    assert horizon(*train.endpoint, test.time) == end
    assert horizon(*train.endpoint, [3.0, 9.0]) == pytest.approx(9.0)
    assert horizon(*train.endpoint, [3.0, 9.0]) < 9.0


def test_horizon_ends_before_an_administrative_end_of_follow_up():
    time = np.append(np.arange(1.0, 51.0), np.full(50, 1825.0))
    event = np.append(np.ones(50), np.zeros(50))
    assert horizon(time, event) == 50.0  # at 1825 days nobody could be followed any longer


def test_horizon_needs_a_patient():
    with pytest.raises(ValueError, match="at least one training patient"):
        horizon([], [])
