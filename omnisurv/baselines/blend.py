"""A Cox model of everybody blended with one of each class."""

from dataclasses import dataclass

import numpy.typing as npt
import pandas as pd

from omnisurv.baselines.cox import cox
from omnisurv.baselines.fitted import SurvivalBaseline
from omnisurv.baselines.preparation import CLINICAL, STRATUM, Floats, block
from omnisurv.metrics.curves import endpoint_arrays

LEAST_EVENTS = 20
"""Events that a class needs for a fit of its own."""


def cox_blend(
    X: pd.DataFrame, time: npt.ArrayLike, event: npt.ArrayLike, seed: int = 0
) -> SurvivalBaseline:
    """Cox on the clinical table, fitted to everybody and once more within each class.

    A patient's score is ½ the pooled linear predictor + ½ that of the class's own fit, once the
    latter has been given the mean and the standard deviation that the former has in the class:
    classes keep their distance, and inside one neither fit outweighs the other. Curves are those
    of a Cox model on this score. A class with fewer than 20 events keeps the pooled predictor;
    where no class has a fit of its own, or there is only one class, all is the pooled fit.

    ``X`` has two levels of columns: the block ``clinical``, and ``stratum``, one column with the
    name of each patient's class, None where it is not known.
    """
    times, events = endpoint_arrays(time, event)
    clinical, classes = block(X, CLINICAL), _classes(X)
    pooled = cox(clinical, times, events, seed)
    names = sorted(set(classes.dropna()))
    blend, notes = _Blend(pooled, {}), list(pooled.notes)
    for name in names if len(names) > 1 else ():
        who = (classes == name).to_numpy()
        if events[who].sum() < LEAST_EVENTS:
            notes.append(f"{name}: fewer than {LEAST_EVENTS} events, the pooled fit alone")
            continue
        own = cox(clinical[who], times[who], events[who], seed)
        notes += [f"{name}: {note}" for note in own.notes]
        blend.own[name] = _Own.fit(own, pooled, clinical[who])
    if not blend.own:
        notes.append("no class to fit apart: the pooled fit")
        return SurvivalBaseline(
            pooled.times,
            lambda X: pooled.survival(block(X, CLINICAL)),
            lambda X: pooled.risk(block(X, CLINICAL)),
            notes,
        )
    fitted = cox(blend.table(X), times, events, seed)
    return SurvivalBaseline(
        fitted.times,
        lambda X: fitted.survival(blend.table(X)),
        lambda X: fitted.risk(blend.table(X)),
        [*notes, *fitted.notes],
    )


@dataclass(frozen=True)
class _Own:
    """The fit of one class, and the line that brings its predictor to the pooled one's scale."""

    fitted: SurvivalBaseline
    slope: float
    shift: float

    @classmethod
    def fit(cls, own: SurvivalBaseline, pooled: SurvivalBaseline, clinical: pd.DataFrame) -> "_Own":
        mine, theirs = own.risk(clinical), pooled.risk(clinical)
        # a predictor that is the same for all of the class says nothing: it becomes the mean
        slope = theirs.std() / mine.std() if mine.std() > 0 else 0.0
        return cls(own, slope, theirs.mean() - slope * mine.mean())


@dataclass(frozen=True)
class _Blend:
    """The blended score of a patient."""

    pooled: SurvivalBaseline
    own: dict[str, _Own]

    def table(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the score as a table of one column."""
        clinical, classes = block(X, CLINICAL), _classes(X)
        score: Floats = self.pooled.risk(clinical)
        for name, own in self.own.items():
            who = (classes == name).to_numpy()
            if who.any():
                risk = own.shift + own.slope * own.fitted.risk(clinical[who])
                score[who] = 0.5 * score[who] + 0.5 * risk
        return pd.DataFrame({"score": score}, index=X.index)


def _classes(X: pd.DataFrame) -> "pd.Series[str]":
    return block(X, STRATUM).iloc[:, 0]
