"""Before anything is trained: what was read, what was left out and why, what will not do."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from omnisurv.errors import DataError
from omnisurv.files import atomic, writable

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort


@dataclass(frozen=True)
class Inspection:
    """What a look at a cohort found.

    Attributes:
        cohort: the cohort.
        modalities: patients, events, features and missing values of each modality.
        combinations: which modalities patients have together: patients, events, share of events.
        endpoint: n, events and follow-up of the patients with a usable endpoint, in years.
        unusable: patients without a usable endpoint, and why.
        parts: patients and events of each part of the split and each fold.
        audit: how many files, samples and columns were kept, dropped or doubtful, and why.
        warnings: what is doubtful, a sentence each.
    """

    cohort: "Cohort"
    modalities: pd.DataFrame
    combinations: pd.DataFrame
    endpoint: dict[str, Any]
    unusable: pd.DataFrame
    parts: pd.DataFrame
    audit: pd.DataFrame
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, for JSON."""
        tables = ("modalities", "combinations", "unusable", "parts", "audit")
        found = {name: getattr(self, name).to_dict(orient="records") for name in tables}
        return {
            "patients": len(self.cohort),
            "endpoint": self.endpoint,
            "warnings": self.warnings,
            **found,
        }

    def save(self, folder: str | Path) -> Path:
        """Write ``audit.csv`` (every row) and ``availability.csv``."""
        folder = writable(Path(folder))
        with atomic(folder / "audit.csv") as path:
            self.cohort.audit.to_csv(path, index=False)
        with atomic(folder / "availability.csv") as path:
            self.cohort.availability.astype(int).to_csv(path)
        return folder


def inspect(cohort: "Cohort") -> Inspection:
    """Look at a cohort as training and evaluation will use it.

    Raises:
        DataError: it cannot be used: a part or fold without events, a modality that too few
            patients have to be learned from.
    """
    parts = _parts(cohort)
    dropped = cohort.audit[cohort.audit["reason"].str.contains("no survival endpoint")]
    return Inspection(
        cohort,
        cohort.summary().reset_index(),
        _combinations(cohort),
        _endpoint(cohort),
        dropped[["patient", "reason"]].drop_duplicates().reset_index(drop=True),
        parts,
        _audit(cohort.audit),
        cohort.warnings,
    )


def _parts(cohort: "Cohort") -> pd.DataFrame:
    dev, test = cohort.split()
    for name in cohort.modalities:
        if dev.availability[name].sum() < 2:
            raise DataError(
                f"modality '{name}': {dev.availability[name].sum()} of {len(dev)} patients of "
                "the development part have it, 2 are needed; remove it from the spec"
            )
    named = {"development": dev, "test": test}
    for number, (_, held_out) in enumerate(cohort.folds(repeats=1), start=1):
        named[f"fold {number}"] = held_out
    rows = [(name, len(part), *_count(part)) for name, part in named.items()]
    return pd.DataFrame(rows, columns=["part", "patients", "with_endpoint", "events"])


def _count(cohort: "Cohort") -> tuple[int, int]:
    known = cohort.obs[cohort.has_endpoint]
    return len(known), int((known["event"] == 1).sum())


def _combinations(cohort: "Cohort") -> pd.DataFrame:
    """Return how many patients have which modalities together, commonest first."""
    names = cohort.availability.apply(
        lambda row: " + ".join(row.index[row.to_numpy()]) or "nothing", axis=1
    )
    died = cohort.obs["event"].where(cohort.has_endpoint)
    table = died.groupby(names).agg(["size", "sum", "mean"]).reset_index()
    table.columns = pd.Index(["modalities", "patients", "events", "event_rate"])
    table["events"] = table["events"].astype(int)
    return table.sort_values("patients", ascending=False, kind="stable").reset_index(drop=True)


def _endpoint(cohort: "Cohort") -> dict[str, Any]:
    """Return numbers of the endpoint; the median follow-up is by reverse Kaplan–Meier."""
    known = cohort.obs[cohort.has_endpoint]
    if known.empty:
        return {"n": 0, "events": 0}
    from lifelines import KaplanMeierFitter

    years = known["time"] / 365.25
    censored = KaplanMeierFitter().fit(years, known["event"] == 0)
    died = KaplanMeierFitter().fit(years, known["event"] == 1)
    return {
        "n": len(known),
        "events": int((known["event"] == 1).sum()),
        "median_follow_up_years": round(float(censored.median_survival_time_), 2),
        "median_survival_years": round(float(died.median_survival_time_), 2),
        "longest_years": round(float(years.max()), 2),
    }


def _audit(audit: pd.DataFrame, reasons: int = 3) -> pd.DataFrame:
    """Return how often what happened in each modality, with the commonest reasons."""
    rows = []
    for (modality, status), part in audit.groupby(["modality", "status"], sort=False):
        counts = part["reason"].value_counts()
        said = "; ".join(f"{n} × {why}" for why, n in counts.head(reasons).items())
        more = f"; {len(counts) - reasons} more reasons" if len(counts) > reasons else ""
        rows.append((modality or "cohort", status, len(part), said + more))
    return pd.DataFrame(rows, columns=["modality", "status", "rows", "reasons"])
