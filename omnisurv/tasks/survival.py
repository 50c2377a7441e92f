"""Survival predictions from any subset of modalities, in scikit-survival's manners."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch

from omnisurv.checkpoint import FittedModel
from omnisurv.errors import DataError
from omnisurv.files import atomic, writable
from omnisurv.head import TaskNetwork
from omnisurv.heads.corrections import Training, fit_corrections
from omnisurv.heads.linear import Discrete, nll
from omnisurv.heads.marginals import fit_marginals
from omnisurv.heads.survival import LogisticHazard, TimeGrid, curves, risks
from omnisurv.registry import fitted
from omnisurv.shapes import Bool, Float, Tensor
from omnisurv.task import Labelled, TaskModel, strata_of

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort


@fitted.register("survival")
@dataclass(repr=False)
class SurvivalModel(TaskModel):
    """A fitted survival model; the ensemble's curve is the mean of its members' curves."""

    task: ClassVar[str] = "survival"

    grid: TimeGrid = field(default_factory=lambda: TimeGrid(np.array([0.0, 1.0])))
    follow_up: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Times (days) and events of the training patients, for censoring weights."""
    gains: dict[str, float] = field(default_factory=dict)
    """Held-out log-likelihood that each correction gained, as ``modality in class``."""

    def predict_survival_function(
        self,
        cohort: "Cohort",
        modalities: Collection[str] | None = None,
        times: "np.ndarray[Any, Any] | None" = None,
    ) -> pd.DataFrame:
        """Return survival probabilities, times (days) × patients, as pycox lays them out.

        Args:
            cohort: patients; whatever each has is used, whatever is missing is done without.
            modalities: look only at these.
            times: raw times in days; ten points in each interval of the grid by default.
        """
        return self._between(self._curves(cohort, modalities), cohort.patients, times)

    def predict(self, cohort: "Cohort", modalities: Collection[str] | None = None) -> pd.Series:
        """Return the risk of each patient, higher = worse.

        It is the log of the cumulative hazard, averaged over the time grid: for proportional
        hazards the linear predictor, and never tied by curves that have reached zero.
        """
        return self._risk(self._curves(cohort, modalities), cohort.patients)

    def predict_both(
        self, cohort: "Cohort", modalities: Collection[str] | None = None
    ) -> "tuple[pd.DataFrame, pd.Series[float]]":
        """Return curves and risks, as the two functions above but encoding each patient once."""
        at_cuts = self._curves(cohort, modalities)
        return self._between(at_cuts, cohort.patients), self._risk(at_cuts, cohort.patients)

    def score(self, cohort: "Cohort") -> float:
        """Return Harrell's C on patients with a usable endpoint."""
        from omnisurv.metrics import concordance_harrell

        known = cohort.with_endpoint()
        return float(
            concordance_harrell(
                known.obs["time"].to_numpy(float),
                known.obs["event"].to_numpy() == 1,
                self.predict(known).to_numpy(),
            )
        )

    @classmethod
    def usable(cls, cohort: "Cohort", task: str) -> "Cohort":
        """Return the patients with a usable endpoint; raise DataError if none has an event."""
        known = cohort.with_endpoint()
        if not (known.obs["event"] == 1).any():
            raise DataError("no patient of the training cohort has an event; check endpoint.event")
        return known

    @classmethod
    def begin(cls, origin: FittedModel, cohort: "Cohort", task: str) -> Self:
        """Return a model without networks: time grid and strata of the training patients."""
        time, event = _endpoint(cohort)
        recipe: Any = origin.recipe
        return cls(
            recipe,
            origin.modalities,
            origin.tokenisers,
            [],
            residuals=origin.residuals,
            grid=TimeGrid.fit(time, event, recipe.intervals, recipe.grid),
            follow_up=pd.DataFrame({"time": time, "event": event.astype(float)}),
            strata=strata_of(cohort),
        )

    @property
    def outputs(self) -> int:
        """Number of cuts of the time grid."""
        return len(self.grid.cuts)

    def target(self, cohort: "Cohort") -> Discrete:
        """Return the endpoints on the time grid."""
        interval, happened = self.grid.transform(*_endpoint(cohort))
        return Discrete(torch.from_numpy(interval), torch.from_numpy(happened).float())

    def loss(self, outputs: Float[Tensor, "b t"], target: Discrete) -> Float[Tensor, ""]:
        """Return the negative log-likelihood of the logistic hazard."""
        return nll(outputs, target)

    @torch.no_grad()
    def prepare(self, network: TaskNetwork, train: Labelled) -> None:
        """Fit the linear path, from which the rest starts."""
        evidence = network.eval().tables(train.batch, train.stratum)
        _head(network).fit_path(evidence.completed, _discrete(train), self._ridge)

    @torch.no_grad()
    def fit(
        self, network: TaskNetwork, data: Labelled, inner: Sequence[Bool[Tensor, " b"]]
    ) -> None:
        """Fit linear path, corrections that earn their place, and each modality by itself."""
        head, target = _head(network), _discrete(data)
        assert head.corrections is not None
        evidence = network.eval().tables(data.batch, data.stratum)
        head.fit_path(evidence.completed, target, self._ridge)
        training = Training(evidence.completed, evidence.values, data.stratum, target)
        offset = head.path(evidence.completed)
        kept = {}
        if len(head.linear):  # without a linear path there is nothing to correct
            kept = fit_corrections(head.corrections, training, offset, inner, self._ridge)
        for (name, level), gain in kept.items():
            place = f"{name} in {self.strata[level]}" if self.strata[level] else name
            self.gains[place] = max(gain, self.gains.get(place, gain))
        if head.marginals is not None:
            fit_marginals(head.marginals, evidence.values, target, head.baseline, inner)

    @property
    def _ridge(self) -> float:
        recipe: Any = self.recipe
        return float(recipe.ridge)

    def save(self, run: str | Path) -> Path:
        """Write the run folder and return it."""
        folder = writable(Path(run))
        with atomic(folder / "survival.json") as path:
            told = {"unit": "days", "cuts": self.grid.cuts.tolist()}
            path.write_text(json.dumps({**told, "strata": self.strata, "gains": self.gains}))
        with atomic(folder / "follow_up.csv") as path:
            self.follow_up.to_csv(path, index=False)
        return super().save(run)

    def restore(self, run: Path, config: Mapping[str, Any]) -> None:
        """Read the time grid and the training patients' follow-up."""
        told = json.loads((run / "survival.json").read_text())
        self.grid = TimeGrid(np.asarray(told["cuts"], dtype=float))
        self.strata, self.gains = told["strata"], told["gains"]
        self.follow_up = pd.read_csv(run / "follow_up.csv")

    def _between(
        self,
        at_cuts: "np.ndarray[Any, Any]",
        patients: pd.Index,
        times: "np.ndarray[Any, Any] | None" = None,
    ) -> pd.DataFrame:
        if times is None:
            intervals = zip(self.grid.cuts[:-1], self.grid.cuts[1:], strict=True)
            times = np.unique(np.concatenate([np.linspace(a, b, 11) for a, b in intervals]))
        values = self.grid.interpolate(at_cuts, np.asarray(times, dtype=float))
        return pd.DataFrame(values.T, index=pd.Index(times, name="days"), columns=patients)

    def _risk(self, at_cuts: "np.ndarray[Any, Any]", patients: pd.Index) -> "pd.Series[float]":
        return pd.Series(risks(torch.from_numpy(at_cuts)).numpy(), index=patients, name="risk")

    def _curves(self, cohort: "Cohort", modalities: Collection[str] | None) -> np.ndarray[Any, Any]:
        """Return survival at the cuts (n, cuts), the mean over members."""
        members = [curves(logits).double() for logits in self.forward(cohort, modalities)]
        return torch.stack(members).mean(0).numpy()


def _endpoint(cohort: "Cohort") -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return times in days and who had the event."""
    return cohort.obs["time"].to_numpy(float), cohort.obs["event"].to_numpy() == 1


def _head(network: TaskNetwork) -> LogisticHazard:
    assert isinstance(network.head, LogisticHazard)
    return network.head


def _discrete(data: Labelled) -> Discrete:
    assert isinstance(data.target, Discrete)
    return data.target
