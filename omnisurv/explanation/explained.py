"""All that is said of what drives a model's risks, in tables to keep."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from omnisurv.errors import InputError, SeenPatientsError
from omnisurv.explanation.attribution import attributions, placed
from omnisurv.explanation.measuring import value_of_measuring
from omnisurv.explanation.modalities import modality_value
from omnisurv.explanation.risk import require_survival
from omnisurv.files import atomic, writable
from omnisurv.pictures import PictureTokeniser
from omnisurv.training import Progress

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort
    from omnisurv.tasks.survival import SurvivalModel

STRONGEST = 3
"""Features of a modality that the summary names."""


@dataclass(frozen=True)
class Explained:
    """What drives the risks of some patients.

    Attributes:
        availability: patients × the model's modalities, whether there is any of it.
        shapley: of ``modality_value``: patient, modality, value.
        permutation: of the same; None where it cannot be had.
        measuring: of ``value_of_measuring``, for each modality that somebody lacks.
        features: of ``attributions``: patients × features of each modality but pictures.
        measured: what was measured of the same features, in standard units.
        notes: what was left out, and why.
    """

    availability: pd.DataFrame
    shapley: pd.DataFrame
    permutation: pd.DataFrame | None
    measuring: dict[str, pd.DataFrame]
    features: dict[str, pd.DataFrame]
    measured: dict[str, pd.DataFrame]
    notes: list[str]

    def modalities(self) -> pd.DataFrame:
        """Return a row for each modality, that of the largest values first.

        ``has``, ``lack``: patients; ``shapley``: mean size of the values of those who have it;
        ``drop`` of Harrell's C when it is dealt out anew, with its interval; ``spread``: median
        over those who lack it of the standard deviation of the risk if it were measured;
        ``strongest``: features of the largest mean size.
        """
        has = self.availability.sum()
        table = pd.DataFrame({"has": has, "lack": len(self.availability) - has})
        sizes = self.shapley["value"].abs().groupby(self.shapley["modality"]).mean()
        table["shapley"] = sizes.reindex(table.index)
        if self.permutation is not None:
            drop = self.permutation.set_index("modality")[["value", "ci_low", "ci_high"]]
            table = table.join(drop.rename(columns={"value": "drop"}))
        spread = {name: rows["sd"].median() for name, rows in self.measuring.items()}
        table["spread"] = pd.Series(spread, dtype=float).reindex(table.index)
        table["strongest"] = [self._strongest(str(name)) for name in table.index]
        table = table.sort_values("shapley", ascending=False, kind="stable")
        return table.rename_axis("modality").reset_index()

    def by_feature(self) -> pd.DataFrame:
        """Return modality, feature, patients, mean and mean size of what it adds to the risk."""
        parts = [
            pd.DataFrame(
                {
                    "modality": name,
                    "feature": values.columns.astype(str),
                    "patients": values.notna().sum().to_numpy(),
                    "mean": values.mean().to_numpy(),
                    "size": values.abs().mean().to_numpy(),
                }
            ).sort_values("size", ascending=False, kind="stable")
            for name, values in self.features.items()
        ]
        columns = ["modality", "feature", "patients", "mean", "size"]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

    def by_patient(self) -> pd.DataFrame:
        """Return what measuring each missing modality may do: patient, modality, risk, …."""
        named = {name: rows.rename_axis("patient") for name, rows in self.measuring.items()}
        if not named:
            return pd.DataFrame(columns=["patient", "modality"])
        return pd.concat(named, names=["modality"]).swaplevel().reset_index()

    def save(self, folder: str | Path) -> Path:
        """Write each table as CSV, and patients × features as ``features/NAME.csv``."""
        folder = writable(Path(folder))
        for name, table in self._tables().items():
            with atomic(folder / f"{name}.csv") as path:
                table.to_csv(path, index=False)
        for name, values in self.features.items():
            with atomic(writable(folder / "features") / f"{name}.csv") as path:
                values.rename_axis("patient").to_csv(path)
        return folder

    def to_dict(self) -> dict[str, Any]:
        """Return the tables and notes as plain values, for JSON."""
        told = {
            name: json.loads(table.to_json(orient="records", double_precision=15))
            for name, table in self._tables().items()
        }
        return {**told, "notes": self.notes}

    def _tables(self) -> dict[str, pd.DataFrame]:
        tables = {"modalities": self.modalities(), "shapley": self.shapley}
        if self.permutation is not None:
            tables["permutation"] = self.permutation
        return {**tables, "measuring": self.by_patient(), "features": self.by_feature()}

    def _strongest(self, name: str) -> str:
        if name not in self.features:
            return ""
        sizes = self.features[name].abs().mean().sort_values(ascending=False, kind="stable")
        return ", ".join(str(feature) for feature in sizes[sizes > 0].index[:STRONGEST])


def explain(
    model: "FittedModel",
    cohort: "Cohort",
    modalities: Sequence[str] | None = None,
    *,
    draws: int = 50,
    seed: int = 0,
    progress: Progress | None = None,
) -> Explained:
    """Gather what drives the risks of a cohort; what cannot be had is noted.

    Args:
        model: a survival model.
        cohort: patients; the drop of concordance is left out if the weights saw any of them.
        modalities: those to measure and to look into, all by default. Shapley values are always
            shared out among all of them.
        draws: of a missing modality, for each patient.
        seed: of everything drawn.
        progress: called with (label, done, in all, text).

    Raises:
        InputError: no survival model, or fewer than 2 draws.
        DataError: no patient, or a modality that the model does not know.
    """
    survival = require_survival(model)
    names = list(survival.modalities) if modalities is None else list(dict.fromkeys(modalities))
    survival.require_known(names)
    if draws < 2:
        raise InputError(f"draws: {draws} tells no spread; ask for at least 2")
    tables = [n for n in names if not isinstance(survival.tokenisers[n], PictureTokeniser)]
    jobs: dict[tuple[str, str], Callable[[], Any]] = {
        ("drop of concordance", ""): partial(_permutation, survival, cohort, seed),
        **{
            ("measuring", name): partial(
                value_of_measuring, survival, cohort, name, draws=draws, seed=seed
            )
            for name in names
        },
        **{("features of", name): partial(attributions, survival, cohort, name) for name in tables},
    }
    tell = progress or _silent
    tell("explain", 0, len(jobs) + 1, "Shapley values")
    shapley = modality_value(survival, cohort, seed=seed)
    found: dict[tuple[str, str], Any] = {}
    notes = []
    for done, (what, make) in enumerate(jobs.items(), start=1):
        tell("explain", done, len(jobs) + 1, " ".join(what).strip())
        try:
            found[what] = make()
        except InputError as error:
            notes.append(f"{' '.join(what).strip()}: left out, {error}")
    measuring = {name: table for (what, name), table in found.items() if what == "measuring"}
    features = {name: one.values for (what, name), one in found.items() if what == "features of"}
    return Explained(
        cohort.availability.reindex(columns=list(survival.modalities), fill_value=False),
        shapley,
        found.get(("drop of concordance", "")),
        {name: table for name, table in measuring.items() if len(table)},
        features,
        {name: _measured(survival, cohort, name, one.index) for name, one in features.items()},
        notes,
    )


def _silent(label: str, done: int, total: int, text: str) -> None:
    """Say nothing."""


def _permutation(model: "SurvivalModel", cohort: "Cohort", seed: int) -> pd.DataFrame:
    """Return the drops of concordance of patients whom no stage of the weights saw."""
    seen = {hashed for stage in model.seen.values() for hashed in stage}
    known = len(seen.intersection(cohort.hashed_ids()))
    if known:
        raise SeenPatientsError(
            f"the weights saw {known} of these {len(cohort)} patients; choose others"
        )
    return modality_value(model, cohort, "permutation", seed=seed)


def _measured(
    model: "SurvivalModel", cohort: "Cohort", name: str, patients: pd.Index
) -> pd.DataFrame:
    """Return the values that features were attributed to, in standard units."""
    patches = model.batch(cohort.subset(patients), [name]).patches[name].numpy()
    table = placed(model.tokenisers[name], patches, patients)
    assert isinstance(table, pd.DataFrame)
    return table
