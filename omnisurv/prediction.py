"""Survival predictions from any subset of modalities, in scikit-survival's manners."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch

from omnisurv.checkpoint import FittedModel
from omnisurv.files import atomic, writable
from omnisurv.head import TaskNetwork
from omnisurv.heads.survival import TimeGrid, curves
from omnisurv.registry import fitted

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort


@fitted.register("survival")
@dataclass(repr=False)
class SurvivalModel(FittedModel):
    """A fitted survival model; the ensemble's curve is the mean of its members' curves."""

    task: ClassVar[str] = "survival"

    grid: TimeGrid = field(default_factory=lambda: TimeGrid(np.array([0.0, 1.0])))
    follow_up: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Times (days) and events of the training patients, for censoring weights."""
    strata: list[str] = field(default_factory=lambda: [""])
    """Classes the model knows, in the order of its corrections; one where there are none."""
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

    def build(self) -> TaskNetwork:
        """Return an untrained network of this model's form."""
        mae = self.recipe.build(self.modalities, self.tokenisers)
        linear = [n for n in getattr(self.recipe, "linear", ()) if n in self.modalities]
        head = self.recipe.head("survival", len(self.grid.cuts), mae, linear, len(self.strata))
        return TaskNetwork(mae, head, linear)

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
        hazard = -np.log(np.clip(at_cuts[:, 1:], 1e-300, 1.0 - 1e-12))
        return pd.Series(np.log(hazard).mean(axis=1), index=patients, name="risk")

    @torch.no_grad()
    def _curves(self, cohort: "Cohort", modalities: Collection[str] | None) -> np.ndarray[Any, Any]:
        """Return survival at the cuts (n, cuts), the mean over members."""
        batch = self.batch(cohort, modalities)
        stratum = torch.from_numpy(stratum_of(cohort, self.strata))
        members = []
        for network in self.networks:
            parts = []
            for rows in batch.chunks():
                part = batch.rows(rows).load()
                parts.append(curves(network(part, part.observed, stratum[rows])))
            members.append(torch.cat(parts).double())
        return torch.stack(members).mean(0).numpy()


def strata_of(cohort: "Cohort") -> list[str]:
    """Return the classes of a cohort's strata, sorted; one empty class where it has none."""
    names = _classes(cohort)
    return [""] if names is None else sorted(names.dropna().unique())


def stratum_of(cohort: "Cohort", strata: list[str]) -> np.ndarray[Any, Any]:
    """Return the position of each patient's class in ``strata``; -1 where it is not known."""
    if strata == [""]:
        return np.zeros(len(cohort), dtype=np.int64)
    names = _classes(cohort)
    if names is None:
        return np.full(len(cohort), -1, dtype=np.int64)
    return pd.Categorical(names, categories=strata).codes.astype(np.int64)


def _classes(cohort: "Cohort") -> "pd.Series[str] | None":
    columns = [c for c in cohort.strata if c in cohort.obs]
    if not columns:
        return None
    parts = cohort.obs[columns].astype("string")
    return parts[columns[0]].str.cat(parts[columns[1:]], sep=" ")
