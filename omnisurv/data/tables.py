"""Clinical tables as people have them: GDC, biotab, cBioPortal, Xena, TCGA-CDR, one's own."""

import gzip
import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from omnisurv.data.audit import AuditLog, some
from omnisurv.data.spec import PatientRule
from omnisurv.errors import DataError, did_you_mean

MISSING = frozenset(
    (
        *("", "'--", "--", "-", ".", "na", "n/a", "#n/a", "nan", "null"),
        *("unknown", "not_reported", "not_available", "not_applicable", "not_evaluated"),
        *("[unknown]", "[not_available]", "[not_applicable]", "[not_evaluated]"),
        *("[discrepancy]", "[pending]", "[redacted]"),
    )
)
"""Tokens that mean missing, in lower case, blanks as underscores."""

ID_COLUMNS = (
    "patient",
    "patient_id",
    "patientid",
    "_patient",
    "bcr_patient_barcode",
    "case_submitter_id",
    "cases.submitter_id",
    "submitter_id",
    "case id",
    "case_id",
    "subject_id",
    "sample",
    "sampleid",
    "sample_id",
    "barcode",
    "id",
)
"""Names under which patient ids are looked for, best first, in lower case."""

_PREFIXES = (
    "cases|demographic|diagnoses|treatments|follow_ups|exposures|family_histories|project|samples"
)
_PREFIX = re.compile(rf"^(?:(?:{_PREFIXES})\.)+")


def load_table(path: Path) -> pd.DataFrame:
    """Return a table of texts, NaN where it says in whatever way that a value is missing.

    Raises:
        DataError: the file cannot be read as a table.
    """
    try:
        frame = _read(path)
    except DataError:
        raise
    except (OSError, EOFError, KeyError, ValueError, UnicodeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path} cannot be read as a table: {reason}") from None
    frame = frame.loc[:, [c for c in frame if not str(c).startswith("Unnamed:")]]
    frame.columns = pd.Index([str(c).strip() for c in frame.columns])
    twice = frame.columns[frame.columns.duplicated()].unique()
    if len(twice):
        raise DataError(f"{path} has more than one column '{twice[0]}'; rename or remove one")
    frame = _without_biotab_rows(frame).apply(_hide_missing)
    if frame.empty:
        raise DataError(f"{path} has no rows")
    return frame.reset_index(drop=True)


def bare(name: str) -> str:
    """Return a column's name in lower case, without the GDC portal's prefix."""
    return _PREFIX.sub("", name).lower()


