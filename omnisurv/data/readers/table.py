"""Clinical tables: columns of declared type, to numbers."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from omnisurv.data.audit import some
from omnisurv.data.readers.context import ReadContext
from omnisurv.data.readers.matrix import OUTCOME, require_finite
from omnisurv.data.sources import TableSource
from omnisurv.data.tables import (
    find_column,
    index_by_patient,
    one_per_patient,
    primary_rows,
    to_number,
)
from omnisurv.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData

POST_BASELINE = re.compile(
    r"radiation|pharmaceutical|chemo|treatment|therap|drug|new_tumor_event|tumor_status",
    re.IGNORECASE,
)
BASELINE = re.compile(r"prior_|neoadjuvant|before", re.IGNORECASE)
AGE = re.compile(r"(^|[._])age([._]|$)", re.IGNORECASE)
MANY_LEVELS = 10
"""Texts with more levels than this are not taken unless they are declared."""
YES_NO = ({"no", "yes"}, {"false", "true"}, {"0", "1"}, {"wt", "mutant"}, {"negative", "positive"})


class ColumnRule(Protocol):
    """Type of a column, and its levels in order."""

    @property
    def type(self) -> str:
        """continuous, binary, ordinal or categorical."""

    @property
    def levels(self) -> Sequence[str] | None:
        """Levels in order; None where they are sniffed."""


class _Encoded:
    """Columns of numbers with their types, in the making."""

    def __init__(self) -> None:
        self.values: dict[str, np.ndarray[Any, Any]] = {}
        self.rows: list[tuple[str, str]] = []
        self.levels: dict[str, list[str]] = {}

    def add(self, name: str, values: "pd.Series[Any]", type: str, feature: str) -> None:
        self.values[name] = values.to_numpy(dtype=float)
        self.rows.append((type, feature))


def read_table(
    source: TableSource, context: ReadContext, columns: Mapping[str, ColumnRule] | None
) -> "AnnData":
    """Return patients × features of a clinical table; NaN is not known.

    Continuous and ordinal columns are one feature, binary ones 0 or 1, categorical ones a
    binary feature ``column=level`` for each level. ``uns["levels"]`` names the levels.

    Args:
        source: path and id column.
        context: folder, patients and audit.
        columns: what to take and how; None takes what looks usable.

    Raises:
        DataError: no such column, or values that do not fit the declared type.
    """
    where = source.path
    table = index_by_patient(context.table(where), context.patients, where, source.id)
    table = primary_rows(table, context.audit, where)
    encoded = _Encoded()
    rules = columns if columns is not None else _sniff(table, context, where)
    for name, rule in rules.items():
        column = find_column(table, name, where)
        if POST_BASELINE.search(name) and not BASELINE.search(name):
            context.note(
                "warning",
                f"'{name}' is known only after the start of follow-up: patients must live long "
                "enough to get a treatment (immortal-time bias)",
                file=where,
                column=name,
            )
        values = one_per_patient(_merge_treatments(table[column]).rename(column), where)
        if values.isna().all():
            raise DataError(_no_value(column, table, where))
        _encode(name, values, rule, encoded, context, where)
    if not encoded.values:
        raise DataError(f"{where} has no usable column; name them under `columns:`")
    numbers = np.column_stack(list(encoded.values.values()))
    require_finite(numbers, pd.Index(encoded.values), where)
    return _to_anndata(encoded, table.index.unique(), where)


def _no_value(name: str, table: pd.DataFrame, where: str) -> str:
    """Say that a column named in the spec is empty, and which others are not."""
    others = [c for c in map(str, table) if not OUTCOME.fullmatch(c) and table[c].notna().any()]
    near = difflib.get_close_matches(name, others, n=3, cutoff=0.5)
    return (
        f"{where}: column '{name}' has no value for any patient; remove it from `columns`, or name "
        f"one that has: {some(near or others, 3)}"
    )


def _encode(
    name: str,
    values: "pd.Series[Any]",
    rule: ColumnRule,
    encoded: _Encoded,
    context: ReadContext,
    where: str,
) -> None:
    if rule.type == "continuous":
        numbers = _in_years(to_number(values, where), name, context, where)
        encoded.add(name, numbers, "continuous", name)
        return
    texts = values.map(_plain, na_action="ignore")
    levels = _levels(name, texts, rule, where)
    texts = _hide_unknown(name, texts, levels, context, where)
    encoded.levels[name] = levels
    if rule.type == "categorical":
        for level in levels:
            chosen = (texts == level).astype(float).where(texts.notna())
            encoded.add(f"{name}={level}", chosen, "binary", name)
        return
    if rule.type == "ordinal" and rule.levels is None and _numeric(levels):
        encoded.add(name, texts.astype(float), "ordinal", name)
        return
    place = {level: number for number, level in enumerate(levels)}
    encoded.add(name, texts.map(place).astype(float), rule.type, name)


def _levels(name: str, texts: "pd.Series[Any]", rule: ColumnRule, where: str) -> list[str]:
    if rule.levels is not None:
        return [_plain(level) for level in rule.levels]
    found = sorted(texts.dropna().unique(), key=lambda t: (not _numeric([t]), _order(t)))
    if rule.type == "binary":
        if len(found) > 2:
            raise DataError(
                f"{where}: column '{name}' is declared binary and has {len(found)} values "
                f"({some(found)}); declare it categorical, or name two `levels`"
            )
        known = next((sorted(pair) for pair in YES_NO if {f.lower() for f in found} <= pair), None)
        if known is not None:
            if known == ["mutant", "wt"]:
                known = ["wt", "mutant"]
            # Whether or not both occur here, 1 means the same in every cohort.
            by_lower = {f.lower(): f for f in found}
            return [by_lower.get(level, level) for level in known]
    if rule.type == "ordinal" and not _numeric(found) and not _self_evident(found):
        raise DataError(
            f"{where}: column '{name}' is declared ordinal, but the order of {some(found)} is not "
            f"known; say `{name}: {{type: ordinal, levels: [low, …, high]}}`"
        )
    return found


def _hide_unknown(
    name: str, texts: "pd.Series[Any]", levels: list[str], context: ReadContext, where: str
) -> "pd.Series[Any]":
    """Return texts in the spelling of the levels; what is none of them is missing."""
    spelling = {level.lower(): level for level in levels}
    spelled = texts.map(lambda t: spelling.get(t.lower()), na_action="ignore")
    strange = texts[spelled.isna() & texts.notna()]
    if len(strange) == texts.notna().sum():
        raise DataError(
            f"{where}: column '{name}' has none of its levels {levels}, but "
            f"{some(sorted(strange.unique()))}"
        )
    if len(strange):
        context.note(
            "warning",
            f"column '{name}': {some(sorted(strange.unique()))} is none of its levels, "
            f"missing for {len(strange)} patients",
            file=where,
            column=name,
        )
    return spelled


def _in_years(
    numbers: "pd.Series[float]", name: str, context: ReadContext, where: str
) -> "pd.Series[float]":
    """Return an age in years; the GDC gives some in days."""
    if AGE.search(name) and float(numbers.abs().median()) > 150:
        context.note(
            "warning",
            f"'{name}' is in days (median {numbers.median():.0f}), read as years",
            file=where,
            column=name,
        )
        return numbers / 365.25
    return numbers


def _merge_treatments(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return yes for a patient of whom any treatment row says yes."""
    said = values.dropna().astype(str).str.lower()
    if values.index.is_unique or not len(said) or not set(said) <= {"yes", "no"}:
        return values
    yes = said.index[said == "yes"]
    return values.where(~(values.index.isin(yes) & values.notna()), "yes")


