"""AUC, average precision, balanced accuracy and Brier: scikit-learn's, under any weights."""

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from omnisurv.metrics import classification_scores, estimate, patient_draws
from omnisurv.metrics.classification import precision_curves, roc_curves

NAMES = ("auc", "average_precision", "balanced_accuracy", "brier")


def drawn(n=80, k=2, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + 1.2 * np.eye(k)[codes]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if ties:
        p = np.round(p * 4 + 0.01) / 4
        p[:, -1] = 1 - p[:, :-1].sum(1)
    return codes, p


def sklearns(codes, p, weight=None):
    """Return the same four by scikit-learn."""
    k = p.shape[1]
    asked = [1] if k == 2 else range(k)
    rest = {"sample_weight": weight}
    return {
        "auc": np.mean([roc_auc_score(codes == c, p[:, c], **rest) for c in asked]),
        "average_precision": np.mean(
            [average_precision_score(codes == c, p[:, c], **rest) for c in asked]
        ),
        "balanced_accuracy": balanced_accuracy_score(codes, p.argmax(1), **rest),
        "brier": brier_score_loss(codes, p[:, 1] if k == 2 else p, labels=range(k), **rest),
    }


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("ties", [False, True])
def test_values_are_scikit_learns(k, ties):
    codes, p = drawn(k=k, ties=ties and k == 2)
    scores, expected = classification_scores(codes, p), sklearns(codes, p)
    assert set(scores) == set(NAMES)
    for name in NAMES:
        assert scores[name].value == pytest.approx(expected[name], abs=1e-9), name


@pytest.mark.parametrize("k", [2, 3])
def test_so_are_they_under_bootstrap_weights(k):
    codes, p = drawn(k=k, seed=3, ties=k == 2)
    weights = patient_draws(len(codes), 20, seed=5)
    scores = classification_scores(codes, p)
    for name in NAMES:
        found = scores[name].weigh(weights)
        expected = [sklearns(codes, p, w)[name] for w in weights]
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)


def test_n_and_positives_are_told():
    codes, p = drawn()
    for score in classification_scores(codes, p).values():
        assert (score.n, score.events) == (80, (codes == 1).sum())


def test_intervals_hold_the_value_and_narrow_with_patients():
    widths = []
    for n in (60, 600):
        codes, p = drawn(n)
        e = estimate(classification_scores(codes, p)["auc"], patient_draws(n, 200))
        assert e.ci_low < e.value < e.ci_high
        widths.append(e.ci_high - e.ci_low)
    assert widths[1] < widths[0] / 2


def test_a_constant_is_one_half_and_the_prevalence():
    codes, _ = drawn()
    constant = np.tile([0.6, 0.4], (80, 1))
    scores = classification_scores(codes, constant)
    assert scores["auc"].value == 0.5
    assert scores["average_precision"].value == pytest.approx((codes == 1).mean())
    assert scores["balanced_accuracy"].value == 0.5


def test_one_class_alone_cannot_be_ranked():
    scores = classification_scores([0, 0, 0], np.tile([0.7, 0.3], (3, 1)))
    assert np.isnan(scores["auc"].value)
    assert scores["auc"].reason == "all patients are of one class"
    assert scores["balanced_accuracy"].value == 1.0
    assert scores["brier"].value == pytest.approx(0.09)


def test_classes_that_nobody_has_are_left_out_of_the_mean():
    codes, p = drawn(k=3)
    who = codes < 2
    value = classification_scores(codes[who], p[who])["auc"].value
    two = [roc_auc_score(codes[who] == c, p[who, c]) for c in (0, 1)]
    assert value == pytest.approx(np.mean(two))


def test_curves_are_those_of_scikit_learn():
    codes, p = drawn(seed=7)
    at = np.linspace(0, 1, 21)
    one = np.ones((1, 80), dtype=np.float32)
    false, true, _ = roc_curve(codes, p[:, 1], drop_intermediate=False)
    found = roc_curves(one, codes == 1, p[:, 1], at)[0]
    inside = at > 0  # the curve may rise straight up at 0
    np.testing.assert_allclose(found[inside], np.interp(at, false, true)[inside], atol=1e-9)
    precision, recall, _ = precision_recall_curve(codes, p[:, 1])
    best = [precision[recall >= r - 1e-9].max() for r in at[1:]]
    found = precision_curves(one, codes == 1, p[:, 1], at[1:])[0]
    # scikit-learn adds a precision of 1 at recall 0, which no threshold has
    np.testing.assert_allclose(found, best, atol=1e-9)


@pytest.mark.parametrize(
    ("codes", "p", "told"),
    [
        ([0, 1], [[0.5, 0.5]], "are not"),
        ([0, 2], [[0.5, 0.5]] * 2, "0 to 1"),
        ([0, 1], [[0.5, np.nan]] * 2, "finite"),
    ],
)
def test_what_does_not_fit_is_refused(codes, p, told):
    with pytest.raises(ValueError, match=told):
        classification_scores(codes, p)
