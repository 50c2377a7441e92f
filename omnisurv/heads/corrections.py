"""Corrections of a Cox-like score by single modalities, within strata, where they have earned it.

On a few hundred patients omics help in one cancer and hurt in the next. So every modality gets
a small linear correction *within each stratum* (such as LGG and GBM), and only those that gain
likelihood on hospitals held out are kept; the others are exactly zero, as is the correction of
a patient who lacks the modality.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from omnisurv.head import Evidence
from omnisurv.heads.linear import Discrete, fit_linear, log_likelihood
from omnisurv.shapes import Bool, Float, Int, Tensor

COMPONENTS = 5
"""Principal components of a modality that a correction may use."""
PENALTIES = (50.0, 150.0, 500.0, 2000.0)
"""Ridge penalties a correction is tried with."""
MULTIPLIERS = (1.0, 2.0, 4.0, 8.0)
"""Further shrinkage when several corrections enter together."""
LEAST_GAIN = 2.0
"""Gain in held-out log-likelihood below which a correction is left out."""
ERRORS = 1.64
"""Standard errors (over inner folds) the joint gain must exceed zero by."""
LEAST_PATIENTS, LEAST_EVENTS = 40, 15
"""A stratum with fewer patients or events who have the modality gets no correction."""

Key = tuple[str, int]


class Components(nn.Module):
    """Leading components of one modality, centred within strata; absent is exactly zero.

    The patches come in standard units; a stratum's mean is shrunk towards the pooled one by
    five patients' worth.
    """

    def __init__(self, features: int, strata: int, count: int = COMPONENTS) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(strata, features))
        self.axes = nn.Buffer(torch.zeros(features, count))

    @torch.no_grad()
    def fit(self, values: Float[Tensor, "b f"], stratum: Int[Tensor, " b"]) -> "Components":
        """Fit means and axes on training patients who have the modality; axes are whitened."""
        has = values.isfinite().any(1)
        if int(has.sum()) < 2:
            return self  # no axis has a spread: nothing is ever corrected
        known = torch.nan_to_num(values[has]).clamp(-5.0, 5.0)
        mine = stratum[has]
        for level in range(len(self.mean)):
            inside = mine == level
            count = int(inside.sum())
            if count:
                self.mean[level] = known[inside].mean(0) * count / (count + 5.0)
        centred = torch.where(mine[:, None] >= 0, known - self.mean[mine], known)
        axes = _leading(centred.double(), self.axes.shape[1])
        # The sign of a component is arbitrary; fixing it makes the fit reproducible.
        axes = axes * torch.sign(axes.gather(0, axes.abs().argmax(0, keepdim=True)))
        spread = (centred.double() @ axes).std(0).clamp_min(1e-9)
        self.axes[:, : axes.shape[1]] = (axes / spread).float()
        return self

    def forward(
        self, values: Float[Tensor, "b f"], stratum: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c"]:
        """Return the components, at most four standard units; zero where all is hidden."""
        hidden = values.isnan()
        centred = torch.nan_to_num(values).clamp(-5.0, 5.0) - self.mean[stratum.clamp_min(0)]
        scores = (centred.masked_fill(hidden, 0.0) @ self.axes).clamp(-4.0, 4.0)
        usable = (stratum >= 0) & ~hidden.all(1)
        return scores * usable[:, None]


def _leading(centred: Float[Tensor, "b f"], count: int) -> Float[Tensor, "f c"]:
    """Return the leading right singular vectors."""
    if centred.shape[0] >= centred.shape[1]:
        return torch.linalg.svd(centred, full_matrices=False)[2][:count].T
    # Pictures have thousands of features: products of patients are ten times as fast.
    left = torch.linalg.eigh(centred @ centred.T)[1].flip(1)[:, :count]
    axes = centred.T @ left
    return axes / axes.norm(dim=0).clamp_min(1e-12)


class Corrections(nn.Module):
    """The sum of the corrections that were kept.

    Args:
        features: flattened width of each modality that may correct.
        strata: number of strata.
    """

    def __init__(self, features: Mapping[str, int], strata: int) -> None:
        super().__init__()
        self.strata = strata
        self.components = nn.ModuleDict({n: Components(f, strata) for n, f in features.items()})
        zeros = torch.zeros(strata, COMPONENTS)
        self.weights = nn.ParameterDict(
            {name: nn.Parameter(zeros.clone(), requires_grad=False) for name in features}
        )

    def forward(self, evidence: Evidence) -> Float[Tensor, " b"]:
        """Return each patient's correction of the score."""
        stratum = evidence.stratum
        total = torch.zeros(len(stratum), device=stratum.device)
        for name, components in self.components.items():
            weight = self.weights[name][stratum.clamp_min(0)]
            total = total + (components(evidence.values[name], stratum) * weight).sum(1)
        return total

    def kept(self) -> list[Key]:
        """Return which (modality, stratum) correct anything."""
        return [
            (name, level)
            for name, weight in self.weights.items()
            for level in range(len(weight))
            if bool((weight[level] != 0).any())
        ]


