"""A GDC download on disk: one folder per file, and what lies about in between."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from omnisurv.data.audit import some
from omnisurv.data.barcodes import Analyte, Sample, parse_barcode
from omnisurv.data.readers.context import ReadContext
from omnisurv.data.readers.samples import keep_types, rank
from omnisurv.data.readers.sheets import Described, Sheet, read_sheets, read_sizes
from omnisurv.data.sources import GdcSource
from omnisurv.errors import DataError

_WITHDRAWN = re.compile(r"\bDNU\b|do not use|redact", re.IGNORECASE)
_BARCODE_IN_NAME = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}(?:-[A-Z0-9]+)*")


@dataclass(frozen=True)
class Download:
    """Files of a download, and each patient's samples, best first."""

    files: list[Path]
    ranked: dict[str, list[Sample]]
    sizes: dict[str, int]


def open_download(
    source: GdcSource,
    context: ReadContext,
    wanted: re.Pattern[str],
    other: re.Pattern[str],
    analyte: Analyte,
    size: Callable[[Path], int] | None = None,
) -> Download:
    """Return the files of the wanted name and whose they are.

    Args:
        source: folder and sample sheets.
        context: folder, patients and audit.
        wanted: names of the files to read.
        other: names of files of other workflows, which must not be mixed with them.
        analyte: for the order of duplicates.
        size: number of features in a file; of duplicates, more is better.

    Raises:
        DataError: nothing to read, or nothing says whose the files are.
    """
    folder = context.path(source.path)
    files = list_files(folder, context, wanted, other)
    if not files:
        raise DataError(f"{folder} has no file named like {wanted.pattern.strip('$')}")
    sheet = read_sheets(source, folder, context)
    context = _with_projects(context, sheet)
    by_patient = _whose(files, sheet, context, source)
    _note_absent(folder, sheet, wanted, context)
    if not by_patient:
        raise DataError(
            f"no file of {folder} is in a sample sheet; download it from the GDC cart and say "
            "`sample_sheet: gdc_sample_sheet.tsv` (or `metadata: metadata.cart.json`)"
        )
    kept = keep_types(by_patient, source.sample_types, context, source.path)
    if size is not None:
        kept = {
            patient: [replace(s, size=size(files[s.position])) for s in samples]
            if len(samples) > 1
            else samples
            for patient, samples in kept.items()
        }
    promised = read_sizes(folder, context.root)
    for file in files:
        for described in look_up(sheet, file):
            if described.size is not None:
                promised[file.name] = described.size
    return Download(files, rank(kept, source.sample_types, analyte, context), promised)


def _with_projects(context: ReadContext, sheet: Sheet) -> ReadContext:
    """Return the context with the sheet's projects for patients whose project is not known."""
    said = {
        patient: d.project
        for described in sheet.values()
        for d in described
        if d.project and (patient := context.patients.patient(d.case)) is not None
    }
    project = pd.Series(said, dtype=object)
    if context.project is not None:
        project = context.project.combine_first(project)
    return replace(context, project=project)


def list_files(
    folder: Path, context: ReadContext, wanted: re.Pattern[str], other: re.Pattern[str]
) -> list[Path]:
    """Return the files of the wanted name; what is unfinished, foreign or withdrawn is noted."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        inside = path.relative_to(folder)
        if "logs" in inside.parts[:-1]:
            continue
        if path.name.endswith(".partial"):
            context.note("dropped", "interrupted download", file=str(inside))
        elif other.search(path.name):
            reason = "of another workflow, whose values must not be mixed with these"
            context.note("dropped", reason, file=str(inside))
        elif wanted.search(path.name) and not _is_withdrawn(path, context, str(inside)):
            found.append(path)
    return found


def _is_withdrawn(path: Path, context: ReadContext, name: str) -> bool:
    """Return whether the GDC's annotation beside a file says not to use it."""
    annotation = path.parent / "annotations.txt"
    if not annotation.is_file():
        return False
    text = " ".join(annotation.read_text(encoding="utf-8", errors="replace").split())
    said = _WITHDRAWN.search(text)
    if said is not None:
        context.note("dropped", f"its annotations.txt says '{said[0]}'", file=name)
        return True
    context.note("warning", "has an annotations.txt, read it", file=name)
    return False


def look_up(sheet: Sheet, file: Path) -> list[Described]:
    """Return what the sheets say of a file, by its folder's name or its own."""
    return sheet.get(file.parent.name) or sheet.get(file.name) or []


def _whose(
    files: Sequence[Path], sheet: Sheet, context: ReadContext, source: GdcSource
) -> dict[str, list[Sample]]:
    by_patient: dict[str, list[Sample]] = {}
    unlisted = []
    for position, path in enumerate(files):
        described = look_up(sheet, path) or named_in(path.name)
        if not described:
            unlisted.append(path.name)
            context.note("dropped", "in no sample sheet, nobody knows whose it is", file=path.name)
            continue
        sample = pick_sample(described, path.name, context, source)
        if sample is not None:
            patient, one = sample
            by_patient.setdefault(patient, []).append(replace(one, position=position))
    if unlisted and by_patient:
        reason = f"{len(unlisted)} files are in no sample sheet: {some(unlisted, 2)}"
        context.note("warning", reason, file=source.path)
    return by_patient


def named_in(name: str) -> list[Described]:
    """Return what a barcode in a file name says; older files carry one."""
    found = _BARCODE_IN_NAME.search(name)
    barcode = parse_barcode(found[0]) if found else None
    if barcode is None:
        return []
    return [Described(barcode.patient, barcode.text, barcode.type, None, "")]


def pick_sample(
    described: list[Described], file: str, context: ReadContext, source: GdcSource
) -> tuple[str, Sample] | None:
    """Return patient and sample of a file; of several samples the one of an accepted type."""
    patients = {context.patients.patient(d.case or d.sample) for d in described} - {None}
    if len(patients) != 1:
        names = ", ".join(sorted(map(str, patients))) or "no patient"
        context.note("dropped", f"the sample sheet names {names} for it, not one", file=file)
        return None
    (patient,) = patients
    assert patient is not None
    accepted = source.sample_types or context.sample_types(patient)
    best = next((d for d in described if d.type in accepted), described[0])
    sample = Sample(
        best.sample or best.case, parse_barcode(best.sample), best.type, best.ffpe, file=file
    )
    return patient, sample


def _note_absent(folder: Path, sheet: Sheet, wanted: re.Pattern[str], context: ReadContext) -> None:
    here = {path.name for path in folder.rglob("*")}
    absent = sorted(name for name in sheet if wanted.search(name) and name not in here)
    if absent:
        reason = f"{len(absent)} files of the sample sheet were not downloaded: {some(absent, 2)}"
        context.note("warning", reason, file=folder.name)
