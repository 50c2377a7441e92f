"""Principal components of whole modalities, and a Cox model on them."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from omnisurv.baselines.cox import ridge_cox, try_cox
from omnisurv.baselines.fitted import SurvivalBaseline, inner_folds, marginal
from omnisurv.baselines.preparation import CLINICAL, Floats, Scaling, block
from omnisurv.metrics.curves import Bools, endpoint_arrays

PENALTIES: Final = (10.0, 30.0, 100.0, 300.0, 1e3, 1e4)
"""Ridge penalties tried on standardised components; the last all but leaves them out."""
_COMPONENTS = 10


@dataclass(frozen=True)
class Components:
    """Principal components of a modality, fitted on the training patients who have it."""

    scaling: Scaling
    pca: Any

    @classmethod
    def fit(cls, table: pd.DataFrame, most: int, seed: int) -> "Components | None":
        """Fit ``most`` components at most; None if hardly anybody has it or nothing varies."""
        from sklearn.decomposition import PCA

        have = table.dropna(how="all")
        if len(have) < 2:
            return None
        scaling = Scaling.fit(have, fill_mean=True)
        Z = scaling.apply(have)
        if not Z.shape[1]:
            return None
        count = max(1, min(most, len(Z) - 1, Z.shape[1]))
        solver = "covariance_eigh" if Z.shape[1] < 500 else "randomized"
        return cls(scaling, PCA(count, random_state=seed, svd_solver=solver).fit(Z))

    def scores(self, table: pd.DataFrame) -> Floats:
        """Return (n, components); 0, the training mean, for whoever lacks the modality."""
        has = table.notna().any(axis=1).to_numpy()
        scores = np.zeros((len(table), self.pca.n_components_))
        if has.any():
            scores[has] = self.pca.transform(self.scaling.apply(table[has]))
        return scores

    def standardised(self, table: pd.DataFrame) -> Floats:
        """Return the scores with standard deviation 1 in those who have the modality."""
        spread = np.sqrt(self.pca.explained_variance_)
        return self.scores(table) / np.where(spread > 1e-9 * spread.max(), spread, np.inf)


def cox_components(
    X: pd.DataFrame, time: npt.ArrayLike, event: npt.ArrayLike, seed: int = 0
) -> SurvivalBaseline:
    """Ridge Cox on the clinical table and ten principal components of each other modality.

    Clinical columns are filled and penalised as for ``cox``. Components are standardised and 0
    where a patient lacks the modality; their penalty is the one of ``PENALTIES`` with the best
    partial likelihood of up to five inner folds (Verweij & van Houwelingen 1993), in which
    everything is fitted again.

    ``X`` has two levels of columns: the block, which is ``clinical`` or another modality, and
    the feature.
    """
    times, events = endpoint_arrays(time, event)
    design = _Blocks.fit(X, seed)
    if not events.any() or not design.width:
        why = "no event" if not events.any() else "no usable column"
        return marginal(times, events, [f"{why} in training: Kaplan–Meier instead"])
    if not design.others:
        notes, best = ["no modality beside the clinical table"], 1.0
    elif (folds := inner_folds(events)) < 2:
        notes, best = ["too few events for components"], PENALTIES[-1]
    else:
        best = _best_penalty(X, times, events, folds, seed)
        notes = [f"penalty {best:g} of components chosen by {folds}-fold inner cross-validation"]
    return ridge_cox(design, X, times, events, design.penalties(best), notes)


@dataclass(frozen=True)
class _Blocks:
    """The clinical table beside the components of every other modality, as fitted."""

    clinical: Scaling
    others: dict[str, Components]

    @classmethod
    def fit(cls, X: pd.DataFrame, seed: int) -> "_Blocks":
        names = [n for n in X.columns.get_level_values(0).unique() if n != CLINICAL]
        fitted = {name: Components.fit(block(X, name), _COMPONENTS, seed) for name in names}
        others = {name: components for name, components in fitted.items() if components is not None}
        return cls(Scaling.fit(block(X, CLINICAL)), others)

    @property
    def width(self) -> int:
        return len(self.penalties(1.0))

    def penalties(self, components: float) -> Floats:
        """Return the penalty of each column: 1 on clinical ones."""
        count = sum(c.pca.n_components_ for c in self.others.values())
        return np.repeat([1.0, components], [len(self.clinical.columns), count])

    def __call__(self, X: pd.DataFrame) -> Floats:
        parts = [c.standardised(block(X, name)) for name, c in self.others.items()]
        return np.hstack([self.clinical.apply(block(X, CLINICAL)), *parts])


def _best_penalty(X: pd.DataFrame, times: Floats, events: Bools, folds: int, seed: int) -> float:
    """Return the penalty under which the patients left out are likeliest, the largest of equals."""
    from sklearn.model_selection import StratifiedKFold

    gained = np.zeros(len(PENALTIES))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for train, _ in splitter.split(times, events):
        design = _Blocks.fit(X.iloc[train], seed)
        Z = design(X)
        for place, penalty in enumerate(PENALTIES):
            model = try_cox(Z[train], times[train], events[train], design.penalties(penalty))
            if model is None:
                gained[place] = -np.inf
                continue
            risk = Z @ model.coef_
            gained[place] += log_partial_likelihood(risk, times, events)
            gained[place] -= log_partial_likelihood(risk[train], times[train], events[train])
    return PENALTIES[len(PENALTIES) - 1 - int(np.argmax(gained[::-1]))]


def log_partial_likelihood(risk: Floats, times: Floats, events: Bools) -> float:
    """Return Cox's log partial likelihood of linear predictors (n,), ties as Breslow's."""
    order = np.argsort(-times, kind="stable")
    later = -times[order]
    at_risk = np.logaddexp.accumulate(risk[order])[np.searchsorted(later, later, "right") - 1]
    return float((risk[order] - at_risk)[events[order]].sum())
