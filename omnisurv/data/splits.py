"""Dividing patients: seeded, stratified, groups such as hospitals kept whole."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.data.spec import Splits
from omnisurv.errors import DataError

DEALS = 20
"""Random orders in which the groups are dealt to folds; the best balanced is taken."""
DRAWS = 200
"""Random divisions of the groups among which the best balanced is taken."""


def split(obs: pd.DataFrame, splits: Splits) -> tuple[pd.Index, pd.Index]:
    """Return the patients of the development and of the test part.

    A split table is followed to the letter. Else patients without a usable endpoint, who cannot
    be scored, go to development, or with their group.

    Raises:
        DataError: a part without events, or too few groups.
    """
    if "split" in obs:
        dev, test = (obs.index[obs["split"] == part] for part in ("train", "test"))
    else:
        in_test = pd.Series(False, index=obs.index)
        scored = obs[_scored(obs)]
        key = _strata(scored, splits.stratify)
        if "group" in obs:
            groups = _groups(obs)
            chosen = _draw_groups(groups[scored.index], key, splits.test, splits.seed)
            in_test = groups.isin(chosen)
        else:
            in_test[_draw_patients(key, splits.test, splits.seed)] = True
        dev, test = obs.index[~in_test], obs.index[in_test]
    for part, name in ((dev, "development"), (test, "test")):
        _require_events(obs.loc[part], f"the {name} part", splits.seed)
    return dev, test


def folds(
    obs: pd.DataFrame,
    splits: Splits,
    n: int | None,
    repeats: int | None,
    seed: int | None,
    label: str | None = None,
) -> list[tuple[pd.Index, pd.Index]]:
    """Return (train, test) patients of each fold of each repeat; None takes the spec's number.

    With a label, its classes are what the folds hold alike, instead of the spec's strata, and
    patients without one are only ever trained on.

    Raises:
        DataError: a fold without events (of one class alone), or too few patients or groups.
    """
    if n is None and "fold" in obs and obs["fold"].notna().any():
        number = obs["fold"]
        return _parts(obs, number, sorted(number.dropna().unique()), splits.seed, label)
    n, first = n or splits.folds, splits.seed if seed is None else seed
    parts = []
    for repeat in range(repeats or splits.repeats):
        number = _assign(obs, n, splits.stratify, first + repeat, label)
        parts += _parts(obs, number, range(n), splits.seed, label)
    return parts


def _parts(
    obs: pd.DataFrame,
    number: "pd.Series[Any]",
    folds: Sequence[Any],
    seed: int,
    label: str | None,
) -> list[tuple[pd.Index, pd.Index]]:
    parts = []
    for position, fold in enumerate(folds, start=1):
        inside = (number == fold).to_numpy()
        what = f"fold {position} of {len(folds)}"
        for part, name in ((obs[inside], what), (obs[~inside], f"the training part of {what}")):
            if label is None:
                _require_events(part, name, seed)
            else:
                _require_classes(part, name, label, seed)
        parts.append((obs.index[~inside], obs.index[inside]))
    return parts


def _assign(
    obs: pd.DataFrame, n: int, stratify: Sequence[str], seed: int, label: str | None
) -> "pd.Series[Any]":
    """Return each patient's fold; −1 for those who are only ever trained on."""
    from sklearn.model_selection import StratifiedKFold

    number = pd.Series(-1, index=obs.index)
    scored = obs[_scored(obs) if label is None else obs[label].notna()]
    key = _strata(scored, stratify if label is None else (label,))
    grouped = "group" in obs
    groups = _groups(obs)
    units, noun = (groups[scored.index].nunique(), "groups") if grouped else (len(key), "patients")
    if units < n:
        raise DataError(f"{n} folds need as many {noun}, there are {units}; use fewer folds")
    if grouped:
        fold_of = _assign_groups(groups[scored.index], key, n, seed)
        # A group without anybody to score is only ever trained on.
        return groups.map(fold_of).fillna(-1).astype(int)
    splitter = StratifiedKFold(n, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Classes smaller than the number of folds cannot be in each of them.
        warnings.filterwarnings("ignore", message="The least populated class")
        key = _merge_rare(key, n)
        for fold, (_, test) in enumerate(splitter.split(key, key)):
            number[scored.index[test]] = fold
    return number


def _assign_groups(
    groups: "pd.Series[str]", key: "pd.Series[str]", n: int, seed: int
) -> "pd.Series[Any]":
    """Return each group's fold: dealt in random order, each to where it balances best.

    scikit-learn's StratifiedGroupKFold places groups in the order of their spread and so gives
    nearly the same folds whatever the seed; repeats would then repeat nothing.
    """
    table = pd.crosstab(groups, key)
    counts = table.to_numpy(float)
    generator = np.random.default_rng(seed)
    even = counts.sum(0) / n
    best, best_score = np.zeros(len(counts), dtype=int), np.inf
    for _ in range(DEALS):
        fold = np.zeros(len(counts), dtype=int)
        sizes = np.zeros((n, counts.shape[1]))
        for group in generator.permutation(len(counts)):
            # The fold whose squared excess grows least.
            growth = (((sizes + counts[group]) ** 2 - sizes**2) / even).sum(1)
            fold[group] = np.argmin(growth)
            sizes[fold[group]] += counts[group]
        score = float(((sizes - even) ** 2 / even).sum())
        if score < best_score:
            best, best_score = fold, score
    return pd.Series(best, index=table.index)


def _merge_rare(key: "pd.Series[str]", n: int) -> "pd.Series[str]":
    """Return strata of which at least one has ``n`` patients, which scikit-learn asks for."""
    return key if key.value_counts().max() >= n else pd.Series("all", index=key.index)


def _draw_patients(key: "pd.Series[str]", share: float, seed: int) -> pd.Index:
    from sklearn.model_selection import train_test_split

    rare = key.map(key.value_counts()) < 2
    strata = key.where(~rare, key[~rare].mode().get(0, "all"))
    wanted = max(round(share * len(key)), 1)
    possible = min(wanted, len(key) - wanted) >= strata.nunique()
    _, test = train_test_split(
        key.index.to_numpy(),
        test_size=wanted,
        random_state=seed,
        stratify=strata if possible else None,
    )
    chosen: pd.Index = pd.Index(test)
    return chosen


def _draw_groups(
    groups: "pd.Series[str]", key: "pd.Series[str]", share: float, seed: int
) -> NDArray[Any]:
    """Return the groups of the test part: the best balanced of many random divisions."""
    counts = pd.crosstab(groups, key)
    if len(counts) < 2:
        raise DataError("all patients are of one group; remove splits.group to split within it")
    generator = np.random.default_rng(seed)
    total = counts.to_numpy().sum(0)
    best, best_score = np.array([], dtype=object), np.inf
    for _ in range(DRAWS):
        order = generator.permutation(len(counts))
        sizes = counts.to_numpy()[order].sum(1).cumsum() / total.sum()
        taken = 1 + int(np.argmin(np.abs(sizes[:-1] - share)))
        inside = counts.to_numpy()[order[:taken]].sum(0)
        score = float(np.abs(inside - share * total).sum() / total.sum())
        if score < best_score:
            best, best_score = counts.index.to_numpy()[order[:taken]], score
    return best


def _scored(obs: pd.DataFrame) -> "pd.Series[bool]":
    """Return who can be scored; everybody where nobody has an endpoint."""
    usable = (obs["time"] > 0) & obs["event"].notna()
    return usable if usable.any() else pd.Series(True, index=obs.index)


def _groups(obs: pd.DataFrame) -> "pd.Series[str]":
    """Return each patient's group; who has none is one of their own."""
    own = pd.Series(obs.index.astype(str), index=obs.index)
    return obs["group"].astype(object).where(obs["group"].notna(), own) if "group" in obs else own


def _strata(obs: pd.DataFrame, stratify: Sequence[str]) -> "pd.Series[str]":
    key = pd.Series("", index=obs.index)
    for name in stratify:
        if name in obs:
            key = key + "|" + obs[name].astype(str)
    return key


def _require_events(part: pd.DataFrame, what: str, seed: int) -> None:
    known = part[(part["time"] > 0) & part["event"].notna()]
    nobody = part["event"].notna().sum() == 0
    if len(part) and nobody and part["time"].isna().all():
        return  # a cohort without endpoint, for imputation alone
    if not len(part) or not (known["event"] == 1).any():
        raise DataError(
            f"{what} has no event among its {len(known)} patients; use fewer folds, larger "
            f"groups or another splits.seed than {seed}"
        )


def _require_classes(part: pd.DataFrame, what: str, label: str, seed: int) -> None:
    known = part[label].dropna()
    if known.nunique() < 2:
        raise DataError(
            f"{what} has {known.nunique()} class of '{label}' among its {len(known)} patients, two "
            f"are needed; use fewer folds, larger groups or another splits.seed than {seed}"
        )
