"""Wide matrices: features × samples or patients × features, from wherever."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.data.audit import some
from omnisurv.data.barcodes import Sample
from omnisurv.data.readers.context import ReadContext
from omnisurv.data.readers.names import NamedFeatures, drop_unmeasured, name_features
from omnisurv.data.readers.samples import (
    keep_types,
    name_samples,
    note_choice,
    note_strange,
    rank,
)
from omnisurv.data.readers.sniff import (
    Floats,
    sniff_ids,
    sniff_scale,
    sniff_types,
)
from omnisurv.data.readers.wide import ENTREZ, Wide, load_wide
from omnisurv.data.sources import MatrixSource
from omnisurv.data.tables import ID_COLUMNS
from omnisurv.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from anndata import AnnData

OUTCOME = re.compile(
    r"(OS|DSS|DFI|PFI|DFS|PFS)([._ ](time|months|status|days|event)(\.cr)?)?(\.\d)?"
    r"|(demographic\.)?(vital_status|days_to_death|cause_of_death)|censorship|death_days_to"
    r"|(diagnoses\.)?days_to_last_follow_?up|last_contact_days_to|survival_(months|days|time|status)",
    re.IGNORECASE,
)
"""Columns that tell the outcome, never inputs."""


def read_matrix(
    source: MatrixSource, context: ReadContext, kind: str, type: str | None = None
) -> "AnnData":
    """Return patients × features of a wide table; what was sniffed stands in the audit.

    Args:
        source: path and, where sniffing is not wanted, orientation, ids and scale.
        context: folder, patients and audit.
        kind: modality kind: ``rna``, ``dnam``, or ``table``, whose values have types.
        type: one type for all columns of a ``table``; sniffed by default.

    Raises:
        DataError: orientation, feature ids or scale are ambiguous, or the table cannot be used.
    """
    wide = load_wide(context.path(source.path), source.id_column)
    return read_wide(wide, source, context, kind, type)


def read_wide(
    wide: Wide, source: MatrixSource, context: ReadContext, kind: str, type: str | None = None
) -> "AnnData":
    """Return patients × features of a table that is loaded; see ``read_matrix``."""
    path = context.path(source.path)
    orientation = source.orientation or _sniff_orientation(wide, context, path)
    samples, raw, values = _orient(wide, orientation, source, context, path)
    by_patient, strange = name_samples(samples, context)
    note_strange(strange, context, source.path)
    if not by_patient:
        raise DataError(
            f"{path}: no id is of the kind 'patients: {{id: {context.patients.id}}}' "
            f"({some(list(samples), 2)}); say `patients: {{id: column}}`"
        )
    kept = keep_types(by_patient, source.sample_types, context, source.path)
    ranked = rank(kept, source.sample_types, "rna" if kind == "rna" else "dna", context)
    chosen = {p: _choose(p, group, values, context, path) for p, group in ranked.items()}
    ids = source.ids or sniff_ids(raw, str(path), strict=kind in ("rna", "dnam"))
    rows = np.array([sample.position for sample in chosen.values()])
    require_finite(values[rows], raw, str(path))
    named = name_features(raw, values[rows], ids)
    features = drop_unmeasured(named)
    scale = source.scale or sniff_scale(features.values, kind, str(path))
    _note_reading(named, orientation, ids, scale, source, context)
    for note in features.notes[len(named.notes) :]:
        context.note("warning", note, file=source.path)
    return _to_anndata(features, chosen, scale, kind, type, source.path)


def _sniff_orientation(wide: Wide, context: ReadContext, path: Path) -> str:
    """Return where the samples stand; raise DataError if on both sides or on none."""
    in_columns = _share_of_patients(list(wide.columns), context)
    in_rows = max(
        (_share_of_patients(list(wide.texts[c].dropna()), context) for c in wide.texts), default=0.0
    )
    if (in_columns >= 0.5) != (in_rows >= 0.5):
        return "features_x_samples" if in_columns >= 0.5 else "samples_x_features"
    if in_columns < 0.5:
        # No ids to tell by: genes and probes have names of their own.
        genes_in_columns = _looks_like_features(list(wide.columns))
        genes_in_rows = any(_looks_like_features(list(wide.texts[c])) for c in wide.texts)
        if genes_in_columns != genes_in_rows and context.patients.id == "column":
            return "samples_x_features" if genes_in_columns else "features_x_samples"
    rows = some([str(v) for v in wide.texts.iloc[:, 0]], 2) if len(wide.texts.columns) else "none"
    where = "both" if in_columns >= 0.5 else "neither"
    raise DataError(
        f"{path}: the orientation is ambiguous, {where} of rows ({rows}) and columns "
        f"({some(wide.columns, 2)}) look like patients; say `orientation: "
        "features_x_samples|samples_x_features`, and check `patients: {id: …}`"
    )


def _share_of_patients(names: list[object], context: ReadContext) -> float:
    if not names:
        return 0.0
    if context.patients.id == "column":
        return sum(str(name) in context.known for name in names) / len(names)
    return sum(context.patients.patient(name) is not None for name in names) / len(names)


def _looks_like_features(names: list[object]) -> bool:
    filled = pd.Index([str(name) for name in names if name])
    return bool(len(filled)) and sniff_ids(filled, "", strict=False) in ("ensembl", "probe")


def _orient(
    wide: Wide, orientation: str, source: MatrixSource, context: ReadContext, path: Path
) -> tuple["pd.Index[str]", "pd.Index[str]", Floats]:
    """Return samples, features and values (samples, features)."""
    if orientation == "features_x_samples":
        column = _column(wide, source.id_column, path) or str(wide.texts.columns[0])
        patterned = context.patients.id != "column" or bool(context.known)
        is_sample = np.array(
            [not patterned or _share_of_patients([name], context) > 0 for name in wide.columns]
        )
        if is_sample.any() and not is_sample.all():
            note_strange(list(wide.columns[~is_sample]), context, source.path)
            return (
                wide.columns[is_sample],
                _ids_with_entrez(wide, column),
                wide.values[:, is_sample].T,
            )
        return wide.columns, _ids_with_entrez(wide, column), wide.values.T
    column = _column(wide, source.id_column, path) or _best_id_column(wide, context, path)
    unused = [str(c) for c in wide.texts if c != column]
    outcome = np.array([OUTCOME.fullmatch(name) is not None for name in wide.columns])
    for names, why in (
        (unused, "columns of texts are no values"),
        (list(wide.columns[outcome]), "columns that tell the outcome are no inputs"),
    ):
        if names:
            context.note("warning", f"{why}, left out: {some(names)}", file=source.path)
    samples = pd.Index(wide.texts[column].astype(object).where(wide.texts[column].notna(), ""))
    return samples, wide.columns[~outcome], wide.values[:, ~outcome]


def _column(wide: Wide, name: str | None, path: Path) -> str | None:
    if name is not None and name not in wide.texts:
        raise DataError(f"{path} has no column '{name}'.{did_you_mean(name, wide.texts.columns)}")
    return name


def _ids_with_entrez(wide: Wide, column: str) -> "pd.Index[str]":
    """Return the feature ids; a blank symbol is replaced by cBioPortal's Entrez id."""
    ids = wide.texts[column]
    if column != ENTREZ and ENTREZ in wide.texts:
        entrez = pd.to_numeric(wide.texts[ENTREZ], errors="coerce")
        ids = ids.where(ids.notna(), entrez.map("?|{:.0f}".format, na_action="ignore"))
    return pd.Index(ids.where(ids.notna(), "").astype(str), dtype=object)


