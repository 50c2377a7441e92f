"""Folders of volumes as BraTS gives them, and such as are named in the same way.

=========  ==========================================================================
2017–2019  ``HGG|LGG/Brats18_X/Brats18_X_{t1,t1ce,t2,flair,seg}.nii.gz``
2020       ``BraTS20_Training_001/BraTS20_Training_001_{…}.nii`` (or ``.nii.gz``)
2021       ``BraTS2021_00000/BraTS2021_00000_{…}.nii.gz``
2023, 24   ``BraTS-GLI-00000-000/BraTS-GLI-00000-000-{t1n,t1c,t2w,t2f,seg}.nii.gz``
TCGA       ``TCGA-DU-7294/TCGA-DU-7294_{t1,t1c,t2,fla}_bet.nii.gz``, ``*seg*.nii.gz``
=========  ==========================================================================
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import field_validator

from omnisurv.data.audit import some
from omnisurv.data.images import Images
from omnisurv.data.readers.context import ReadContext
from omnisurv.data.readers.scans import ALIASES, ENDINGS, SEQUENCES, Scans, read_scans
from omnisurv.data.sources import Source
from omnisurv.data.tables import ID_COLUMNS
from omnisurv.errors import DataError, did_you_mean

_NAMES = "|".join(sorted(SEQUENCES, key=len, reverse=True))
SCAN = re.compile(rf"^(?:(.+?)[-_])?({_NAMES})(?:[-_](?:bet|brain|ss|stripped))*$", re.IGNORECASE)
"""Case and sequence in a file's name."""
LABEL_MAP = re.compile(r"^(?!.*(?:brain|parenchyma)).*(?:seg|glistrboost)", re.IGNORECASE)
VISIT = re.compile(r"^(.+?)(?:-(\d{3})|_(\d{4}\.\d\d\.\d\d))$")
"""A case with its visit: BraTS-GLI-00000-001, or TCGA-02-0006_1996.08.23."""


class MappedFolder(Source):
    """A folder of cases, whose names are patients' or are found in a table."""

    mapping: str | None = None
    """A table of cases and their patients."""


class BratsFolder(MappedFolder):
    """A folder of volumes named after case and sequence."""

    format: Literal["brats"]


class BratsSource(BratsFolder):
    """One sequence in such a folder."""

    sequence: str
    """t1, t1ce, t2 or flair, or another name of one."""

    @field_validator("sequence")
    @classmethod
    def _known(cls, sequence: str) -> str:
        if sequence.lower() not in SEQUENCES:
            raise ValueError(f"unknown sequence.{did_you_mean(sequence, ALIASES)}")
        return SEQUENCES[sequence.lower()]


@dataclass
class Case:
    """The files of one visit of a patient, under one name."""

    name: str
    files: list[tuple[str, Path]] = field(default_factory=list)
    labels: list[Path] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, str]:
        """What may say whose it is: the files' names, else the folder's."""
        return self.name, self.files[0][1].parent.name

    @property
    def visit(self) -> tuple[str, str]:
        """The case without its visit, and the visit."""
        found = VISIT.match(self.name)
        return (found[1], found[2] or found[3]) if found else (self.name, "")


def read_brats(source: BratsSource, context: ReadContext, options: Mapping[str, Any]) -> Images:
    """Return the cubes of one sequence of each patient; of several visits the earliest counts.

    Raises:
        DataError: there are no such files, nothing says whose they are, two claim to be the same
            one, or none can be used.
    """
    return read_scans(find_scans(source, context), source.sequence, context, options)


def find_scans(source: BratsFolder, context: ReadContext) -> list[Scans]:
    """Return the files of each patient in the folder; of several visits the earliest.

    Raises:
        DataError: there are no such files, or nothing says whose they are.
    """
    folder = context.path(source.path)
    cases = _cases(folder)
    if not cases:
        raise DataError(
            f"{folder} holds no volume named after a sequence (…_t1ce.nii.gz, …-t2f.nii.gz); list "
            "the files in a table and say `format: nifti`"
        )
    return scans_of(cases, source, context)


def scans_of(cases: list[Case], source: MappedFolder, context: ReadContext) -> list[Scans]:
    """Return the files of each patient; of several visits the earliest.

    Raises:
        DataError: nothing says whose the cases are.
    """
    patients = _patients(cases, source, context)
    scans = []
    for patient in sorted(set(patients.values())):
        mine = [case for case in cases if patients.get(case.name) == patient]
        one = Scans(patient)
        for case in _earliest(mine, patient, context):
            for sequence, file in case.files:
                one.files.setdefault(sequence, []).append(file)
            one.labels += case.labels
        scans.append(one)
    return scans


def _cases(folder: Path) -> list[Case]:
    """Return the cases in a folder, each with its scans and its label maps."""
    cases: dict[str, Case] = {}
    others = []
    for file in volumes_in(folder):
        stem = ENDINGS.sub("", file.name)
        found = SCAN.match(stem)
        if found:
            name = found[1] or file.parent.name
            case = cases.setdefault(name, Case(name))
            case.files.append((SEQUENCES[found[2].lower()], file))
        elif LABEL_MAP.match(stem):
            others.append((stem, file))
    for stem, file in others:
        name = _case_of(stem, file, cases)
        if name is not None:
            cases[name].labels.append(file)
    for case in cases.values():
        ranks = [_rank(case.name, file) for file in case.labels]
        case.labels = [f for f, rank in zip(case.labels, ranks, strict=True) if rank == min(ranks)]
    return sorted(cases.values(), key=lambda case: case.name)


