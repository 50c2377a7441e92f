"""What the GDC says of each file: old and new sample sheets, and the cart's metadata."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from omnisurv.data.barcodes import parse_barcode, project_code
from omnisurv.data.readers.context import ReadContext
from omnisurv.data.sources import GdcSource
from omnisurv.data.tables import load_table
from omnisurv.errors import DataError

TYPE_CODES = {
    "primary tumor": "01",
    "recurrent tumor": "02",
    "primary blood derived cancer - peripheral blood": "03",
    "recurrent blood derived cancer - bone marrow": "04",
    "additional - new primary": "05",
    "metastatic": "06",
    "additional metastatic": "07",
    "primary blood derived cancer - bone marrow": "09",
    "blood derived normal": "10",
    "solid tissue normal": "11",
    "buccal cell normal": "12",
    "bone marrow normal": "14",
    "control analyte": "20",
    "cell lines": "50",
}
"""Sample types of the old sheets."""
DESCRIPTOR_CODES = {
    "primary": "01",
    "recurrence": "02",
    "new primary": "05",
    "metastatic": "06",
}
"""Tumour descriptors of the new sheets, where the tissue is tumour."""


@dataclass(frozen=True)
class Described:
    """A sample that a file is of; a file may be of several."""

    case: str
    sample: str
    type: str
    ffpe: bool | None
    project: str
    size: int | None = None
    """Bytes the file should have."""


Sheet = dict[str, list[Described]]
"""What is said of a file, by file id and by file name."""


def read_sheets(source: GdcSource, folder: Path, context: ReadContext) -> Sheet:
    """Return what sample sheets and metadata say of each file; empty if there are none.

    The sheet's sample counts; the metadata's aliquot completes it.
    """
    sheet: Sheet = {}
    places = (folder, context.root)
    for path in _find(source.sample_sheet, ("gdc_sample_sheet*.tsv*",), places, context):
        if path.suffix == ".json":
            _add(sheet, _read_metadata(path))
        else:
            _add(sheet, _read_sample_sheet(path))
    for path in _find(source.metadata, ("metadata.*.json", "metadata.json"), places, context):
        _add(sheet, _read_metadata(path))
    return sheet


def _find(
    named: Sequence[str] | None,
    default: Sequence[str],
    places: Sequence[Path],
    context: ReadContext,
) -> list[Path]:
    if named is None:
        found = [p for place in places for pattern in default for p in sorted(place.glob(pattern))]
        return list(dict.fromkeys(p for p in found if p.is_file()))
    paths: list[Path] = []
    for name in named:
        matches = sorted(context.root.glob(name)) if "*" in name else [context.path(name)]
        if not matches:
            raise DataError(f"no sample sheet matches {context.root / name}")
        paths += matches
    return paths


def _add(sheet: Sheet, more: Sheet) -> None:
    for key, described in more.items():
        known = sheet.get(key)
        sheet[key] = described if known is None else _complete(known, described)


def _complete(known: list[Described], more: list[Described]) -> list[Described]:
    """Return the samples of the first source with the aliquots and sizes of the second."""
    completed = []
    for one in known:
        match = next((m for m in more if m.sample.startswith(one.sample)), None)
        if match is not None and one.sample:
            ffpe = one.ffpe if one.ffpe is not None else match.ffpe
            one = replace(one, sample=match.sample, ffpe=ffpe)
        completed.append(replace(one, size=one.size or more[0].size))
    return completed


def _read_sample_sheet(path: Path) -> Sheet:
    table = load_table(path)
    lower = {str(c).strip().lower(): str(c) for c in table}
    needed = ("file id", "file name", "case id")
    missing = [name for name in needed if name not in lower]
    if missing:
        raise DataError(f"{path} is no GDC sample sheet: it has no column '{missing[0].title()}'")
    sheet: Sheet = {}
    for row in table.to_dict("records"):
        cells = {name: _cells(row.get(column)) for name, column in lower.items()}
        described = _describe(cells)
        for key in (cells["file id"], cells["file name"]):
            if key:
                sheet[key[0]] = described
    return sheet


def _cells(value: Any) -> list[str]:
    """Return the parts of a cell that names several samples."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else []


