"""Net benefit against the numbers of the package that its authors publish, and against a loop."""

import numpy as np
import pytest

from omnisurv.metrics import kaplan_meier_curve, net_benefit_scores, patient_draws

THRESHOLDS = np.linspace(0, 0.9, 10)
AT = 730.5


@pytest.fixture(scope="module")
def patients():
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    died = np.ceil(rng.exponential(1000 * np.exp(-x)))
    left = np.ceil(rng.exponential(1500, 60))
    return np.minimum(died, left), (died <= left).astype(float), 1 / (1 + np.exp(-x))


def test_values_are_those_of_dcurves(patients):
    """From dcurves 1.1.7: dca(outcome="event", time=730.5, time_to_outcome_col="time")."""
    time, event, risk = patients
    ours = [score.value for score in net_benefit_scores(time, event, risk, AT, THRESHOLDS)]
    nan = float("nan")
    expected = [0.488168, 0.435261, 0.366752, 0.278844, 0.236183, 0.267333, 0.222222, 0.144444,
                nan, 0.0]  # fmt: skip
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    everybody = net_benefit_scores(time, event, np.ones(60), AT, THRESHOLDS)
    expected = [0.488168, 0.431298, 0.36021, 0.268811, 0.146946, -0.023664, -0.27958, -0.706107,
                -1.559161, -4.118321]  # fmt: skip
    np.testing.assert_allclose([score.value for score in everybody], expected, atol=1e-6)


def test_what_is_not_known_says_why(patients):
    time, event, risk = patients
    scores = net_benefit_scores(time, event, risk, AT, THRESHOLDS)
    assert [bool(score.reason) for score in scores] == [np.isnan(s.value) for s in scores]
    assert scores[8].reason == "nobody above the threshold was followed that far"


def test_draws_are_net_benefits_of_resampled_patients(patients):
    time, event, risk = patients
    score = net_benefit_scores(time, event, risk, AT, [0.3])[0]
    counts = patient_draws(60, 5, seed=1)
    for drawn, found in zip(counts, score.weigh(counts), strict=True):
        again = np.repeat(np.arange(60), drawn.astype(int))
        above = again[risk[again] >= 0.3]
        S = float(kaplan_meier_curve(time[above], event[above]).at(AT))
        expected = len(above) / 60 * ((1 - S) - S * 0.3 / 0.7)
        assert found == pytest.approx(expected)


def test_wrong_risks_are_refused(patients):
    time, event, risk = patients
    with pytest.raises(ValueError, match="risk must have shape"):
        net_benefit_scores(time, event, risk[:5], AT, [0.1])