class Training(NamedTuple):
    """What corrections are fitted on; rows are patients."""

    score: Float[Tensor, "b f"]  # inputs of the linear path
    values: Mapping[str, Float[Tensor, "b f"]]  # patches by modality, NaN hidden
    stratum: Int[Tensor, " b"]
    target: Discrete

    def rows(self, index: Tensor) -> "Training":
        """Return some patients."""
        values = {name: value[index] for name, value in self.values.items()}
        return Training(self.score[index], values, self.stratum[index], self.target.rows(index))


@dataclass(frozen=True)
class _Trial:
    """One inner fold of one stratum: components of each modality, and offsets."""

    train: dict[str, Tensor]
    test: dict[str, Tensor]
    train_offset: Tensor
    test_offset: Tensor
    train_target: Discrete
    test_target: Discrete

    def gain(self, names: Sequence[str], penalty: Tensor) -> float:
        """Return the gain in log-likelihood on the held-out part."""
        x = torch.cat([self.train[name] for name in names], 1)
        _, weight = fit_linear(x, self.train_target, penalty, offset=self.train_offset)
        shift = torch.cat([self.test[name] for name in names], 1) @ weight
        after = log_likelihood(self.test_offset + shift[:, None], self.test_target)
        return float(after - log_likelihood(self.test_offset, self.test_target))


def fit_corrections(
    corrections: Corrections,
    data: Training,
    offset: Float[Tensor, "b t"],
    inner: Sequence[Bool[Tensor, " b"]],
    ridge: float,
) -> dict[Key, float]:
    """Choose corrections on inner folds, then fit the chosen ones on all patients.

    In each inner fold the linear path is fitted again and every correction is judged by the
    log-likelihood it adds on the held-out part. Within a stratum, corrections join in the order
    of their gain; the set and its shrinkage that gain most together are kept, if they gain by
    more than chance.

    Args:
        corrections: the module to fit, in place.
        data: training patients.
        offset: logits of the linear path fitted on all of them.
        inner: who is held out (True) in each inner fold; whole hospitals where known.
        ridge: penalty of the linear path.

    Returns:
        The held-out gain in log-likelihood of each correction that was kept.
    """
    for name, components in corrections.components.items():
        components.fit(data.values[name], data.stratum)  # type: ignore[operator]
    trials = _trials(corrections, data, inner, ridge, offset.shape[1])
    kept: dict[Key, float] = {}
    for level in range(corrections.strata):
        names, penalties, gains = _choose(trials.get(level, []))
        if not names:
            continue
        inside = data.stratum == level
        mine = data.rows(inside.nonzero()[:, 0])
        x = torch.cat(
            [corrections.components[n](mine.values[n], mine.stratum).double() for n in names], 1
        )
        _, weight = fit_linear(x, mine.target, _penalty(penalties), offset=offset[inside].double())
        for name, part in zip(names, weight.split(COMPONENTS), strict=True):
            corrections.weights[name].data[level] = part.float()
            kept[name, level] = gains[name]
    return kept


