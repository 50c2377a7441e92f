import numpy as np
import pytest

from omnisurv.metrics import (
    auc_cumulative_dynamic,
    average_scores,
    concordance_antolini,
    concordance_harrell,
    concordance_uno,
    difference,
    estimate,
    horizon,
    integrated_brier_score,
    patient_draws,
    survival_scores,
)
from omnisurv.metrics.auc import auc_times
from omnisurv.metrics.bootstrap import Score, patient_mean, undefined
from omnisurv.metrics.concordance import harrell_score


def test_draws_are_seeded_counts():
    draws = patient_draws(30, 50, seed=3)
    assert draws.shape == (50, 30)
    assert (draws.sum(axis=1) == 30).all()
    assert (draws == patient_draws(30, 50, seed=3)).all()
    assert (draws != patient_draws(30, 50, seed=4)).any()
    with pytest.raises(ValueError, match="at least 1 patient"):
        patient_draws(0)


def test_weighting_is_resampling(train, test):
    """A count of two is the patient twice, for every metric."""
    scores = survival_scores(*train.endpoint, *test.endpoint, test.times, test.S, test.risk)
    draws = patient_draws(len(test.time), 3, seed=1)
    weighted = {name: score.weigh(draws) for name, score in scores.items()}
    end = horizon(*train.endpoint, test.time)
    at = auc_times(*train.endpoint, end)
    grid = np.linspace(0, end, 101)
    for k, counts in enumerate(draws.astype(int)):
        again = np.repeat(np.arange(len(counts)), counts)
        time, event, S = test.time[again], test.event[again], test.S[:, again]
        drawn = survival_scores(*train.endpoint, time, event, test.times, S, end=end)
        expected = {
            "c_harrell": concordance_harrell(time, event, test.risk[again]),
            "c_antolini": concordance_antolini(time, event, test.times, S),
            "c_uno": concordance_uno(*train.endpoint, time, event, test.risk[again], end),
            "ibs": integrated_brier_score(*train.endpoint, time, event, test.times, S, grid),
            "d_calibration_p": drawn["d_calibration_p"].value,
        }
        for name, value in expected.items():
            assert weighted[name][k] == pytest.approx(value, abs=1e-9), name
        risk = (
            np.interp(0, [0], [0])
            + 1
            - np.array([np.interp(at, test.times, column) for column in S.T]).T
        )
        mean = auc_cumulative_dynamic(*train.endpoint, time, event, risk, at)[1]
        assert weighted["auc"][k] == pytest.approx(mean, abs=1e-9)


def test_estimate_is_the_percentile_interval(test):
    score = harrell_score(*test.endpoint, test.risk)
    draws = patient_draws(score.n, 200)
    result = estimate(score, draws)
    values = score.weigh(draws)
    assert (result.ci_low, result.ci_high) == tuple(np.quantile(values, [0.025, 0.975]))
    assert result.ci_low < result.value < result.ci_high
    assert (result.n, result.events) == (len(test.time), int(test.event.sum()))
    narrower = estimate(score, draws, level=0.5)
    assert result.ci_low < narrower.ci_low < narrower.ci_high < result.ci_high


def test_weights_of_other_patients_are_refused(test):
    with pytest.raises(ValueError, match="do not fit"):
        estimate(harrell_score(*test.endpoint, test.risk), patient_draws(5, 10))


def test_paired_difference(test):
    draws = patient_draws(len(test.time), 300)
    noise = np.random.default_rng(0).normal(size=len(test.time))
    good = harrell_score(*test.endpoint, test.risk)
    bad = harrell_score(*test.endpoint, noise)
    result = difference(good, bad, draws)
    assert result.value == pytest.approx(good.value - bad.value)
    assert result.ci_low > 0
    assert result.p == pytest.approx(2 / 301)
    back = difference(bad, good, draws)
    assert [back.ci_low, back.ci_high] == pytest.approx([-result.ci_high, -result.ci_low])
    same = difference(good, good, draws)
    assert (same.value, same.ci_low, same.ci_high, same.p) == (0, 0, 0, 1)


def test_paired_difference_is_tighter_than_two_intervals(test):
    draws = patient_draws(len(test.time), 300)
    noise = np.random.default_rng(0).normal(size=len(test.time))
    one = harrell_score(*test.endpoint, test.risk)
    other = harrell_score(*test.endpoint, test.risk + 0.1 * noise)
    paired = difference(one, other, draws)
    alone = estimate(one, draws)
    assert paired.ci_high - paired.ci_low < 0.5 * (alone.ci_high - alone.ci_low)


def test_differences_between_other_patients_are_refused(test):
    one = harrell_score(*test.endpoint, test.risk)
    other = harrell_score(test.time[:50], test.event[:50], test.risk[:50])
    with pytest.raises(ValueError, match="needs the same patients: 120 with"):
        difference(one, other, patient_draws(120, 10))


def test_difference_with_an_undefined_score_says_why(test):
    one = harrell_score(*test.endpoint, test.risk)
    other = undefined(one.n, one.events, "no luck")
    result = difference(one, other, patient_draws(one.n, 10))
    assert np.isnan([result.value, result.p]).all()
    assert result.reason == "no luck"


def test_interval_is_left_out_where_most_draws_are_undefined():
    rare = Score(lambda w: np.where(w[:, 0] == 1, 0.7, np.nan), 50, 1)
    result = estimate(rare, patient_draws(50, 100))
    assert result.value == 0.7
    assert np.isnan(result.ci_low)
    assert result.reason.startswith("no interval: undefined in")
    assert np.isnan(difference(rare, rare, patient_draws(50, 100)).p)


def test_average_over_folds_follows_its_patients(test):
    n = len(test.time)
    folds = [np.arange(0, n, 2), np.arange(1, n, 2)]
    parts = [(harrell_score(test.time[f], test.event[f], test.risk[f]), f) for f in folds]
    mean = average_scores(parts, n, int(test.event.sum()))
    assert mean.value == pytest.approx(np.mean([score.value for score, _ in parts]))
    draws = patient_draws(n, 20)
    by_hand = np.mean([score.weigh(draws[:, f]) for score, f in parts], axis=0)
    assert mean.weigh(draws) == pytest.approx(by_hand)
    lost = [*parts, (undefined(3, 0, "no event"), np.arange(3))]
    assert average_scores(lost, n, 1).value == pytest.approx(mean.value)
    nothing = average_scores([(undefined(3, 0, "no event"), np.arange(3))], n, 1)
    assert np.isnan(nothing.value)
    assert nothing.reason == "no event"
    assert np.isnan(average_scores([], n, 1).value)


def test_bootstrap_interval_covers(test):
    """About 95 of 100 intervals of a mean hold the truth."""
    draw = np.random.default_rng(0)
    draws = patient_draws(60, 300)
    held = 0
    for _ in range(200):
        result = estimate(patient_mean(draw.normal(size=60), 0), draws)
        held += result.ci_low <= 0 <= result.ci_high
    assert 178 <= held <= 200
