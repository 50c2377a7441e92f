"""Scans of patients, by sequence: which file is decoded, and what the audit says of it."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from omnisurv.data.audit import some
from omnisurv.data.images import Images
from omnisurv.data.readers.context import ReadContext
from omnisurv.data.readers.nifti import read_grid
from omnisurv.data.readers.volumes import decode_volume
from omnisurv.data.sources import Source
from omnisurv.data.store import Entry, Unit
from omnisurv.data.tables import find_column, has_column, index_by_patient, one_per_patient
from omnisurv.errors import DataError

ALIASES = {
    "t1": ("t1", "t1n", "t1w"),
    "t1ce": ("t1ce", "t1c", "t1gd"),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "fla", "t2f"),
}
"""Names of the sequences in BraTS editions and elsewhere; the first sequence that a patient has
says on which grid the others must lie."""
SEQUENCES = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
LABEL_COLUMNS = ("labels", "label", "seg", "segmentation", "mask")
ENDINGS = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)


class NiftiTable(Source):
    """A table of volumes: a row for each patient."""

    format: Literal["nifti"]
    table: str
    path: str = "."
    """Folder below the root that the files of the table are in."""
    id: str | None = None
    labels: str | None = None
    """Column of the label maps; by default one called labels, seg, segmentation or mask."""


class NiftiSource(NiftiTable):
    """One sequence in such a table, which has a column for each."""

    sequence: str
    """Column of the files; a sequence is also found under its other names, such as t1gd."""


@dataclass
class Scans:
    """The files of one patient; of each sequence there should be one.

    Attributes:
        patient: whose they are.
        files: by sequence.
        labels: label maps, the best sort alone.
    """

    patient: str
    files: dict[str, list[Path]] = field(default_factory=dict)
    labels: list[Path] = field(default_factory=list)

    def file(self, sequence: str) -> Path | None:
        """Return the file of a sequence, None if there is none; DataError if there are two."""
        return self._only(self.files.get(sequence, []), f"sequence {sequence}")

    def label(self) -> Path | None:
        """Return the label map, None if there is none; DataError if there are two."""
        return self._only(self.labels, "label map")

    def first(self) -> Path | None:
        """Return the file of the first sequence there is."""
        return next(
            (self.files[name][0] for name in SEQUENCES.values() if name in self.files), None
        )

    def _only(self, files: list[Path], what: str) -> Path | None:
        if len(files) > 1:
            raise DataError(
                f"two files claim to be the {what} of {self.patient}: {files[0]} and {files[1]}; "
                "move one away"
            )
        return files[0] if files else None


def read_scans(
    scans: Sequence[Scans], sequence: str, context: ReadContext, options: Mapping[str, Any]
) -> Images:
    """Return the cubes of one sequence, decoded.

    Raises:
        DataError: nobody has the sequence, or two files claim to be the same one.
    """
    units = [unit for one in scans if (unit := _unit(one, sequence, options)) is not None]
    if not units:
        counts = Counter(name for one in scans for name in one.files)
        there = ", ".join(f"{count} of {name}" for name, count in sorted(counts.items()))
        raise DataError(f"there is no volume of the sequence '{sequence}' ({there or 'none'})")
    entries = with_paths(context.decode(units, decode_volume, options), units, context)
    _note_boxes(entries, context)
    return Images(entries, "z-score")


def with_paths(
    entries: Sequence[Entry], units: Sequence[Unit], context: ReadContext
) -> list[Entry]:
    """Return what was decoded with where its file lies: ``path`` below ``root``.

    The store does not know: equal files may lie in many places.
    """
    root = Path(os.path.abspath(context.root))
    files = {unit.patient: unit.files[0] for unit in units}

    def place(file: Path) -> dict[str, str]:
        inside = file.relative_to(root) if file.is_relative_to(root) else file
        return {"root": str(root), "path": inside.as_posix()}

    return [replace(e, meta={**e.meta, **place(files[e.patient])}) for e in entries]


def read_nifti(source: NiftiSource, context: ReadContext, options: Mapping[str, Any]) -> Images:
    """Return the cubes of one sequence of each patient in a table.

    Raises:
        DataError: the table has no such column, a file lies outside the folder, or none can be
            used.
    """
    name = canonical_name(source.sequence)
    return read_scans(list_scans(source, context), name, context, options)


def list_scans(source: NiftiSource, context: ReadContext) -> list[Scans]:
    """Return the files that a table names.

    Raises:
        DataError: the table has no such column, or a file lies outside the folder.
    """
    table = index_by_patient(context.table(source.table), context.patients, source.table, source.id)
    columns, labels = _columns(table, source), _label_column(table, source)
    scans = {str(patient): Scans(str(patient)) for patient in table.index.unique()}
    for name, column in columns.items():
        for patient, file in _files(table, column, source, context):
            scans[patient].files[name] = [file]
    if labels is not None:
        for patient, file in _files(table, labels, source, context):
            scans[patient].labels = [file]
    return list(scans.values())


def list_labels(source: NiftiTable, context: ReadContext) -> list[Scans]:
    """Return the label maps that a table names.

    Raises:
        DataError: the table has no such column, or a file lies outside the folder.
    """
    table = index_by_patient(context.table(source.table), context.patients, source.table, source.id)
    column = _label_column(table, source)
    if column is None:
        raise DataError(
            f"{source.table} has no column of label maps ({', '.join(LABEL_COLUMNS)}); say "
            "`labels:` and its name"
        )
    files = _files(table, column, source, context)
    return [Scans(patient, labels=[file]) for patient, file in files]


def canonical_name(sequence: str) -> str:
    """Return the common name of a sequence; other sequences keep their own."""
    return SEQUENCES.get(sequence.lower(), sequence)


def _label_column(table: pd.DataFrame, source: NiftiTable) -> str | None:
    return source.labels or next((name for name in LABEL_COLUMNS if has_column(table, name)), None)


def _columns(table: pd.DataFrame, source: NiftiSource) -> dict[str, str]:
    """Return the column of each sequence; the one that is read must be there."""
    found = {SEQUENCES[str(c).lower()]: str(c) for c in table if str(c).lower() in SEQUENCES}
    name = canonical_name(source.sequence)
    if source.sequence in table or name not in found:
        found[name] = find_column(table, source.sequence, source.table)
    return found


def _files(
    table: pd.DataFrame, column: str, source: NiftiTable, context: ReadContext
) -> list[tuple[str, Path]]:
    """Return patient and file of each cell that names one that is there."""
    folder = context.path(source.path)
    column = find_column(table, column, source.table)
    values = one_per_patient(table[column].rename(column), source.table).dropna()
    files = []
    for patient, value in values.items():
        file = folder / str(value)
        _refuse_outside(str(value), folder, f"{source.table}: {column} of {patient}")
        if not ENDINGS.search(file.name):
            raise DataError(
                f"{source.table}: {column} of {patient} is '{value}', not a .nii or .nii.gz file"
            )
        if file.is_file():
            files.append((str(patient), file))
        else:
            context.note(
                "dropped",
                f"{column}: {source.table} names this file, but it is not there",
                file=str(value),
                patient=str(patient),
            )
    absent = len(values) - len(files)
    if absent:
        context.note("warning", f"{column}: {absent} files are not there", file=source.table)
    return files


def _refuse_outside(value: str, folder: Path, where: str) -> None:
    path = Path(value)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{where} is '{value}'; paths must be relative to {folder} and stay there")
    if not (folder / path).resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{where} is '{value}', a link out of {folder}; copy the file there")


def _unit(scans: Scans, sequence: str, options: Mapping[str, Any]) -> Unit | None:
    """Return what is decoded of a patient, None if the sequence was not taken."""
    file = scans.file(sequence)
    if file is None:
        return None
    files = [file]
    if options["crop"] == "tumour" and (labels := scans.label()) is not None:
        files.append(labels)
    told: dict[str, Any] = {"sequence": sequence}
    reference = scans.first()
    if reference is not None and reference != file:
        mine, first = read_grid(file), read_grid(reference)
        if mine is not None and first is not None and not mine.matches(first):
            told["reference"] = {
                "file": reference.name,
                "shape": list(first.shape),
                "affine": first.affine.tolist(),
            }
    return Unit(scans.patient, tuple(Path(os.path.abspath(path)) for path in files), told)


def _note_boxes(entries: Sequence[Entry], context: ReadContext) -> None:
    """Say in the audit of whom something is doubtful, and once in a warning of how many."""
    notes: dict[str, list[str]] = {}
    for entry in entries:
        note = entry.meta["note"]
        if note:
            context.note("kept", note, file=entry.meta["file"], patient=entry.patient)
            notes.setdefault(note, []).append(entry.patient)
    for note, patients in notes.items():
        context.note(
            "warning", f"{len(patients)} of {len(entries)} patients ({some(patients)}): {note}"
        )
