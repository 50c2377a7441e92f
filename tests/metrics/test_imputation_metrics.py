import numpy as np
import pytest

from omnisurv.metrics import (
    coverage,
    estimate,
    imputation_scores,
    mae,
    mse,
    patient_draws,
    pearson,
    r2,
    rmse,
)
from omnisurv.metrics.imputation import _Pairs


@pytest.fixture
def values():
    draw = np.random.default_rng(0)
    truth = 100 + draw.normal(size=(40, 7)) * np.arange(1, 8)
    predicted = truth + draw.normal(size=truth.shape)
    truth[draw.random(truth.shape) < 0.3] = np.nan
    return truth, predicted


def by_feature(metric, truth, predicted):
    measured = ~np.isnan(truth)
    columns = range(truth.shape[1])
    return np.mean(
        [metric(truth[measured[:, j], j], predicted[measured[:, j], j]) for j in columns]
    )


def test_scores_follow_scikit_learn_on_what_was_measured(values):
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    truth, predicted = values
    measured = ~np.isnan(truth)
    y, x = truth[measured], predicted[measured]
    assert mse(*values) == pytest.approx(by_feature(mean_squared_error, *values))
    root = by_feature(lambda a, b: np.sqrt(mean_squared_error(a, b)), *values)
    assert rmse(*values) == pytest.approx(root)
    assert mae(*values) == pytest.approx(by_feature(mean_absolute_error, *values))
    assert r2(*values) == pytest.approx(by_feature(r2_score, *values))
    assert mse(*values, by="pooled") == pytest.approx(mean_squared_error(y, x))
    assert rmse(*values, by="pooled") == pytest.approx(np.sqrt(mean_squared_error(y, x)))
    assert mae(*values, by="pooled") == pytest.approx(mean_absolute_error(y, x))
    residual = (truth - np.nanmean(truth, axis=0))[measured]
    assert r2(*values, by="pooled") == pytest.approx(1 - ((y - x) ** 2).sum() / (residual**2).sum())


def test_pearson_by_feature_and_by_patient(values):
    def correlation(a, b):
        return np.corrcoef(a, b)[0, 1]

    truth, predicted = values
    assert pearson(*values) == pytest.approx(by_feature(correlation, *values))
    expected = by_feature(correlation, truth.T, predicted.T)
    assert pearson(*values, across="features") == pytest.approx(expected)


def test_what_nobody_measured_is_never_scored(values):
    truth, predicted = values
    other = np.where(np.isnan(truth), 1e9, predicted)
    lost = np.where(np.isnan(truth), np.nan, predicted)
    for metric in (mse, rmse, mae, r2, pearson):
        assert metric(truth, other) == metric(truth, predicted) == metric(truth, lost)


def test_predicting_each_mean_explains_nothing(values):
    truth, _ = values
    means = np.broadcast_to(np.nanmean(truth, axis=0), truth.shape)
    assert r2(truth, means) == pytest.approx(0, abs=1e-12)
    assert r2(truth, means, by="pooled") == pytest.approx(0, abs=1e-12)
    assert pearson(truth, means) == 0


def test_constant_features_are_left_out_of_r2_and_pearson(values):
    truth, predicted = values
    flat = np.full((len(truth), 1), 3.3)
    assert r2(np.hstack([truth, flat]), np.hstack([predicted, flat])) == r2(*values)
    both = pearson(np.hstack([truth, flat]), np.hstack([predicted, flat]))
    assert both == pytest.approx(pearson(*values), rel=1e-12)
    assert np.isnan(r2(flat, flat))
    assert imputation_scores(flat, flat)["r2"].reason == "no measured feature varies"
    assert mse(flat, flat) == 0


def test_nothing_measured_is_nan_with_a_reason():
    empty = np.full((3, 2), np.nan)
    scores = imputation_scores(empty, empty, empty, empty)
    assert all(np.isnan(score.value) and score.reason for score in scores.values())


def test_coverage_counts_measured_values():
    truth = np.array([[1.0, 2.0], [3.0, np.nan]])
    assert coverage(truth, truth - 1, truth + 1) == 1
    low = np.array([[0.0, 2.5], [0.0, np.nan]])
    assert coverage(truth, low, low + 4) == pytest.approx(2 / 3)


def test_a_measured_value_without_prediction_is_refused(values):
    truth, predicted = values
    with pytest.raises(ValueError, match="measured values have no prediction"):
        mse(truth, np.where(truth > 100, np.nan, predicted))
    with pytest.raises(ValueError, match="of one shape"):
        mse(truth, predicted[:, :3])
    with pytest.raises(ValueError, match="upper interval end"):
        coverage(truth, predicted, predicted * np.nan)
    with pytest.raises(ValueError, match="'feature' or 'pooled'"):
        mse(truth, predicted, by="all")


def test_weighting_is_resampling(values, monkeypatch):
    monkeypatch.setattr("omnisurv.metrics.imputation._CELLS", 50)
    truth, predicted = values
    scores = imputation_scores(truth, predicted, predicted - 1, predicted + 1, level=0.9, events=9)
    assert list(scores)[-2:] == ["pearson_profile", "coverage_90"]
    draws = patient_draws(len(truth), 3)
    for k, counts in enumerate(draws.astype(int)):
        again = np.repeat(np.arange(len(truth)), counts)
        drawn = imputation_scores(
            truth[again], predicted[again], predicted[again] - 1, predicted[again] + 1
        )
        for name, score in scores.items():
            assert score.weigh(draws)[k] == pytest.approx(drawn[name].value, abs=1e-9), name
    result = estimate(scores["r2"], patient_draws(len(truth), 100))
    assert result.ci_low < result.value < result.ci_high
    assert (result.n, result.events) == (40, 9)


def test_large_offsets_lose_no_precision():
    draw = np.random.default_rng(1)
    truth = draw.normal(size=(50, 3))
    predicted = truth + 0.1 * draw.normal(size=truth.shape)
    assert r2(truth + 1e7, predicted + 1e7) == pytest.approx(r2(truth, predicted), abs=1e-6)
    assert _Pairs.of(truth, predicted).measured.all()
