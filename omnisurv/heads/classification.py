"""Classes of patients: one linear layer on the encoder's summary, or a ridge regression."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from omnisurv.head import Evidence, Head
from omnisurv.heads.corrections import Components
from omnisurv.heads.fusion import Fusion
from omnisurv.registry import heads
from omnisurv.shapes import Bool, Float, Int, Tensor

COMPONENTS = 10
"""Leading components of a modality that the ridge regression reads."""
PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Ridge penalties that are tried; the last all but leaves the training shares."""
MOST = 2000
"""Weights up to which Newton's method fits them."""
RAREST = 1e-6
"""Probability at least, of a class that nobody in an inner training part has."""


@heads.register("classification")
class Classifier(Head):
    """Logits by one linear layer, on the class token (BM-MAE §4.3) or on fusion attention.

    Args:
        classes: number of classes.
        dim: width of the vector that is read.
        fusion: reads the tokens (impuTMAE §2); None for the encoder's summary as it is.
        dropout: rate before the layer.
    """

    def __init__(
        self, classes: int, dim: int, *, fusion: Fusion | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.fusion = fusion
        self.dropout = nn.Dropout(dropout)
        self.read = nn.Linear(dim, classes)
        self.imagines = fusion is not None and fusion.adopt is not None

    def forward(self, evidence: Evidence) -> Float[Tensor, "b c"]:
        """Return the logits of the classes."""
        latent = evidence.latent
        fused = latent.summary if self.fusion is None else self.fusion(latent, evidence.imagined)
        logits: Tensor = self.read(self.dropout(fused))
        return logits


class RidgeClassifier(Head):
    """Multinomial logistic regression on the completed table and components of modalities.

    The components of a modality that a patient lacks are exactly zero. Strata are not looked at:
    they may be the very classes.

    Args:
        classes: number of classes.
        linear: number of completed values.
        features: flattened width of each modality whose components are read.
    """

    by_gradient = False

    def __init__(self, classes: int, linear: int, features: Mapping[str, int]) -> None:
        super().__init__()
        self.components = nn.ModuleDict(
            {name: Components(width, 1, COMPONENTS) for name, width in features.items()}
        )
        self.reads = frozenset(features)
        self.center = nn.Buffer(torch.zeros(linear))
        self.bias = nn.Parameter(torch.zeros(classes))
        width = linear + COMPONENTS * len(features)
        self.weight = nn.Parameter(torch.zeros(width, classes))

    def forward(self, evidence: Evidence) -> Float[Tensor, "b c"]:
        """Return the logits of the classes."""
        return self.bias + self.inputs(evidence.completed, evidence.values) @ self.weight

    def inputs(
        self, completed: Float[Tensor, "b f"], values: Mapping[str, Float[Tensor, "b _"]]
    ) -> Float[Tensor, "b w"]:
        """Return what is regressed on."""
        alike = torch.zeros(len(completed), dtype=torch.long, device=completed.device)
        parts = [part(values[name], alike) for name, part in self.components.items()]
        return torch.cat([completed - self.center, *parts], 1)

    @torch.no_grad()
    def fit(
        self,
        completed: Float[Tensor, "b f"],
        values: Mapping[str, Float[Tensor, "b _"]],
        code: Int[Tensor, " b"],
        inner: Sequence[Bool[Tensor, " b"]],
    ) -> float:
        """Fit to convergence and return the penalty.

        It is the one under which the patients held out in the inner folds are likeliest, the
        largest of equals; components are fitted again in each of them.

        Args:
            completed: the table, imputed where missing.
            values: patches of the other modalities, NaN hidden.
            code: class of each patient, counted from 0.
            inner: who is held out (True) in each inner fold.
        """
        classes = len(self.bias)
        gained = np.zeros(len(PENALTIES))
        for held_out in inner:
            self._prepare(completed, values, ~held_out)
            x, y = self.inputs(completed, values).double().numpy(), code.numpy()
            train, test = (~held_out).numpy(), held_out.numpy()
            for place, penalty in enumerate(PENALTIES):
                found = regress(x[train], y[train], classes, penalty)
                gained[place] += found.log_likelihood(x[test], y[test])
        best = PENALTIES[len(PENALTIES) - 1 - int(np.argmax(gained[::-1]))]
        self._prepare(completed, values, torch.ones_like(code, dtype=torch.bool))
        x = self.inputs(completed, values).double().numpy()
        found = regress(x, code.numpy(), classes, best)
        self.bias.copy_(torch.from_numpy(found.bias))
        self.weight.copy_(torch.from_numpy(found.weight))
        return best

    def _prepare(
        self, completed: Tensor, values: Mapping[str, Tensor], who: Bool[Tensor, " b"]
    ) -> None:
        """Centre the table and fit the components on some patients."""
        self.center.copy_(completed[who].mean(0))
        alike = torch.zeros(int(who.sum()), dtype=torch.long)
        for name, part in self.components.items():
            fresh = Components(len(part.axes), 1, COMPONENTS).fit(values[name][who], alike)  # type: ignore[arg-type]
            part.load_state_dict(fresh.state_dict())


@dataclass(frozen=True)
class Regression:
    """A fitted multinomial regression: bias (c,) and weight (w, c) of the logits."""

    bias: np.ndarray[Any, Any]
    weight: np.ndarray[Any, Any]

    def log_likelihood(self, x: np.ndarray[Any, Any], code: np.ndarray[Any, Any]) -> float:
        """Return the total log-likelihood of some patients."""
        from scipy.special import softmax

        own = softmax(self.bias + x @ self.weight, axis=1)[np.arange(len(code)), code]
        return float(np.log(np.maximum(own, RAREST)).sum())


def regress(
    x: np.ndarray[Any, Any], code: np.ndarray[Any, Any], classes: int, penalty: float
) -> Regression:
    """Fit by scikit-learn, with ``penalty`` · Σ w² / 2 on the total log-likelihood.

    A class that nobody has keeps a probability of next to nothing.
    """
    from sklearn.linear_model import LogisticRegression

    bias = np.full(classes, np.log(RAREST))
    weight = np.zeros((x.shape[1], classes))
    present = np.unique(code)
    if len(present) == 1 or not x.shape[1]:
        counts = np.bincount(code, minlength=classes)
        return Regression(np.log(np.maximum(counts / len(code), RAREST)), weight)
    # Newton's method is exact and quick, but keeps a matrix of all pairs of weights.
    solver = "newton-cholesky" if x.shape[1] * len(present) < MOST else "lbfgs"
    model = LogisticRegression(C=1.0 / penalty, solver=solver, tol=1e-8, max_iter=5000)
    model.fit(x, code)
    if len(present) == 2:  # one score, of the second class against the first
        bias[present], weight[:, present[1]] = [0.0, model.intercept_[0]], model.coef_[0]
        return Regression(bias, weight)
    # The largest bias becomes 0, below which a class that nobody has is out of sight.
    bias[present] = model.intercept_ - model.intercept_.max()
    weight[:, present] = model.coef_.T
    return Regression(bias, weight)
