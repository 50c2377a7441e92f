"""What every reader is told: where, whose names, and the audit to write to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from omnisurv.data.audit import AuditLog, Status
from omnisurv.data.barcodes import primary_types
from omnisurv.data.regions import AmbiguousLabelsError
from omnisurv.data.spec import PatientRule
from omnisurv.data.store import Decode, Entry, Store, Unit, default_folder
from omnisurv.data.tables import load_table
from omnisurv.errors import DataError, did_you_mean


@dataclass(frozen=True)
class ReadContext:
    """Folder, patient rule, project of each patient, audit, and the modality being read."""

    root: Path
    patients: PatientRule = field(default_factory=PatientRule)
    project: "pd.Series[str] | None" = None
    audit: AuditLog = field(default_factory=AuditLog)
    modality: str = ""
    known: frozenset[str] = frozenset()
    """Patients of the endpoint table: they tell samples from features where no pattern does."""
    tables: dict[Path, pd.DataFrame] = field(default_factory=dict, repr=False)
    store: Store = field(default_factory=lambda: Store(default_folder()))
    """Where pictures are decoded to."""

    def named(self, modality: str) -> "ReadContext":
        """Return the context of this modality; audit and tables are shared."""
        return replace(self, modality=modality)

    def path(self, name: str) -> Path:
        """Return the path of a file or folder; raise DataError with the nearest name if none."""
        path = self.root / name
        if not path.exists():
            beside = path.parent.iterdir() if path.parent.is_dir() else ()
            hint = did_you_mean(path.name, [p.name for p in beside][:1000])
            raise DataError(f"there is no file {path}.{hint}")
        return path

    def table(self, name: str) -> pd.DataFrame:
        """Return a table of texts; read once."""
        path = self.path(name)
        if path not in self.tables:
            self.tables[path] = load_table(path)
        return self.tables[path]

    def decode(
        self, units: Sequence[Unit], decode: Decode, options: Mapping[str, Any]
    ) -> list[Entry]:
        """Return what could be decoded, patients in order; damaged files are named and skipped.

        Raises:
            DataError: not one file could be used, or label maps may mean one thing or another.
        """
        entries, failures = [], []
        for unit, found in zip(units, self.store.fetch(units, decode, options), strict=True):
            names = [self._inside(file) for file in unit.files]
            if isinstance(found, AmbiguousLabelsError):
                raise found
            if isinstance(found, DataError):
                failures.append(str(found))
                self.note("dropped", f"damaged file: {found}", file=names[0], patient=unit.patient)
                continue
            entries.append(found)
            left_out = found.meta.get("left_out", {})
            for name in names:
                if Path(name).name not in left_out:
                    self.note("kept", "decoded", file=name, patient=unit.patient)
        if failures and not entries:
            raise DataError(
                f"none of the {len(units)} pictures can be used; the first: {failures[0]}"
            )
        if failures:
            more = f" and {len(failures) - 1} more" if len(failures) > 1 else ""
            self.note("warning", f"left out: {failures[0]}{more}; the audit names them")
        return sorted(entries, key=lambda entry: entry.patient)

    def _inside(self, file: Path) -> str:
        root = self.root.absolute()
        return str(file.relative_to(root)) if file.is_relative_to(root) else str(file)

    def note(
        self,
        status: Status,
        reason: str,
        *,
        file: str = "",
        column: str = "",
        patient: str = "",
        sample: str = "",
    ) -> None:
        """Add a row of this modality to the audit."""
        self.audit.add(
            status,
            reason,
            modality=self.modality,
            file=file,
            column=column,
            patient=patient,
            sample=sample,
        )

    def sample_types(self, patient: str) -> tuple[str, ...]:
        """Return the sample types that stand for a patient of this patient's project."""
        project = self.project.get(patient) if self.project is not None else None
        return primary_types(project)
