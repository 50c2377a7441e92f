"""What each modality adds to a prediction: Shapley values of risks, permutation of patients."""

from collections.abc import Sequence
from itertools import combinations
from math import factorial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from omnisurv.core import Batch
from omnisurv.errors import DataError
from omnisurv.explanation.risk import require_survival, risk_by_chunks, risk_of, strata
from omnisurv.metrics import average_scores, difference, patient_draws
from omnisurv.metrics.concordance import harrell_score
from omnisurv.shapes import Tensor

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort
    from omnisurv.tasks.survival import SurvivalModel

EXACT = 8
"""Modalities of a patient up to which every subset is asked for; beyond, orders are drawn."""
ORDERS = 32
"""Orders drawn, every second one the reverse of the one before."""
REPEATS, DRAWS = 10, 500
"""Permutations of a modality, and bootstrap draws of their interval."""


class Step(NamedTuple):
    """One modality (its number) joins a subset (bits), with a weight."""

    modality: int
    subset: int
    weight: float


def modality_value(
    model: "FittedModel",
    cohort: "Cohort",
    method: Literal["shapley", "permutation"] = "shapley",
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Return what each modality adds to the predicted risk, or to its concordance.

    ``shapley``: rows of ``patient``, ``modality``, ``value`` for what each patient has; a value is
    the mean change of the risk (log cumulative hazard) when the modality joins a subset of the
    patient's others, hidden ones being masked (Shapley 1953). They sum to the risk from all there
    is minus the risk from nothing. Exact up to eight modalities; beyond, over 32 drawn orders.

    ``permutation``: rows of ``modality``, ``n`` (patients scored), ``having`` (patients whose
    measurements changed hands), ``value`` (drop of Harrell's C, the mean of ten permutations),
    ``ci_low``, ``ci_high`` (95 %, patients resampled in pairs) and ``p``.

    Args:
        model: a survival model.
        cohort: patients; those without a usable endpoint are left out of ``permutation``.
        method: see above.
        seed: of orders and permutations.

    Raises:
        InputError: no survival model.
        DataError: no patient, or for ``permutation`` nobody with an event.
    """
    survival = require_survival(model)
    if method == "permutation":
        return _permutation(survival, cohort, seed)
    if not len(cohort):
        raise DataError("the cohort has no patient to explain; check how it was selected")
    return _shapley(survival, cohort, seed)


def _shapley(model: "SurvivalModel", cohort: "Cohort", seed: int) -> pd.DataFrame:
    batch = model.batch(cohort)
    names = list(batch.layout.lengths)
    has = _having(batch)
    bits = has @ (1 << np.arange(len(names)))
    orders = _orders(len(names), np.random.default_rng(seed))
    steps = {int(pattern): _steps(int(pattern), orders) for pattern in np.unique(bits)}
    risk = _risks_by_subset(model, batch, strata(model, cohort), bits, steps)
    values = np.zeros(has.shape)
    for pattern, own in steps.items():
        who = np.flatnonzero(bits == pattern)
        for joined, subset, weight in own:
            gain = risk[subset | 1 << joined][who] - risk[subset][who]
            values[who, joined] += weight * gain
    patient, modality = np.nonzero(has)
    return pd.DataFrame(
        {
            "patient": cohort.patients.to_numpy()[patient],
            "modality": np.array(names, dtype=object)[modality],
            "value": values[patient, modality],
        }
    )


def _having(batch: Batch) -> NDArray[np.bool_]:
    """Return who has a token of which modality, (n, modalities)."""
    parts = [batch.observed[:, where].any(1) for where in batch.layout.slices.values()]
    return torch.stack(parts, dim=1).numpy()


def _orders(count: int, generator: np.random.Generator) -> list[NDArray[Any]]:
    drawn = [generator.permutation(count) for _ in range(ORDERS // 2)]
    return [order for first in drawn for order in (first, first[::-1])]


def _steps(pattern: int, orders: Sequence[NDArray[Any]]) -> list[Step]:
    """Return the weighted steps whose gains sum to the Shapley values of a pattern."""
    there = [number for number in range(pattern.bit_length()) if pattern >> number & 1]
    if len(there) > EXACT:
        chains = [
            [int(number) for number in order if pattern >> int(number) & 1] for order in orders
        ]
        return [
            Step(own, sum(1 << number for number in chain[:at]), 1 / len(chains))
            for chain in chains
            for at, own in enumerate(chain)
        ]
    steps = []
    for modality in there:
        others = [number for number in there if number != modality]
        for size in range(len(there)):
            ways = factorial(size) * factorial(len(there) - size - 1) / factorial(len(there))
            for subset in combinations(others, size):
                steps.append(Step(modality, sum(1 << number for number in subset), ways))
    return steps


@torch.no_grad()
def _risks_by_subset(
    model: "SurvivalModel",
    batch: Batch,
    stratum: Tensor,
    bits: NDArray[Any],
    steps: dict[int, list[Step]],
) -> dict[int, NDArray[Any]]:
    """Return the risks (n,) from each subset asked for; NaN of patients who did not ask.

    Pictures are read once, and each patient's subsets go through the networks side by side, those
    of as many modalities together.
    """
    asked = {
        pattern: {s.subset for s in own} | {s.subset | 1 << s.modality for s in own} or {0}
        for pattern, own in steps.items()
    }
    found = {subset: np.full(len(bits), np.nan) for subset in set().union(*asked.values())}
    bit = 1 << torch.arange(len(batch.layout.lengths))
    for rows in batch.chunks():
        own = batch.rows(rows).load()
        pairs = [(at, s) for at, row in enumerate(rows.tolist()) for s in asked[int(bits[row])]]
        pairs.sort(key=lambda pair: pair[1].bit_count())
        for part in torch.tensor(pairs).split(next(batch.chunks()).numel()):
            place, subset = part.T
            shown = (subset[:, None] & bit) > 0
            visible = own.observed[place] & shown[:, batch.layout.modality_of_slot]
            seen = own.rows(place).load(visible)
            risk = risk_of(model, seen, visible, stratum[rows[place]])
            told = (subset.tolist(), rows[place].tolist(), risk.tolist())
            for number, row, value in zip(*told, strict=True):
                found[number][row] = value
    return found


def _permutation(model: "SurvivalModel", cohort: "Cohort", seed: int) -> pd.DataFrame:
    known = cohort.with_endpoint()
    time, event = known.obs["time"].to_numpy(float), known.obs["event"].to_numpy(float)
    if not event.any():
        raise DataError("permutation needs patients with an event; none of these has one")
    batch, stratum = model.batch(known), strata(model, known)
    generator = np.random.default_rng(seed)
    before = risk_by_chunks(model, batch, batch.observed, stratum)
    whole = harrell_score(time, event, before)
    weights = patient_draws(len(known), DRAWS, seed)
    everyone = np.arange(len(known))
    rows = []
    for name, having in zip(batch.layout.lengths, _having(batch).T, strict=True):
        parts = []
        for _ in range(REPEATS if having.sum() > 1 else 0):
            mixed = _mixed(batch, name, np.flatnonzero(having), generator)
            dealt, risk = mixed.rows(torch.from_numpy(having)), before.copy()
            risk[having] = risk_by_chunks(model, dealt, dealt.observed, stratum[having])
            parts.append((harrell_score(time, event, risk), everyone))
        mean = average_scores(parts, len(known), int(event.sum())) if parts else whole
        d = difference(whole, mean, weights)
        rows.append((name, d.n, int(having.sum()), d.value, d.ci_low, d.ci_high, d.p))
    columns = ["modality", "n", "having", "value", "ci_low", "ci_high", "p"]
    return pd.DataFrame(rows, columns=columns)


def _mixed(batch: Batch, name: str, having: NDArray[Any], generator: np.random.Generator) -> Batch:
    """Return the batch with one modality dealt out anew among those who have it."""
    index = np.arange(len(batch))
    index[having] = generator.permutation(having)
    dealt = torch.from_numpy(index)
    patches, stored = dict(batch.patches), dict(batch.stored)
    if name in stored:
        stored[name] = stored[name][dealt]
    else:
        patches[name] = patches[name][dealt]
    return Batch(patches, batch.layout, stored)