def _trials(
    corrections: Corrections,
    data: Training,
    inner: Sequence[Tensor],
    ridge: float,
    intervals: int,
) -> dict[int, list[_Trial]]:
    trials: dict[int, list[_Trial]] = {}
    for held_out in inner:
        train = data.rows((~held_out).nonzero()[:, 0])
        test = data.rows(held_out.nonzero()[:, 0])
        center = train.score.mean(0)
        penalty = torch.full((train.score.shape[1],), ridge)
        baseline, weight = fit_linear(
            (train.score - center).double(), train.target, penalty, intervals=intervals
        )
        offsets = [
            baseline + ((part.score - center).double() @ weight)[:, None] for part in (train, test)
        ]
        fitted = {
            name: Components(len(c.axes), corrections.strata).fit(train.values[name], train.stratum)  # type: ignore[arg-type]
            for name, c in corrections.components.items()
        }
        for level in range(corrections.strata):
            trial = _trial(fitted, train, test, offsets, level)
            if trial is not None:
                trials.setdefault(level, []).append(trial)
    return trials


def _trial(
    fitted: Mapping[str, Components],
    train: Training,
    test: Training,
    offsets: Sequence[Tensor],
    level: int,
) -> _Trial | None:
    a, b = train.stratum == level, test.stratum == level
    if not (bool(a.any()) and bool(b.any())):
        return None
    usable = {
        name: component
        for name, component in fitted.items()
        if enough(train.values[name][a], train.target.event[a])
    }
    return _Trial(
        {n: c(train.values[n], train.stratum)[a].double() for n, c in usable.items()},
        {n: c(test.values[n], test.stratum)[b].double() for n, c in usable.items()},
        offsets[0][a],
        offsets[1][b],
        train.target.rows(a.nonzero()[:, 0]),
        test.target.rows(b.nonzero()[:, 0]),
    )


def enough(values: Float[Tensor, "b f"], event: Float[Tensor, " b"]) -> bool:
    """Return whether enough patients have the modality, and enough of them the event."""
    has = values.isfinite().any(1)
    return int(has.sum()) >= LEAST_PATIENTS and float(event[has].sum()) >= LEAST_EVENTS


def _choose(trials: Sequence[_Trial]) -> tuple[list[str], list[float], dict[str, float]]:
    """Return the modalities kept in a stratum, their penalties and their single gains."""
    if not trials:
        return [], [], {}
    names = [n for n in trials[0].train if all(n in trial.train for trial in trials)]
    single: dict[str, tuple[float, float]] = {}
    for name in names:
        gains = {p: sum(t.gain([name], _penalty([p])) for t in trials) for p in PENALTIES}
        best = max(gains, key=lambda p: gains[p])
        if gains[best] > LEAST_GAIN:
            single[name] = (gains[best], best)
    ranked = sorted(single, key=lambda n: -single[n][0])
    chosen: tuple[float, list[str], list[float]] = (LEAST_GAIN, [], [])
    for count in range(1, len(ranked) + 1):
        for multiplier in MULTIPLIERS:
            together = ranked[:count]
            penalties = [multiplier * single[n][1] for n in together]
            gains_each = np.array([t.gain(together, _penalty(penalties)) for t in trials])
            total = float(gains_each.sum())
            sure = total > ERRORS * gains_each.std() * len(trials) ** 0.5
            if total > chosen[0] and sure:
                chosen = (total, together, penalties)
    return chosen[1], chosen[2], {n: single[n][0] for n in chosen[1]}


def _penalty(penalties: Sequence[float]) -> Tensor:
    return torch.repeat_interleave(torch.tensor(penalties), COMPONENTS)