def find_column(frame: pd.DataFrame, name: str, where: str) -> str:
    """Return the column called ``name``, with or without the GDC portal's prefix.

    Raises:
        DataError: there is none, or more than one; the nearest name is offered.
    """
    if name in frame:
        return name
    found = [str(c) for c in frame if bare(str(c)) == bare(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{where} has several columns '{name}': {', '.join(found)}; name one fully")
    raise DataError(f"{where} has no column '{name}'.{did_you_mean(name, map(str, frame.columns))}")


def has_column(frame: pd.DataFrame, name: str) -> str | None:
    """Return the column called ``name``, prefixed or not; None if there is none."""
    try:
        return find_column(frame, name, "")
    except DataError:
        return None


def index_by_patient(
    frame: pd.DataFrame, rule: PatientRule, where: str, id_column: str | None = None
) -> pd.DataFrame:
    """Return the table with patient ids as index; rows without one are left out.

    Raises:
        DataError: no column holds patient ids.
    """
    column = find_column(frame, id_column, where) if id_column else _sniff_ids(frame, rule, where)
    patients = frame[column].map(lambda v: rule.patient(v) if isinstance(v, str) else None)
    if patients.isna().all():
        examples = some([str(v) for v in frame[column].dropna()], 2)
        raise DataError(
            f"{where}: column '{column}' holds no ids of the kind 'patients: {{id: {rule.id}}}' "
            f"({examples}); say `patients: {{id: column}}` or name the id column"
        )
    table = frame[patients.notna()].drop(columns=column)
    table.index = pd.Index(patients.dropna(), name="patient", dtype=object)
    return table


def primary_rows(table: pd.DataFrame, audit: AuditLog, where: str) -> pd.DataFrame:
    """Return of each patient the rows of the disease that the cohort is about.

    GDC lists several diagnoses of some cases: the primary disease if it says so, else the
    earliest.
    """
    several = table.index.duplicated(keep=False)
    rules = [
        (column, rule)
        for name, rule in _PRIMARY_RULES
        if (column := has_column(table, name)) is not None
    ]
    if not several.any() or not rules:
        return table
    position = pd.Series(np.arange(len(table)), index=table.index)
    dropped: set[int] = set()
    for patient, places in position[several].groupby(level=0):
        rows = table.iloc[places.to_numpy()]
        kept = np.ones(len(rows), dtype=bool)
        for column, rule in rules:
            wanted = rule(rows[column].where(kept)).to_numpy() & kept
            kept = wanted if wanted.any() else kept
        if not kept.all():
            dropped |= set(places.to_numpy()[~kept])
            audit.add(
                "dropped",
                f"{int((~kept).sum())} of {len(rows)} rows are of another diagnosis than the "
                "primary or earliest",
                file=where,
                patient=str(patient),
            )
    return table.iloc[[i for i in range(len(table)) if i not in dropped]]


def one_per_patient(values: "pd.Series[Any]", where: str) -> "pd.Series[Any]":
    """Return one value for each patient; NaN where no row has one.

    Raises:
        DataError: rows of a patient contradict each other.
    """
    if values.index.is_unique:
        return values
    known = values.dropna()
    distinct = known.groupby(level=0).nunique()
    clashing = distinct.index[distinct > 1]
    if len(clashing):
        patient = clashing[0]
        both = some(sorted(known.loc[[patient]].astype(str).unique()), 3)
        more = f" (and {len(clashing) - 1} more patients)" if len(clashing) > 1 else ""
        raise DataError(
            f"{where}: column '{values.name}' has several values for {patient}: {both}{more}; "
            "keep one row per patient"
        )
    return known.groupby(level=0).first().reindex(values.index.unique())


def to_number(values: "pd.Series[Any]", where: str) -> "pd.Series[float]":
    """Return texts as numbers.

    Raises:
        DataError: a value is none; it and its patient are named.
    """
    numbers = pd.to_numeric(values, errors="coerce")
    wrong = values[numbers.isna() & values.notna()]
    if len(wrong):
        raise DataError(
            f"{where}: column '{values.name}' has '{wrong.iloc[0]}' for {wrong.index[0]} where a "
            "number is needed"
        )
    return numbers.astype(float)


def _smallest(values: "pd.Series[Any]") -> "pd.Series[bool]":
    numbers = pd.to_numeric(values, errors="coerce")
    smallest: pd.Series[bool] = numbers == numbers.min()
    return smallest


def _says(word: str) -> Any:
    return lambda values: values.astype(str).str.strip().str.lower() == word


_PRIMARY_RULES = (
    ("diagnosis_is_primary_disease", _says("true")),
    ("classification_of_tumor", _says("primary")),
    ("days_to_diagnosis", _smallest),
    ("age_at_diagnosis", _smallest),
)


def _read(path: Path) -> pd.DataFrame:
    if path.suffix in (".xlsx", ".xls"):
        return _read_excel(path)
    if path.suffix in (".parquet", ".pq"):
        frame = pd.read_parquet(path)
        named = frame.index.name is not None or not isinstance(frame.index, pd.RangeIndex)
        frame = frame.reset_index(names=frame.index.name or "patient") if named else frame
        return frame.astype(object).where(frame.notna(), "").astype(str)
    if path.suffix in (".h5mu", ".h5ad"):
        return _read_obs(path)
    comments, header = peek(path)
    return pd.read_csv(
        path,
        sep=separator(header),
        dtype=str,
        keep_default_na=False,
        skiprows=comments,
        encoding="utf-8-sig",
        encoding_errors="replace",
    )


def _read_obs(path: Path) -> pd.DataFrame:
    """Return what stands of the patients in an AnnData or MuData file."""
    import h5py
    from anndata.io import read_elem

    with h5py.File(path, "r") as file:
        frame = read_elem(file["obs"])
    frame = frame.rename_axis("patient").reset_index()
    return frame.astype(object).where(frame.notna(), "").astype(str)


def _read_excel(path: Path) -> pd.DataFrame:
    if importlib.util.find_spec("openpyxl") is None:
        raise DataError(f"{path} is an Excel file: save it as TSV, or `pip install openpyxl`")
    with pd.ExcelFile(path) as book:
        sheet = "TCGA-CDR" if "TCGA-CDR" in book.sheet_names else book.sheet_names[0]
        return book.parse(sheet, dtype=str, keep_default_na=False)


def peek(path: Path) -> tuple[int, str]:
    """Return how many comment lines a text table starts with, and its header line."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines):
            if not line.startswith("#"):
                return number, line.rstrip("\r\n")
    raise DataError(f"{path} is empty")


def separator(header: str) -> str:
    """Return the character that separates the columns of a header line."""
    return max("\t,;", key=header.count) if any(c in header for c in "\t,;") else "\t"


def _without_biotab_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Drop the two extra header rows of TCGA biotab files."""
    for row in range(min(2, len(frame))):
        if frame.iloc[row].astype(str).str.startswith("CDE_ID").any():
            return frame.iloc[row + 1 :]
    return frame


def _hide_missing(column: "pd.Series[Any]") -> "pd.Series[Any]":
    text = column.astype(str).str.strip()
    token = text.str.lower().str.replace(" ", "_", regex=False)
    return text.astype(object).where(~token.isin(MISSING), np.nan)


def _sniff_ids(frame: pd.DataFrame, rule: PatientRule, where: str) -> str:
    by_name = {str(c).lower(): str(c) for c in frame}
    named = [by_name[name] for name in ID_COLUMNS if name in by_name]
    if rule.id == "column":
        if named:
            return named[0]
        columns = some([str(c) for c in frame])
        raise DataError(
            f"{where} has no column of patient ids (columns: {columns}); name it: `id:`"
        )
    for column in _unique([*named, *map(str, frame.columns)]):
        values = frame[column].dropna().head(200)
        if len(values) and values.map(lambda v: rule.patient(v) is not None).mean() >= 0.5:
            return column
    raise DataError(
        f"{where} has no column of ids of the kind 'patients: {{id: {rule.id}}}' (columns: "
        f"{some([str(c) for c in frame])}); name it with `id:` or say `patients: {{id: column}}`"
    )


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