def _sniff(table: pd.DataFrame, context: ReadContext, where: str) -> dict[str, "_Sniffed"]:
    rules: dict[str, _Sniffed] = {}
    left_out = []
    for name in map(str, table.columns):
        rule = None if OUTCOME.fullmatch(name) else _sniff_column(table[name].dropna())
        if rule is None:
            left_out.append(name)
        else:
            rules[name] = rule
    if left_out:
        context.note(
            "warning",
            f"columns left out (outcome, constant, or texts of more than {MANY_LEVELS} levels): "
            f"{some(left_out, 20)}",
            file=where,
        )
    return rules


class _Sniffed:
    """The type a column looks like."""

    def __init__(self, type: str) -> None:
        self.type = type
        self.levels: Sequence[str] | None = None


def _sniff_column(values: "pd.Series[Any]") -> _Sniffed | None:
    distinct = values.nunique()
    if distinct < 2:
        return None
    if distinct == 2:
        return _Sniffed("binary")
    if pd.to_numeric(values, errors="coerce").notna().all():
        return _Sniffed("continuous")
    return _Sniffed("categorical") if distinct <= MANY_LEVELS else None


def _plain(value: object) -> str:
    """Return ``1`` for ``1.0``: a table with gaps writes whole numbers so."""
    text = str(value).strip()
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def _numeric(texts: Sequence[str]) -> bool:
    return all(re.fullmatch(r"-?\d+(\.\d+)?", text) for text in texts)


def _order(text: str) -> tuple[float, str]:
    return (float(text), "") if _numeric([text]) else (0.0, text)


def _self_evident(levels: Sequence[str]) -> bool:
    """Return whether levels are one word and a number each: G2 G3 G4, t1 t2."""
    found = [re.fullmatch(r"([A-Za-z]*)\s?(\d)", level) for level in levels]
    return all(found) and len({m[1].lower() for m in found if m}) == 1


def _to_anndata(encoded: _Encoded, patients: "pd.Index[str]", where: str) -> "AnnData":
    import anndata

    values = np.column_stack(list(encoded.values.values())).astype(np.float32)
    var = pd.DataFrame(
        encoded.rows, columns=["type", "feature"], index=pd.Index(encoded.values, name="feature_id")
    )
    known = np.flatnonzero(np.isfinite(values).any(axis=1))
    obs = pd.DataFrame(index=patients[known].rename("patient"))
    uns = {"scale": "table", "levels": encoded.levels, "source": where}
    return anndata.AnnData(values[known], obs=obs, var=var, uns=uns)
