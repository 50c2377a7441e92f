"""Dividing patients: seeded, stratified, groups whole, events in every part."""

import numpy as np
import pandas as pd
import pytest

from omnisurv.data import splits
from omnisurv.data.spec import Splits
from omnisurv.errors import DataError


def patients(n: int = 200, groups: int = 0, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(
        {
            "time": rng.exponential(100, n) + 1,
            "event": (rng.random(n) < 0.4).astype(float),
            "subtype": rng.choice(["a", "b"], n, p=[0.8, 0.2]),
        },
        index=[f"P{i:04d}" for i in range(n)],
    )
    if groups:
        obs["group"] = rng.choice([f"H{i}" for i in range(groups)], n)
    return obs


RULE = Splits(stratify=("event", "subtype"), test=0.25, folds=4, seed=1)


@pytest.mark.parametrize("groups", [0, 25])
def test_parts_cover_everybody_once_and_are_seeded(groups: int) -> None:
    obs = patients(groups=groups)
    dev, test = splits.split(obs, RULE)
    assert sorted([*dev, *test]) == list(obs.index)
    assert len(test) == pytest.approx(50, abs=6 if groups else 0)
    again = splits.split(obs, RULE)
    assert list(again[1]) == list(test)
    other = splits.split(obs, RULE.model_copy(update={"seed": 2}))
    assert list(other[1]) != list(test)
    parts = splits.folds(obs, RULE, None, None, None)
    assert len(parts) == 4
    assert sorted(p for _, part in parts for p in part) == list(obs.index)


@pytest.mark.parametrize("groups", [0, 25])
def test_strata_are_balanced(groups: int) -> None:
    obs = patients(400, groups=groups)
    _, test = splits.split(obs, RULE)
    share = obs.loc[test, "event"].mean(), (obs.loc[test, "subtype"] == "b").mean()
    whole = obs["event"].mean(), (obs["subtype"] == "b").mean()
    assert share == pytest.approx(whole, abs=0.08)


def test_groups_stay_whole() -> None:
    obs = patients(groups=12)
    parts = [splits.split(obs, RULE), *splits.folds(obs, RULE, 4, 2, 0)]
    assert len(parts) == 9
    for train, test in parts:
        assert not set(obs.loc[train, "group"]) & set(obs.loc[test, "group"])


def test_who_cannot_be_scored_is_trained_on() -> None:
    obs = patients(100)
    obs.iloc[:10, 0] = 0
    obs.iloc[10:15, 1] = np.nan
    nobody = set(obs.index[:15])
    for train, test in [splits.split(obs, RULE), *splits.folds(obs, RULE, None, None, None)]:
        assert nobody <= set(train)
        assert not nobody & set(test)


def test_who_cannot_be_scored_goes_with_the_group() -> None:
    """Else a hospital of the test part would be trained on."""
    obs = patients(100, groups=10)
    obs.iloc[:20, 0] = 0
    for train, test in splits.folds(obs, RULE, None, None, None):
        assert not set(obs.loc[train, "group"]) & set(obs.loc[test, "group"])


def test_who_has_no_group_is_one_of_their_own() -> None:
    obs = patients(100, groups=10)
    obs.loc[obs.index[:5], "group"] = None
    parts = splits.folds(obs, RULE, None, None, None)
    assert sorted(p for _, part in parts for p in part) == list(obs.index)


def test_repeats_differ() -> None:
    obs = patients(100)
    parts = splits.folds(obs, RULE, 4, 2, None)
    assert len(parts) == 8
    assert list(parts[0][1]) != list(parts[4][1])


def test_a_fold_without_events_is_an_error() -> None:
    obs = patients(60)
    obs["event"] = 0.0
    obs.iloc[:3, 1] = 1.0
    with pytest.raises(
        DataError, match=r"fold \d of 5 has no event among its \d+ patients; use fewer"
    ):
        splits.folds(obs, Splits(stratify=()), 5, 1, 0)


def test_a_test_part_without_events_is_an_error() -> None:
    obs = patients(60)
    obs["event"] = 0.0
    obs.iloc[0, 1] = 1.0
    with pytest.raises(DataError, match=r"the (test|development) part has no event"):
        splits.split(obs, RULE)


def test_too_few_groups_or_patients_are_errors() -> None:
    with pytest.raises(
        DataError, match="4 folds need as many groups, there are 3; use fewer folds"
    ):
        splits.folds(patients(groups=3), RULE, None, None, None)
    with pytest.raises(DataError, match="300 folds need as many patients, there are 200"):
        splits.folds(patients(), RULE, 300, None, None)
    with pytest.raises(DataError, match=r"all patients are of one group; remove splits\.group"):
        splits.split(patients(groups=1), RULE)


def test_small_strata_do_not_stop_a_split() -> None:
    obs = patients(50)
    obs.iloc[0, 2] = "rare"
    dev, test = splits.split(obs, RULE)
    assert len(dev) + len(test) == 50
    assert len(splits.folds(obs, RULE, None, None, None)) == 4


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7])
def test_any_share_can_be_held_out(share: float) -> None:
    rule = RULE.model_copy(update={"test": share})
    assert len(splits.split(patients(), rule)[1]) == pytest.approx(200 * share, abs=1)
    assert len(splits.split(patients(groups=40), rule)[1]) == pytest.approx(200 * share, abs=12)
