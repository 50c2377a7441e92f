"""Logistic hazard: a discrete-time survival head with a Cox-like linear path."""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from omnisurv.head import Evidence, Head
from omnisurv.heads.corrections import Corrections
from omnisurv.heads.fusion import Fusion
from omnisurv.heads.linear import Discrete, fit_linear
from omnisurv.heads.marginals import SHARE, Marginals
from omnisurv.registry import heads
from omnisurv.shapes import Float, Tensor

Array = NDArray[np.float64]
Scheme = Literal["quantiles", "equidistant"]


@dataclass(frozen=True)
class TimeGrid:
    """The discrete times of the hazard, in days, by pycox's conventions.

    ``cuts[0]`` is 0. An event is moved up to the next cut, a censoring down to the last one
    passed, so interval 0 never holds an event; whoever is followed beyond the last cut is
    censored there.
    """

    cuts: Array

    @classmethod
    def fit(
        cls, time: Array, event: NDArray[np.bool_], intervals: int, scheme: Scheme
    ) -> "TimeGrid":
        """Choose the cuts on training patients: quantiles of event times, or equidistant."""
        from pycox.preprocessing.label_transforms import LabTransDiscreteTime

        transform = LabTransDiscreteTime(intervals, scheme=scheme, min_=0.0)
        with warnings.catch_warnings():
            # Tied event times give fewer quantiles, which is right.
            warnings.filterwarnings("ignore", message="cuts are not unique")
            transform.fit(time.astype(float), event.astype(float))
        cuts = np.unique(np.asarray(transform.cuts, dtype=float))
        if cuts[0] > 0:
            cuts = np.concatenate([[0.0], cuts])
        return cls(cuts)

    def transform(
        self, time: Array, event: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the interval of each patient and whether the event falls on the grid."""
        from pycox.preprocessing.label_transforms import LabTransDiscreteTime

        event = event & (time <= self.cuts[-1])
        time = np.minimum(time, self.cuts[-1])
        transform = LabTransDiscreteTime(self.cuts)
        index, happened = transform.transform(time.astype(float), event.astype(float))
        return np.asarray(index, dtype=np.int64), np.asarray(happened).astype(bool)

    def interpolate(self, curves: Array, times: Array) -> Array:
        """Return survival at raw ``times`` (t,), from curves (n, cuts) at the cuts.

        The hazard is constant inside an interval (pycox's ``const_hazard``) and beyond the last
        cut goes on as in the last interval, so no two patients are tied by a flat tail.
        """
        log = np.log(np.clip(curves, 1e-12, 1.0))
        step = np.searchsorted(self.cuts, times, side="right") - 1
        left = np.clip(step, 0, len(self.cuts) - 2)
        width = self.cuts[left + 1] - self.cuts[left]
        share = (times - self.cuts[left]) / width
        return np.exp(log[:, left] + (log[:, left + 1] - log[:, left]) * share)


@heads.register("survival")
class LogisticHazard(Head):
    """logit h(t | x) = baseline(t) + linear path + corrections, or + a free fusion term.

    The linear path is a Cox-like score on the completed clinical table. With ``corrections``,
    single modalities shift that score where they have earned it; of a patient for whom that table
    would be imputed whole, ``marginals`` say what single modalities tell by themselves. With
    ``fusion``, attention over all tokens gives one logit for each interval (impuTMAE §2).

    Args:
        intervals: number of cuts of the time grid.
        linear: number of completed values the linear path reads; 0 for none.
        corrections: shifts by single modalities; None for none.
        marginals: hazard by single modalities where no input of the linear path is known.
        fusion: reads the tokens; None for none.
        dim: width of the fusion's vector.
        dropout: rate before the fusion's last layer.
    """

    def __init__(
        self,
        intervals: int,
        linear: int,
        *,
        corrections: Corrections | None = None,
        marginals: Marginals | None = None,
        fusion: Fusion | None = None,
        dim: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.baseline = nn.Parameter(torch.full((intervals,), -2.0))
        self.linear = nn.Parameter(torch.zeros(linear))
        self.center = nn.Buffer(torch.zeros(linear))
        self.corrections = corrections
        self.marginals = marginals
        self.fusion = fusion
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(dim, intervals) if fusion is not None else None
        self.reads = frozenset(corrections.components) if corrections is not None else frozenset()
        self.imagines = fusion is not None and fusion.adopt is not None
        self.by_gradient = corrections is None

    def forward(self, evidence: Evidence) -> Float[Tensor, "b t"]:
        """Return the logits of the hazard on the grid."""
        logits = path = self.path(evidence.completed)
        if self.corrections is not None:
            logits = logits + self.corrections(evidence)[:, None]
        if self.marginals is not None:
            unknown = evidence.imputed.all(1, keepdim=True)
            alone = self.baseline + self.marginals(evidence.values)[:, None]
            share = SHARE if len(self.linear) else 1.0
            alone = torch.lerp(path, alone, share)
            logits = torch.where(unknown, alone, logits)
        if self.fusion is not None and self.project is not None:
            fused = self.fusion(evidence.latent, evidence.imagined)
            logits = logits + self.project(self.dropout(fused))
        return logits

    def path(self, completed: Float[Tensor, "b f"]) -> Float[Tensor, "b t"]:
        """Return baseline and linear path alone."""
        return self.baseline + ((completed - self.center) @ self.linear)[:, None]

    @torch.no_grad()
    def fit_path(self, completed: Float[Tensor, "b f"], target: Discrete, ridge: float) -> None:
        """Fit baseline and linear path to convergence, ``ridge`` on each weight."""
        self.center.copy_(completed.mean(0))
        baseline, weight = fit_linear(
            completed - self.center,
            target,
            torch.full_like(self.linear, ridge),
            intervals=len(self.baseline),
        )
        self.baseline.copy_(baseline)
        self.linear.copy_(weight)


def curves(logits: Float[Tensor, "b t"]) -> Float[Tensor, "b t"]:
    """Return survival at the cuts, from logits of the hazard; 1 at the first, which is day 0.

    Interval 0 never holds an event, so what its logit says is only how few patients there were.
    """
    log = F.logsigmoid(-logits[:, 1:]).cumsum(1)
    return torch.cat([torch.zeros_like(logits[:, :1]), log], dim=1).exp()


def risks(at_cuts: Float[Tensor, "b t"]) -> Float[Tensor, " b"]:
    """Return the log of the cumulative hazard, averaged over the cuts, in float64.

    For proportional hazards it is the linear predictor, and curves at zero never tie it.
    """
    hazard = -at_cuts[:, 1:].double().clamp(1e-300, 1.0 - 1e-12).log()
    return hazard.log().mean(1)