def _best_id_column(wide: Wide, context: ReadContext, path: Path) -> str:
    shares = {str(c): _share_of_patients(list(wide.texts[c]), context) for c in wide.texts}
    best = max(shares, key=lambda c: shares[c], default=None)
    if best is not None and shares[best] > 0:
        return best
    named = [str(c) for c in wide.texts if str(c).lower() in ID_COLUMNS]
    if named or len(shares) == 1:
        return (named or list(shares))[0]
    raise DataError(f"{path} has no column of patient ids; name it: `id_column:`")


def _choose(
    patient: str, ranked: list[Sample], values: Floats, context: ReadContext, path: Path
) -> Sample:
    """Return the best sample; raise DataError if nothing tells contradicting ones apart."""
    best, *others = ranked
    same = [s for s in others if s.name == best.name or s.barcode is None or not s.type]
    for other in same:
        if not np.array_equal(values[best.position], values[other.position], equal_nan=True):
            raise DataError(
                f"{path}: patient {patient} stands there more than once with different values "
                f"({best.name}, {other.name}); keep one"
            )
    note_choice(patient, best, others, context, path.name)
    return best


def require_finite(values: NDArray[np.floating[Any]], names: "pd.Index[str]", where: str) -> None:
    """Raise DataError if a value is infinite; ``values`` is (patients, features)."""
    infinite = np.isinf(values)
    if infinite.any():
        columns = names[infinite.any(axis=0)]
        raise DataError(
            f"{where}: {int(infinite.sum())} infinite values in {len(columns)} of {len(names)} "
            f"features ({some(columns, 3)}); leave empty what was not measured, and take "
            "log(x + 1) where it was the logarithm of 0"
        )


def _note_reading(
    features: NamedFeatures,
    orientation: str,
    ids: str,
    scale: str,
    source: MatrixSource,
    context: ReadContext,
) -> None:
    read_as = f"read as {orientation.replace('_x_', ' × ')}, {ids} ids, scale {scale}"
    context.note("kept", read_as, file=source.path)
    for note in features.notes:
        context.note("dropped", note, file=source.path)
    if scale == "z-score":
        context.note(
            "warning",
            "z-scores: their means and deviations were taken over the whole cohort, test "
            "patients included",
            file=source.path,
        )
    if scale == "log2" and source.scale is None:
        context.note("kept", "logs are taken for log2 (say `scale: ln` if not)", file=source.path)


def _to_anndata(
    features: NamedFeatures,
    chosen: dict[str, Sample],
    scale: str,
    kind: str,
    type: str | None,
    file: str,
) -> "AnnData":
    import anndata

    var = features.var
    if kind == "table":
        if type == "categorical":
            raise DataError(f"{file}: categories need `format: table`, a matrix holds numbers")
        types = [type] * len(var) if type else sniff_types(features.values)
        var = var.assign(type=types, feature=var.index.astype(str))
    obs = pd.DataFrame(
        {"sample": [s.name for s in chosen.values()]}, index=pd.Index(list(chosen), name="patient")
    )
    uns = {"scale": scale if kind != "table" else "table", "source": file}
    return anndata.AnnData(np.ascontiguousarray(features.values), obs=obs, var=var, uns=uns)
