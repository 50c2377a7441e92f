"""What each modality says of the hazard by itself, for patients without the linear path's inputs.

A correction is what a modality adds to the clinical score, within a stratum: little, and often not
worth keeping. Without that score all counts that the modality has to say, of age and stratum too.
So each gets a score of its own, fitted on all who have it, and the scores of a patient's modalities
are joined by how far they say the same.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from omnisurv.heads.corrections import COMPONENTS, Components, enough
from omnisurv.heads.linear import Discrete, fit_linear, log_likelihood
from omnisurv.shapes import Bool, Float, Int, Tensor

PENALTIES = (5.0, 15.0, 50.0, 150.0, 500.0)
"""Ridge penalties a score is tried with."""
APART = 20.0
"""Patients' worth of no correlation that those of two scores are shrunk by."""
SHARE = 2 / 3
"""Weight of the scores; the rest is the linear path's, on the table that the decoder completes. It
knows what no linear score does, but pictures of its own training too well."""


class Marginals(nn.Module):
    """Shift of the baseline by the joined scores; with no modality, to the mean patient.

    A score is a ridge regression's: E[score of everything | modality m] is the score of m, so its
    covariance with whatever is to be predicted is its own variance. The best linear combination of
    the visible ones is then ``Σ⁻¹ diag(Σ)``: one alone counts in full, unrelated ones are added
    up, and those that say the same are averaged.

    Args:
        features: flattened width of each modality.
    """

    def __init__(self, features: Mapping[str, int]) -> None:
        super().__init__()
        self.components = nn.ModuleDict({n: Components(f, 1) for n, f in features.items()})
        self.level = nn.Buffer(torch.zeros(()))
        self.weights = nn.Buffer(torch.zeros(len(features), COMPONENTS))
        self.covariance = nn.Buffer(torch.zeros(len(features), len(features)))

    def forward(self, values: Mapping[str, Float[Tensor, "b _"]]) -> Float[Tensor, " b"]:
        """Return what to add to the baseline's logits; NaN among the values is hidden."""
        scores = self.scores(values)
        variance = self.covariance.diagonal()
        known = scores.isfinite() & (variance > 0)
        both = known[:, :, None] & known[:, None, :]
        # The rows of what is hidden are those of the identity.
        system = self.covariance * both + torch.diag_embed((~known).to(variance.dtype))
        # No score is turned round or blown up to make good for another.
        share = torch.linalg.solve(system, variance * known).clamp(0.0, 1.0)
        return self.level + (share * scores.where(known, 0.0)).sum(1)

    def scores(self, values: Mapping[str, Float[Tensor, "b _"]]) -> Float[Tensor, "b m"]:
        """Return the score of each modality; NaN where it is hidden whole."""
        scores = []
        for name, weight in zip(self.components, self.weights, strict=True):
            score = self.components[name](values[name], _pooled(values[name])) @ weight
            scores.append(score.masked_fill(values[name].isnan().all(1), torch.nan))
        return torch.stack(scores, dim=1)


def fit_marginals(
    marginals: Marginals,
    values: Mapping[str, Float[Tensor, "b _"]],
    target: Discrete,
    baseline: Float[Tensor, " t"],
    inner: Sequence[Bool[Tensor, " b"]],
) -> dict[str, float]:
    """Fit every score with the penalty that gains most on inner folds; without gain it is zero.

    Args:
        marginals: the module to fit, in place.
        values: of each modality of the training patients, NaN hidden.
        target: their endpoint.
        baseline: logits of the hazard that all is a shift of.
        inner: who is held out (True) in each inner fold.

    Returns:
        The held-out gain in log-likelihood of each modality that tells of the hazard, over the
        same curve for everybody.
    """
    marginals.weights.zero_()
    marginals.level.copy_(_level(target, baseline))
    offset = baseline + marginals.level
    offsets = [baseline + _level(target.rows((~out).nonzero()[:, 0]), baseline) for out in inner]
    gains: dict[str, float] = {}
    for row, (name, components) in enumerate(marginals.components.items()):
        has = values[name].isfinite().any(1)
        if not enough(values[name], target.event):
            continue
        trials = [
            (has & ~out, has & out, start)
            for out, start in zip(inner, offsets, strict=True)
            if bool((has & out).any()) and bool((has & ~out).any())
        ]
        gain, penalty = _judge(values[name], target, trials)
        if gain > 0:
            gains[name] = gain
            components.fit(values[name], _pooled(values[name]))  # type: ignore[operator]
            x = components(values[name][has], _pooled(values[name][has]))
            outcome = target.rows(has.nonzero()[:, 0])
            marginals.weights[row] = _weigh(x, outcome, offset, penalty).float()
    marginals.covariance.copy_(_covariance(marginals.scores(values)))
    return gains


def _judge(
    values: Float[Tensor, "b f"],
    target: Discrete,
    trials: Sequence[tuple[Bool[Tensor, " b"], Bool[Tensor, " b"], Float[Tensor, " t"]]],
) -> tuple[float, float]:
    """Return the gain on held-out patients with the best penalty, and that penalty."""
    gains = dict.fromkeys(PENALTIES, 0.0)
    for train, test, start in trials:
        components = Components(values.shape[1], 1).fit(values[train], _pooled(values[train]))
        x, z = (components(values[rows], _pooled(values[rows])) for rows in (train, test))
        seen, unseen = (target.rows(rows.nonzero()[:, 0]) for rows in (train, test))
        offset = start.double().expand(len(z), -1)
        before = log_likelihood(offset, unseen)
        for penalty in PENALTIES:
            shift = z.double() @ _weigh(x, seen, start, penalty)
            gains[penalty] += float(log_likelihood(offset + shift[:, None], unseen) - before)
    best = max(gains, key=lambda penalty: gains[penalty])
    return gains[best], best


def _weigh(
    x: Float[Tensor, "b c"], target: Discrete, offset: Float[Tensor, " t"], penalty: float
) -> Float[Tensor, " c"]:
    """Return the ridge weights of some components on top of the same logits for everybody."""
    start = offset.double().expand(len(x), -1)
    return fit_linear(x, target, torch.full((x.shape[1],), penalty), offset=start)[1]


def _level(target: Discrete, baseline: Float[Tensor, " t"]) -> Float[Tensor, ""]:
    """Return the shift of the baseline that fits patients of whom nothing is known."""
    return _weigh(torch.ones(len(target.event), 1), target, baseline, 0.0)[0]


def _covariance(scores: Float[Tensor, "b m"]) -> Float[Tensor, "m m"]:
    """Return the covariance over those who have both, its correlations shrunk by ``APART``."""
    has = scores.isfinite().to(scores.dtype)
    known = torch.nan_to_num(scores)
    both = has.T @ has
    covariance = known.T @ known / both.clamp_min(1.0)
    return torch.where(
        torch.eye(len(both), dtype=torch.bool), covariance, covariance * both / (both + APART)
    )


def _pooled(values: Float[Tensor, "b f"]) -> Int[Tensor, " b"]:
    """Return one stratum for everybody."""
    return torch.zeros(len(values), dtype=torch.long, device=values.device)
