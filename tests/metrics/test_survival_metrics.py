import numpy as np
import pytest

from omnisurv.metrics import (
    Curves,
    auc_cumulative_dynamic,
    brier_score,
    censoring_curve,
    cs_score,
    estimate,
    horizon,
    integrated_brier_score,
    patient_draws,
    survival_scores,
)

NAMES = ["c_antolini", "c_harrell", "c_uno", "ibs", "cs", "auc", "d_calibration_p"]


def loop_brier(train, test, S_at, t):
    """Graf's score, patient by patient."""
    G = censoring_curve(*train)
    total = 0.0
    for time, event, S in zip(*test, S_at, strict=True):
        if time <= t and event:
            total += S**2 / float(G.before(time))
        elif time > t:
            total += (1 - S) ** 2 / float(G.at(t))
    return total / len(S_at)


def test_brier_follows_its_definition_under_ties():
    draw = np.random.default_rng(0)
    train = draw.integers(1, 15, 90).astype(float), draw.random(90) < 0.5
    test = draw.integers(1, 15, 50).astype(float), draw.random(50) < 0.5
    S = np.sort(draw.random((4, 50)), axis=0)[::-1]
    times = np.array([2.0, 5.0, 8.0, 11.0])
    at = np.array([1.0, 5.0, 7.5])
    expected = [loop_brier(train, test, Curves(times, S).at([t])[0], t) for t in at]
    assert brier_score(*train, *test, times, S, at) == pytest.approx(expected, abs=1e-12)


def test_brier_and_ibs_agree_with_sksurv(train, test):
    from sksurv.metrics import brier_score as their_brier
    from sksurv.metrics import integrated_brier_score as their_ibs

    at = np.linspace(50, 1500, 40)
    S_at = Curves(test.times, test.S).at(at).T
    ours = brier_score(*train.endpoint, *test.endpoint, test.times, test.S, at)
    assert ours == pytest.approx(their_brier(train.surv, test.surv, S_at, at)[1], abs=1e-9)
    ibs = integrated_brier_score(*train.endpoint, *test.endpoint, test.times, test.S, at)
    assert ibs == pytest.approx(their_ibs(train.surv, test.surv, S_at, at), abs=1e-9)


def test_brier_agrees_with_pycox_weights_from_test(test):
    import pandas as pd
    from pycox.evaluation import EvalSurv

    at = np.linspace(50, 1500, 15)
    curves = pd.DataFrame(test.S, index=test.times)
    theirs = EvalSurv(curves, test.time, test.event.astype(float), censor_surv="km")
    # pycox reads step curves, and divides by the sum of the weights where we divide by n
    G = censoring_curve(*test.endpoint)
    early = (test.time <= at[:, None]) & test.event
    weight = (
        early / np.where(early, G.before(test.time), 1)
        + (test.time > at[:, None]) / G.at(at)[:, None]
    )
    ours = brier_score(*test.endpoint, *test.endpoint, test.times, test.S, at, between="step")
    expected = theirs.brier_score(at).to_numpy() * weight.sum(axis=1) / len(test.time)
    assert ours == pytest.approx(expected, abs=1e-9)


def test_ibs_is_the_trapezoid_from_zero_to_the_horizon(train, test):
    end = horizon(*train.endpoint, test.time)
    at = np.linspace(0, end, 101)
    score = brier_score(*train.endpoint, *test.endpoint, test.times, test.S, at)
    ibs = integrated_brier_score(*train.endpoint, *test.endpoint, test.times, test.S)
    assert score[0] == 0
    assert ibs == pytest.approx(np.trapezoid(score, at) / end, abs=1e-12)


def test_perfect_curves_score_zero_and_a_coin_a_quarter():
    time, event = np.arange(1.0, 41.0), np.ones(40)
    # one step per patient, at the patient's own time
    exact = (time[:, None] < time).astype(float)
    assert integrated_brier_score(time, event, time, event, time, exact, between="step") == 0
    coin = np.full((2, 40), 0.5)
    at = brier_score(time, event, time, event, [0.0, 50.0], coin, [5.0, 20.0])
    assert at == pytest.approx(0.25)


