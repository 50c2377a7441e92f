"""A cohort: patients × modalities with gaps, labels and a right-censored endpoint."""

import hashlib
from collections.abc import Collection, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from omnisurv.data import splits as dividing
from omnisurv.data.audit import COLUMNS, some, warnings_of
from omnisurv.data.checks import (
    availability_of,
    check_data,
    check_names,
    check_obs,
    missing_share,
)
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
        label_maps: Images | None = None,
    ) -> None:
        self.obs = check_obs(obs)
        self._shared = {
            name: check_data(name, data, self.obs.index) for name, data in modalities.items()
        }
        self._own: dict[str, Data] = {}
        self.availability = availability_of(self._shared, self.obs.index)
        self.spec = spec
        self.audit = pd.DataFrame(columns=list(COLUMNS), dtype=str) if audit is None else audit
        self._all_maps = label_maps
        if label_maps is not None:
            check_names("label_maps", label_maps, self.obs.index)

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
        obs, modalities, audit, label_maps = assemble(parsed, resolve_root(spec, root), store)
        return cls(obs, modalities, parsed, audit, label_maps)

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

    @cached_property
    def label_maps(self) -> Images | None:
        """Label maps of the patients who have one, in order; None if the spec names none.

        uint8 (x, y, z) of common labels (``omnisurv.data.regions``) on the cube of the patient's
        MRI, 255 outside the volume. They are no modality: no model is given them.
        """
        if self._all_maps is None:
            return None
        return self._all_maps[self.patients[self.patients.isin(self._all_maps.obs_names)]]

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
        self,
        n: int | None = None,
        repeats: int | None = None,
        seed: int | None = None,
        label: str | None = None,
    ) -> "list[tuple[Cohort, Cohort]]":
        """Return (train, test) of each fold; what is None is as the spec says.

        Patients without a usable endpoint are trained on or go with their group; they are never
        scored. Given a label, its classes are what folds hold alike, and who has none is not
        scored; endpoints are not looked at.
        """
        parts = dividing.folds(self.obs, self._splits, n, repeats, seed, label)
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
        """Return the SHA-256 of ids, endpoint, all values and label maps."""
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
        if self.label_maps is not None:
            told = [f"{entry.key} {entry.meta.get('edition')}" for entry in self.label_maps.entries]
            digest.update("\n".join(["label maps", *self.label_maps.obs_names, *told]).encode())
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
                "missing_values": missing_share(data),
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
        new.spec, new.audit, new._all_maps = spec, self.audit, self._all_maps
        return new

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {n}" for name, n in self.availability.sum().items())
        return f"Cohort({self._headline()}; {counts})"

    def _headline(self) -> str:
        events = int((self.obs["event"][self.has_endpoint] == 1).sum())
        name = f"{self.spec.name}: " if self.spec else ""
        return f"{name}{len(self)} patients, {int(self.has_endpoint.sum())} with endpoint, " + (
            f"{events} events"
            + ("" if self.label_maps is None else f", {len(self.label_maps)} label maps")
        )

    def _repr_html_(self) -> str:
        import html

        table = self.summary().to_html(float_format=lambda share: f"{share:.1%}")
        notes = "".join(f"<li>{html.escape(line)}</li>" for line in self.warnings)
        return f"<b>{html.escape(self._headline())}</b>{table}<ul>{notes}</ul>"
