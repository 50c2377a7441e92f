"""A cohort: patients × modalities with gaps, labels and a right-censored endpoint."""

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from omnisurv.data import splits as dividing
from omnisurv.data.audit import COLUMNS, some, warnings_of
from omnisurv.data.images import Data, Images
from omnisurv.data.spec import DataSpec, Splits
from omnisurv.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from mudata import MuData

    from omnisurv.data.store import Store


class Cohort:
    """Patients × modalities, immutable in spirit: every change is a new cohort.

    Attributes:
        obs: a row per patient; ``time`` in days and ``event`` (1, 0; NaN is unknown), labels,
            ``group`` where patients are split by group.
        availability: patients × modalities, True where the patient has at least one value.
        spec: the data spec it was read with, if any.
        audit: what became of every file, column and sample.
    """

    def __init__(
        self,
        obs: pd.DataFrame,
        modalities: dict[str, Data],
        spec: DataSpec | None = None,
        audit: pd.DataFrame | None = None,
    ) -> None:
        self.obs = _check_obs(obs)
        self._shared = {
            name: _check_data(name, data, self.obs.index) for name, data in modalities.items()
        }
        self._own: dict[str, Data] = {}
        self.availability = _availability(self._shared, self.obs.index)
        self.spec = spec
        self.audit = pd.DataFrame(columns=list(COLUMNS), dtype=str) if audit is None else audit

    @classmethod
    def from_spec(
        cls,
        spec: "str | Path | DataSpec",
        root: "str | Path | None" = None,
        store: "Store | None" = None,
    ) -> "Cohort":
        """Read the cohort that a data spec describes.

        Args:
            spec: a file, or a parsed spec.
            root: folder of the data files; see ``resolve_root``.
            store: where pictures are decoded to, once; the user's cache by default.

        Raises:
            SpecError: the spec does not parse.
            DataError: a file is missing or cannot be used as it is.
        """
        from omnisurv.data.assembly import assemble
        from omnisurv.data.spec import resolve_root

        parsed = spec if isinstance(spec, DataSpec) else DataSpec.load(spec)
        obs, modalities, audit = assemble(parsed, resolve_root(spec, root), store)
        return cls(obs, modalities, parsed, audit)

    @property
    def patients(self) -> pd.Index:
        """Patient ids, sorted."""
        return self.obs.index

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities."""
        return list(self._shared)

    @property
    def strata(self) -> tuple[str, ...]:
        """Labels within whose classes every figure is also given; none without a spec."""
        return self.spec.strata if self.spec is not None else ()

    @property
    def has_endpoint(self) -> "pd.Series[bool]":
        """True for patients with a positive time and a known event."""
        return (self.obs["time"] > 0) & self.obs["event"].notna()

    @property
    def warnings(self) -> list[str]:
        """Return what is doubtful in the data, a sentence each."""
        return warnings_of(self.audit)

    def __len__(self) -> int:
        return len(self.obs)

    def __contains__(self, modality: str) -> bool:
        return modality in self._shared

    def __getitem__(self, modality: str) -> Any:
        """Return the AnnData or the Images of the patients who have the modality, in order."""
        if modality not in self._shared:
            hint = did_you_mean(modality, self._shared)
            raise DataError(f"the cohort has no modality '{modality}'.{hint}")
        if modality not in self._own:
            data = self._shared[modality]
            who = self.patients[self.availability[modality]]
            whole = len(who) == data.n_obs and bool((data.obs_names == who).all())
            self._own[modality] = data if whole else data[who].copy()
        return self._own[modality]

    def subset(self, patients: Iterable[str]) -> "Cohort":
        """Return the cohort of these patients; raise DataError if one is not in it."""
        wanted = pd.Index(patients)
        unknown = wanted.difference(self.patients)
        if len(unknown):
            raise DataError(
                f"{len(unknown)} patients are not in the cohort: {some(unknown)}; "
                f"its ids look like {some(self.patients, 2)}"
            )
        chosen = self.patients[self.patients.isin(wanted)]
        return self._derive(self.obs.loc[chosen], self._shared, self.spec)

    def with_endpoint(self) -> "Cohort":
        """Return the cohort of the patients whose time is positive and whose event is known."""
        return self.subset(self.patients[self.has_endpoint])

    def drop_modalities(self, names: Collection[str]) -> "Cohort":
        """Return the cohort without these modalities."""
        for name in names:
            if name not in self._shared:
                hint = did_you_mean(name, self._shared)
                raise DataError(f"the cohort has no modality '{name}'.{hint}")
        left = {name: data for name, data in self._shared.items() if name not in names}
        spec = self.spec
        if spec is not None:
            kept = {name: m for name, m in spec.modalities.items() if name in left}
            spec = spec.model_copy(update={"modalities": kept})
        return self._derive(self.obs, left, spec)

    def split(self) -> "tuple[Cohort, Cohort]":
        """Return the development and the test part, as the spec says."""
        dev, test = dividing.split(self.obs, self._splits)
        return self.subset(dev), self.subset(test)

    def folds(
        self, n: int | None = None, repeats: int | None = None, seed: int | None = None
    ) -> "list[tuple[Cohort, Cohort]]":
        """Return (train, test) of each fold; what is None is as the spec says.

        Patients without a usable endpoint are trained on or go with their group; they are never
        scored.
        """
        parts = dividing.folds(self.obs, self._splits, n, repeats, seed)
        return [(self.subset(train), self.subset(test)) for train, test in parts]

    def require_disjoint(self, other: "Cohort") -> None:
        """Raise DataError if a patient is in both cohorts."""
        both = self.patients.intersection(other.patients)
        if len(both):
            raise DataError(f"{len(both)} patients are in both cohorts: {some(both)}")

    def hashed_ids(self) -> list[str]:
        """Return the first 16 hex digits of each id's SHA-256, in cohort order."""
        return [hashlib.sha256(str(p).encode()).hexdigest()[:16] for p in self.patients]

    def fingerprint(self) -> str:
        """Return the SHA-256 of ids, endpoint and all values."""
        digest = hashlib.sha256("\n".join(map(str, self.patients)).encode())
        digest.update(self.obs[["time", "event"]].to_numpy(float).tobytes())
        for name in sorted(self._shared):
            data = self[name]
            if isinstance(data, Images):
                digest.update("\n".join([name, *(entry.key for entry in data.entries)]).encode())
                continue
            names = "\n".join([name, *data.obs_names, *data.var_names])
            digest.update(names.encode())
            digest.update(np.ascontiguousarray(data.X, dtype=np.float32).tobytes())
        return digest.hexdigest()

    def summary(self) -> pd.DataFrame:
        """Return patients, events, features and share of missing values for each modality."""
        rows = {}
        for name in self._shared:
            who = self.availability[name]
            data = self[name]
            rows[name] = {
                "patients": int(who.sum()),
                "events": int((self.obs["event"][who & self.has_endpoint] == 1).sum()),
                "features": data.n_vars,
                "missing_values": _missing(data),
            }
        columns = ["patients", "events", "features", "missing_values"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("modality")

    def to_mudata(self) -> "MuData":
        """Return all modalities, endpoint and labels as MuData; who lacks what stays known."""
        from omnisurv.data.containers import to_mudata

        return to_mudata(self)

    @classmethod
    def from_mudata(cls, data: "MuData", spec: DataSpec | None = None) -> "Cohort":
        """Return the cohort in a MuData object, ours or another's."""
        from omnisurv.data.containers import cohort_parts

        return cls(*cohort_parts(data, spec))

    @property
    def _splits(self) -> Splits:
        return self.spec.splits if self.spec is not None else Splits()

    def _derive(
        self, obs: pd.DataFrame, shared: dict[str, Data], spec: DataSpec | None
    ) -> "Cohort":
        """Return a cohort on the same checked values."""
        new = object.__new__(Cohort)
        new.obs, new._shared, new._own = obs, shared, {}
        new.availability = self.availability.loc[obs.index, list(shared)]
        new.spec, new.audit = spec, self.audit
        return new

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {n}" for name, n in self.availability.sum().items())
        return f"Cohort({self._headline()}; {counts})"

    def _headline(self) -> str:
        events = int((self.obs["event"][self.has_endpoint] == 1).sum())
        name = f"{self.spec.name}: " if self.spec else ""
        return f"{name}{len(self)} patients, {int(self.has_endpoint.sum())} with endpoint, " + (
            f"{events} events"
        )

    def _repr_html_(self) -> str:
        import html

        table = self.summary().to_html(float_format=lambda share: f"{share:.1%}")
        notes = "".join(f"<li>{html.escape(line)}</li>" for line in self.warnings)
        return f"<b>{html.escape(self._headline())}</b>{table}<ul>{notes}</ul>"


def _check_obs(obs: pd.DataFrame) -> pd.DataFrame:
    checked = obs.copy()
    checked.index = pd.Index(obs.index.astype(str), name="patient", dtype=object)
    twice = checked.index[checked.index.duplicated()].unique()
    if len(twice):
        raise DataError(f"{len(twice)} patients have more than one row: {some(twice)}; keep one")
    for name in ("time", "event"):
        checked[name] = pd.Series(checked.get(name, np.nan), index=checked.index, dtype=float)
    wrong = checked.index[~checked["event"].isin([0.0, 1.0]) & checked["event"].notna()]
    if len(wrong):
        raise DataError(f"event must be 0, 1 or missing; it is not for {some(wrong)}")
    rest = [name for name in checked if name not in ("time", "event")]
    return checked[["time", "event", *rest]].sort_index()


def _check_data(name: str, data: Data, patients: pd.Index) -> Data:
    """Return the modality in cohort order, float32; raise DataError if it cannot be used."""
    names = pd.Index(data.obs_names.astype(str), dtype=object)
    twice = names[names.duplicated()].unique()
    if len(twice):
        raise DataError(f"modality '{name}' has more than one row of {some(twice)}; keep one")
    unknown = names.difference(patients)
    if len(unknown):
        raise DataError(f"modality '{name}' has patients that obs lacks: {some(unknown)}")
    if isinstance(data, Images):
        return data[names.argsort()]
    values = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X)
    values = values.astype(np.float32, copy=False)
    infinite = np.isinf(values)
    if infinite.any():
        columns = data.var_names[infinite.any(axis=0)]
        raise DataError(
            f"modality '{name}' has {int(infinite.sum())} infinite values, in {some(columns)}; "
            "make NaN of what was not measured"
        )
    order = names.argsort()
    tidy = bool((order == np.arange(len(order))).all())
    if tidy and values is data.X:
        return data
    fixed = data.copy()
    fixed.X = values.copy() if values is data.X else values
    return fixed if tidy else fixed[order].copy()


def _missing(data: Data) -> float:
    """Return the share of values not measured in patients who have the modality."""
    if isinstance(data, Images):
        return 0.0 if len(data) else np.nan
    return float(np.isnan(data.X).mean()) if data.X.size else np.nan


def _availability(modalities: dict[str, Data], patients: pd.Index) -> pd.DataFrame:
    table: dict[str, Any] = {}
    for name, data in modalities.items():
        has = True if isinstance(data, Images) else np.isfinite(data.X).any(axis=1)
        measured = pd.Series(has, index=data.obs_names)
        table[name] = measured.reindex(patients, fill_value=False).to_numpy(dtype=bool)
    return pd.DataFrame(table, index=patients, dtype=bool)