def test_follow_up_beyond_training_is_cut_off_instead_of_raising(train, test):
    time = test.time.copy()
    time[:10] += 10_000
    at = [500.0, train.time.max() + 1]
    score = brier_score(*train.endpoint, time, test.event, test.times, test.S, at)
    assert np.isfinite(score[0])
    assert np.isnan(score[1])
    ibs = integrated_brier_score(*train.endpoint, time, test.event, test.times, test.S)
    later = time.copy()
    later[:10] += 5_000
    # whatever happens beyond the horizon does not count
    assert ibs == integrated_brier_score(*train.endpoint, later, test.event, test.times, test.S)
    assert np.isfinite(ibs)


def test_auc_agrees_with_sksurv(train, test):
    from sksurv.metrics import cumulative_dynamic_auc

    at = np.array([100.0, 400.0, 900.0])
    rough = np.round(test.risk, 1)  # with ties
    for risk, theirs in ((rough, rough), ((1 - Curves(test.times, test.S).at(at)), None)):
        estimate_ = risk.T if theirs is None else theirs
        expected, expected_mean = cumulative_dynamic_auc(train.surv, test.surv, estimate_, at)
        each, mean = auc_cumulative_dynamic(*train.endpoint, *test.endpoint, risk, at)
        assert each == pytest.approx(expected, abs=1e-9)
        assert mean == pytest.approx(expected_mean, abs=1e-9)


def test_auc_without_case_or_control_is_nan(train, test):
    at = [0.5, test.time.max() + 1]
    each, mean = auc_cumulative_dynamic(*train.endpoint, *test.endpoint, test.risk, at)
    assert np.isnan(each).all()
    assert np.isnan(mean)


def test_cs_score():
    assert cs_score(0.8, 0.2) == pytest.approx(0.8)


def test_all_scores_at_once(train, test):
    scores = survival_scores(*train.endpoint, *test.endpoint, test.times, test.S)
    assert list(scores) == NAMES
    value = {name: score.value for name, score in scores.items()}
    assert value["cs"] == pytest.approx(cs_score(value["c_antolini"], value["ibs"]))
    assert value["c_antolini"] == pytest.approx(value["c_harrell"], abs=0.01)
    assert value["auc"] > value["c_uno"] > 0.6
    assert value["d_calibration_p"] > 0.01
    assert {(s.n, s.events) for s in scores.values()} == {(len(test.time), test.event.sum())}


def test_bins_are_not_times(train, test):
    # scored on bin indices, a constant predictor looks better than a coin; on raw times it cannot
    S = np.repeat(np.linspace(1, 0.2, 60)[:, None], len(test.time), axis=1)
    scores = survival_scores(*train.endpoint, *test.endpoint, test.times, S)
    for name in ("c_antolini", "c_harrell", "c_uno", "auc"):
        assert scores[name].value == 0.5


def test_scores_of_nobody_and_of_the_event_free_are_nan_with_reasons(train, test):
    none = survival_scores(*train.endpoint, [], [], test.times, np.empty((60, 0)))
    assert list(none) == NAMES
    assert all(np.isnan(score.value) and score.reason for score in none.values())
    alive = survival_scores(*train.endpoint, [50.0, 90.0], [0, 0], test.times, test.S[:, :2])
    for name in ("c_antolini", "c_harrell", "c_uno", "auc", "cs"):
        assert np.isnan(alive[name].value)
        assert alive[name].reason
    assert np.isfinite(alive["ibs"].value)
    result = estimate(alive["c_harrell"], patient_draws(2, 10))
    assert np.isnan(result.ci_low)
    assert result.reason == "no event among 2 patients"