def _describe(cells: dict[str, list[str]]) -> list[Described]:
    count = max(len(cells["case id"]), len(cells.get("sample id", [])))

    def cell(name: str, place: int) -> str:
        parts = cells.get(name, [])
        return parts[place] if place < len(parts) else (parts[0] if len(parts) == 1 else "")

    return [
        Described(
            case=cell("case id", place),
            sample=cell("sample id", place),
            type=_type_code(
                cell("sample id", place),
                cell("sample type", place),
                cell("tissue type", place),
                cell("tumor descriptor", place),
            ),
            ffpe=_is_ffpe(cell("preservation method", place)),
            project=project_code(cell("project id", place)),
        )
        for place in range(count)
    ]


def _type_code(sample: str, sample_type: str, tissue: str, descriptor: str) -> str:
    """Return the two-digit sample type: the barcode's, else what the sheet says in words."""
    barcode = parse_barcode(sample)
    if barcode is not None and barcode.type:
        return barcode.type
    if sample_type:
        return TYPE_CODES.get(sample_type.lower(), sample_type)
    if tissue.lower() == "tumor":
        return DESCRIPTOR_CODES.get(descriptor.lower(), descriptor)
    return "11" if tissue.lower() == "normal" else ""


def _is_ffpe(method: str) -> bool | None:
    return "ffpe" in method.lower() or "formalin" in method.lower() if method else None


def _read_metadata(path: Path) -> Sheet:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {
            key: described
            for entry in entries
            if (described := _describe_entry(entry))
            for key in (entry.get("file_id"), entry.get("file_name"))
            if key
        }
    except (json.JSONDecodeError, AttributeError, TypeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no GDC metadata: {error}") from None


def _describe_entry(entry: dict[str, Any]) -> list[Described]:
    cases = {case.get("case_id"): case for case in entry.get("cases", [])}
    described = []
    for entity in entry.get("associated_entities", []):
        case: dict[str, Any] = cases.get(entity.get("case_id")) or next(iter(cases.values()), {})
        aliquot = str(entity.get("entity_submitter_id", ""))
        barcode = parse_barcode(aliquot)
        sample = _sample_of(case, aliquot)
        described.append(
            Described(
                case=case.get("submitter_id") or (barcode.patient if barcode else aliquot),
                sample=aliquot,
                type=_type_code(
                    aliquot,
                    sample.get("sample_type") or "",
                    sample.get("tissue_type") or "",
                    sample.get("tumor_descriptor") or "",
                ),
                ffpe=_is_ffpe(sample.get("preservation_method") or ""),
                project=project_code((case.get("project") or {}).get("project_id", "")),
                size=entry.get("file_size"),
            )
        )
    return described


def _sample_of(case: dict[str, Any], aliquot: str) -> dict[str, Any]:
    samples: list[dict[str, Any]] = case.get("samples", [])
    mine = (s for s in samples if aliquot.startswith(str(s.get("submitter_id"))))
    return next(mine, samples[0] if len(samples) == 1 else {})


def read_sizes(folder: Path, root: Path) -> dict[str, int]:
    """Return the bytes that a download manifest promises of each file name."""
    sizes: dict[str, int] = {}
    names = ["id", "filename", "md5", "size", "state"]
    for path in (p for place in (folder, root) for p in sorted(place.glob("*manifest*.txt"))):
        table = pd.read_csv(path, sep="\t", dtype=str, header=None)
        if "filename" in set(table.iloc[0]):
            names = [str(name) for name in table.iloc[0]]
            table = table.iloc[1:]
        # Manifests without a header go round.
        table.columns = pd.Index([*names, *map(str, range(99))][: table.shape[1]])
        if {"filename", "size"} <= set(table):
            numbers = pd.to_numeric(table["size"], errors="coerce")
            known = zip(table["filename"], numbers, strict=True)
            sizes |= {str(name): int(size) for name, size in known if size == size}
    return sizes
