import numpy as np
import pytest

from omnisurv.metrics import calibration_at, d_calibration


def loop_shares(event, S, bins):
    """Haider et al. 2020, patient by patient."""
    shares = np.zeros(bins)
    for e, s in zip(event, S, strict=True):
        for k in range(bins):
            low, high = k / bins, (k + 1) / bins
            inside = low <= s < high or (k == bins - 1 and s == 1)
            if e:
                shares[k] += inside
            elif inside:
                shares[k] += (s - low) / s if s > 0 else 1
            elif s >= high:
                shares[k] += (1 / bins) / s
    return shares / len(S)


def test_shares_follow_the_definition():
    draw = np.random.default_rng(0)
    event, S = draw.random(200) < 0.5, draw.random(200)
    S[:3] = [0.0, 1.0, 1.0]
    event[:2] = [False, True]
    result = d_calibration(event, S)
    assert result.share == pytest.approx(loop_shares(event, S, 10), abs=1e-12)
    assert result.share.sum() == pytest.approx(1)
    expected = 200 * ((result.share - 0.1) ** 2 / 0.1).sum()
    assert result.statistic == pytest.approx(expected)
    from scipy.stats import chi2

    assert result.p == pytest.approx(chi2.sf(expected, 9))


def test_true_curves_pass_and_overconfident_ones_fail(test):
    scale = 1000 * np.exp(-0.8 * test.risk)
    S = np.exp(-test.time / scale)
    assert d_calibration(test.event, S).p > 0.05
    assert d_calibration(test.event, S**3).p < 0.001


def test_no_patient_no_result():
    assert np.isnan(d_calibration([], []).p)


@pytest.mark.parametrize(
    ("S", "bins", "message"), [([1.2], 10, r"\[0, 1\]"), ([0.5], 1, "at least 2 bins")]
)
def test_bad_probabilities_are_refused(S, bins, message):
    with pytest.raises(ValueError, match=message):
        d_calibration([1], S, bins)


def test_calibration_table_compares_with_kaplan_meier(test):
    from sksurv.nonparametric import kaplan_meier_estimator

    S = np.exp(-600 / (1000 * np.exp(-0.8 * test.risk)))
    table = calibration_at(*test.endpoint, S, at=600.0, groups=4)
    assert len(table) == 4
    assert table["n"].sum() == len(S)
    assert table["events"].sum() == (test.event & (test.time <= 600)).sum()
    assert table["predicted"].is_monotonic_increasing
    worst = np.quantile(S, 0.25) >= S
    times, curve, ci = kaplan_meier_estimator(
        test.event[worst], test.time[worst], conf_type="log-log"
    )
    place = np.flatnonzero(times <= 600)[-1]
    row = table.iloc[0]
    assert row["observed"] == pytest.approx(curve[place])
    assert [row["ci_low"], row["ci_high"]] == pytest.approx(ci[:, place], abs=1e-6)


def test_equal_predictions_make_one_group(test):
    table = calibration_at(*test.endpoint, np.full(len(test.time), 0.5), at=600.0)
    assert len(table) == 1


def test_a_group_not_followed_that_far_is_nan():
    table = calibration_at([5.0, 6.0], [0, 1], [0.3, 0.3], at=10.0)
    assert table["observed"].tolist() == [0.0]
    table = calibration_at([5.0, 6.0], [1, 0], [0.3, 0.3], at=10.0)
    assert table["observed"].isna().all()