def volumes_in(folder: Path) -> Iterator[Path]:
    """Return all NIfTI files below a folder, in order; folders that are links are followed."""
    seen = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if real in seen:  # a link in a circle
            folders.clear()
            continue
        seen.add(real)
        for name in sorted(files):
            if ENDINGS.search(name) and not name.startswith("."):
                yield Path(where) / name


def _case_of(stem: str, file: Path, cases: Mapping[str, Case]) -> str | None:
    """Return the case of a label map: the one it is named after, or the only one beside it."""
    for end in reversed([i for i, character in enumerate(stem) if character in "-_"]):
        if stem[:end] in cases:
            return stem[:end]
    beside = [
        name
        for name, case in cases.items()
        if any(scan.parent == file.parent for _, scan in case.files)
    ]
    return beside[0] if len(beside) == 1 else None


def _rank(case: str, file: Path) -> int:
    """Return how far a label map is preferred: BraTS's own name, what an expert corrected, any."""
    stem = ENDINGS.sub("", file.name).lower()
    if stem in (f"{case}_seg".lower(), f"{case}-seg".lower(), "seg"):
        return 0
    return 1 if "corrected" in stem else 2


def _patients(cases: list[Case], source: MappedFolder, context: ReadContext) -> dict[str, str]:
    """Return the patient of each case that has one; note the others in the audit."""
    rule, reason = context.patients, f"its name is no id of the kind '{context.patients.id}'"
    patients: dict[str, str | None]
    if source.mapping is not None:
        known = _mapping(cases, source.mapping, context)
        reason = f"{source.mapping} says of no patient of it"
        patients = {
            case.name: next((known[n.lower()] for n in case.names if n.lower() in known), None)
            for case in cases
        }
    else:
        patients = {
            case.name: next((p for n in case.names if (p := rule.patient(n)) is not None), None)
            for case in cases
        }
    nameless = [case for case in cases if patients[case.name] is None]
    if len(nameless) == len(cases):
        raise DataError(
            f"{source.path}: no case names a patient by `patients: {{id: {rule.id}}}` "
            f"({some([case.name for case in cases], 2)}); say `mapping:` and a table of cases and "
            "patients, or another rule"
        )
    for case in nameless:
        context.note("dropped", reason, file=_inside(case.files[0][1].parent, context))
    if nameless:
        names = some([case.name for case in nameless])
        context.note("warning", f"left out {len(nameless)} cases ({names}): {reason}")
    return {name: patient for name, patient in patients.items() if patient is not None}


def _mapping(cases: list[Case], name: str, context: ReadContext) -> dict[str, str]:
    """Return patient by case, in lower case, of a table whose columns are told by their values."""
    table = context.table(name)
    names = {name.lower() for case in cases for name in case.names}
    lower = table.apply(lambda column: column.astype(str).str.strip().str.lower())
    hits = lower.isin(names).sum()
    if not hits.max():
        raise DataError(
            f"{name} has no column of cases such as {cases[0].name} (columns: "
            f"{some([str(c) for c in table])})"
        )
    column = str(hits.idxmax())
    rows = table[lower[column].isin(names)]
    patients = _patient_column(rows.drop(columns=column), name, context)
    known = pd.Series(patients.to_numpy(), index=lower.loc[rows.index, column]).dropna()
    for case, ids in known.groupby(level=0):
        if len(set(ids)) > 1:
            raise DataError(f"{name} gives {case} to {some(sorted(set(ids)), 2)}; keep one")
    return {str(case): str(patient) for case, patient in known.items()}


def _patient_column(rows: pd.DataFrame, name: str, context: ReadContext) -> "pd.Series[str]":
    """Return the patients of the rows, from the column that holds most ids."""
    rule = context.patients
    ids = rows.apply(
        lambda column: column.map(lambda v: rule.patient(v) if isinstance(v, str) else None)
    )
    columns = {str(c).lower(): str(c) for c in rows}
    named = [columns[c] for c in (*ID_COLUMNS, "local id") if c in columns]
    if rule.id == "column":
        chosen = named[0] if named else str(rows.columns[0]) if len(rows.columns) == 1 else None
        if chosen is None:
            raise DataError(
                f"{name} has no column of patients (columns: {some(list(columns.values()))}); call "
                "one `patient`"
            )
        return ids[chosen]
    counts = ids.notna().sum()
    if not len(counts) or not counts.max():
        raise DataError(
            f"{name}: no column holds ids of the kind 'patients: {{id: {rule.id}}}' (columns: "
            f"{some(list(columns.values()))})"
        )
    return ids[str(counts.idxmax())]


def _earliest(cases: list[Case], patient: str, context: ReadContext) -> list[Case]:
    """Return the cases to read of a patient: of several visits of one case only the first."""
    visits = [case.visit for case in cases]
    if len({stem for stem, _ in visits}) > 1:
        return cases  # whatever claims the same sequence twice is refused later
    first = min(visit for _, visit in visits)
    kept = [case for case in cases if case.visit[1] == first]
    for case in cases:
        if case not in kept:
            reason = f"{case.name} is a later visit than {kept[0].name}"
            folder = _inside(case.files[0][1].parent, context)
            context.note("dropped", reason, file=folder, patient=patient)
    return kept


def _inside(path: Path, context: ReadContext) -> str:
    return str(path.relative_to(context.root)) if path.is_relative_to(context.root) else str(path)
