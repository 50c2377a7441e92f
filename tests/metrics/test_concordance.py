import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnisurv.metrics import concordance_antolini, concordance_harrell, concordance_uno
from omnisurv.metrics.concordance import harrell_score, uno_score


def tied_endpoint(seed, n=60):
    draw = np.random.default_rng(seed)
    return draw.integers(1, 12, n).astype(float), draw.random(n) < 0.6, draw.integers(0, 5, n)


def loop_concordance(time, event, at_case):
    """The definition, pair by pair; at_case(i, j) is j's risk at the time of i's event."""
    agreeing = comparable = 0.0
    for i in range(len(time)):
        for j in range(len(time)):
            later = time[i] < time[j] or (time[i] == time[j] and not event[j])
            if i != j and event[i] and later:
                comparable += 1
                agreeing += (at_case(i, i) > at_case(i, j)) + (at_case(i, i) == at_case(i, j)) / 2
    return agreeing / comparable


@pytest.mark.parametrize("seed", range(4))
def test_harrell_follows_its_definition_and_sksurv_under_ties(seed):
    from sksurv.metrics import concordance_index_censored

    time, event, risk = tied_endpoint(seed)
    ours = concordance_harrell(time, event, risk)
    assert ours == pytest.approx(loop_concordance(time, event, lambda i, j: risk[j]), abs=1e-12)
    assert ours == pytest.approx(concordance_index_censored(event, time, risk)[0], abs=1e-12)


@pytest.mark.parametrize("tau", [400.0, 1200.0])
def test_uno_agrees_with_sksurv(train, test, tau):
    from sksurv.metrics import concordance_index_ipcw

    theirs = concordance_index_ipcw(train.surv, test.surv, test.risk, tau=tau)[0]
    ours = concordance_uno(*train.endpoint, *test.endpoint, test.risk, tau=tau)
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_uno_takes_test_times_beyond_the_training_follow_up(train, test):
    time = test.time.copy()
    time[:5] = train.time.max() + 100 * np.arange(1, 6)
    event = test.event.copy()
    event[:5] = True
    value = concordance_uno(*train.endpoint, time, event, test.risk)
    assert 0.5 < value < 1
    assert 0.5 < concordance_uno(*train.endpoint, time, event, test.risk, tau=1e9) < 1


def test_uno_without_censoring_is_harrell(test):
    every = np.ones(len(test.time), bool)
    uno = concordance_uno(test.time, every, test.time, every, test.risk, tau=1e9)
    assert uno == pytest.approx(concordance_harrell(test.time, every, test.risk), abs=1e-12)


def test_antolini_agrees_with_pycox_where_nothing_ties(test):
    from pycox.evaluation.concordance import concordance_td

    # a column of the grid for every patient's own time, so that no reading is between points
    order = np.argsort(test.time)
    own = np.exp(-test.time[order][:, None] / (1000 * np.exp(-0.8 * test.risk)))
    place = np.argsort(order)
    theirs = concordance_td(
        test.time, test.event.astype("int32"), np.ascontiguousarray(own), place, "antolini"
    )
    assert concordance_antolini(*test.endpoint, test.time[order], own) == pytest.approx(theirs)


@pytest.mark.parametrize("between", ["linear", "step"])
def test_antolini_follows_its_definition(between):
    time, event, _ = tied_endpoint(3)
    draw = np.random.default_rng(0)
    times = np.array([2.0, 5.0, 9.0])
    S = np.sort(draw.random((3, len(time))), axis=0)[::-1]
    S = np.round(S, 1) if between == "step" else S  # with ties where they can be exact
    grid, rows = np.append(0.0, times), np.vstack([np.ones(len(time)), S])

    def at_case(i, j):
        if between == "linear":
            return -np.interp(time[i], grid, rows[:, j])
        return -rows[np.flatnonzero(grid <= time[i])[-1], j]

    ours = concordance_antolini(time, event, times, S, between)
    assert ours == pytest.approx(loop_concordance(time, event, at_case), abs=1e-12)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_constant_predictor_scores_one_half_exactly(seed):
    time, event, _ = tied_endpoint(seed)
    S = np.repeat(np.array([[0.9], [0.4], [0.2]]), len(time), axis=1)
    flat = np.zeros(len(time))
    assert concordance_antolini(time, event, [1.0, 4.0, 8.0], S) == 0.5
    assert concordance_harrell(time, event, flat) == 0.5
    assert concordance_uno(time, event, time, event, flat) == 0.5


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_perfect_predictor_scores_one_and_its_reverse_zero(seed):
    time, event, _ = tied_endpoint(seed)
    # under tied times the event is the earlier of the two
    risk = -(time + 0.5 * ~event)
    assert concordance_harrell(time, event, risk) == 1
    assert concordance_harrell(time, event, -risk) == 0
    assert concordance_uno(time, event, time, event, risk) == 1


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_monotone_transforms_and_order_of_patients_change_nothing(seed):
    time, event, risk = tied_endpoint(seed)
    shuffle = np.random.default_rng(seed).permutation(len(time))
    value = concordance_harrell(time, event, risk)
    assert concordance_harrell(time, event, np.exp(risk / 3.0) - 7) == value
    assert concordance_harrell(time, event, risk * 1e-12) == value
    assert concordance_harrell(time[shuffle], event[shuffle], risk[shuffle]) == value
    uno = concordance_uno(time, event, time, event, risk)
    mixed = concordance_uno(time, event, time[shuffle], event[shuffle], risk[shuffle])
    assert mixed == pytest.approx(uno, abs=1e-12)


def test_without_a_comparable_pair_the_result_is_nan_with_a_reason():
    nobody = harrell_score([1.0, 2.0], [0, 0], [0.1, 0.2])
    assert np.isnan(nobody.value)
    assert nobody.reason == "no event among 2 patients"
    last = harrell_score([1.0, 2.0], [0, 1], [0.1, 0.2])
    assert np.isnan(last.value)
    assert last.reason.startswith("no comparable pair")
    assert np.isnan(concordance_harrell([], [], []))
    early = uno_score([1.0, 9.0], [1, 0], [5.0, 6.0], [1, 1], [0.0, 1.0], tau=2.0)
    assert np.isnan(early.value)
    assert "no comparable pair" in early.reason


def test_blocks_do_not_change_the_value(test, monkeypatch):
    whole = concordance_antolini(*test.endpoint, test.times, test.S)
    monkeypatch.setattr("omnisurv.metrics.concordance._CELLS", 300)
    assert concordance_antolini(*test.endpoint, test.times, test.S) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("time", "event", "risk", "message"),
    [
        ([1.0, 2.0], [1], [0.0, 0.0], "must be of one length"),
        ([1.0, 0.0], [1, 0], [0.0, 0.0], "time must be finite and > 0 days, got 0.0 at position 1"),
        ([1.0, np.nan], [1, 0], [0.0, 0.0], "time must be finite"),
        ([1.0, 2.0], [1, 2], [0.0, 0.0], "event must be 0"),
        ([1.0, 2.0], [1, 0], [0.0], r"risk must have shape \(2,\)"),
        ([1.0, 2.0], [1, 0], [0.0, np.nan], "risk is not finite for 1 patients"),
    ],
)
def test_wrong_arrays_are_refused(time, event, risk, message):
    with pytest.raises(ValueError, match=message):
        concordance_harrell(time, event, risk)
