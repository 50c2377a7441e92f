"""From a data spec to a cohort: endpoint, labels, modalities, groups, and checks across them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from omnisurv.data.audit import AuditLog, some
from omnisurv.data.barcodes import parse_barcode, project_code
from omnisurv.data.censorship import question_times
from omnisurv.data.endpoint import read_endpoint
from omnisurv.data.images import Data, Images
from omnisurv.data.readers.context import ReadContext
from omnisurv.data.segmentation import shared_cube
from omnisurv.data.spec import DataSpec, Label, Splits
from omnisurv.data.store import Store, default_folder
from omnisurv.data.tables import (
    find_column,
    has_column,
    index_by_patient,
    one_per_patient,
    primary_rows,
)
from omnisurv.errors import DataError
from omnisurv.registry import modalities as kinds

Parts = tuple[pd.DataFrame, dict[str, Data], pd.DataFrame, Images | None]

PROJECT_COLUMNS = ("project_id", "project.project_id", "cases.project_id", "project", "type",
                   "cancer type abbreviation")  # fmt: skip
HOSPITAL = "tissue_source_site"
"""Group column that TCGA barcodes carry themselves."""


def assemble(spec: DataSpec, root: Path, store: Store | None = None) -> Parts:
    """Return obs, modalities, audit and label maps of the cohort.

    Args:
        spec: what the cohort is made of.
        root: folder of its files.
        store: where pictures are decoded to; the user's cache by default.

    Raises:
        DataError: a file cannot be used, tables share no patient, or a modality has nobody.
    """
    audit = AuditLog()
    store = store or Store(default_folder())
    context = ReadContext(root, spec.patients, audit=audit, modality="endpoint", store=store)
    endpoint, project = _read_endpoint(spec, context)
    labels = pd.DataFrame(
        {n: _read_label(n, label, context.named("labels")) for n, label in spec.labels.items()}
    )
    if spec.endpoint is not None:
        table = _indexed(spec.endpoint.table, spec.endpoint.id, context)
        doubt = question_times(endpoint, spec.endpoint, table, labels)
        if doubt is not None:
            context.note("warning", doubt)
    known = frozenset(map(str, endpoint.index.union(labels.index)))
    reading = replace(context, project=project, modality="", known=known)
    modalities = {name: _read_modality(spec, name, reading) for name in spec.modalities}
    endpoint, modalities = _without_redacted(spec, endpoint, modalities, context)
    patients = _join(spec, endpoint, modalities, audit)
    obs = endpoint.reindex(patients).join(labels.reindex(patients))
    _add_splits(obs, spec, context.named("splits"))
    label_maps = _read_label_maps(spec, modalities, context.named("segmentation"))
    return obs, modalities, audit.frame(), label_maps


def _read_endpoint(
    spec: DataSpec, context: ReadContext
) -> tuple[pd.DataFrame, "pd.Series[Any] | None"]:
    """Return time and event, and the project of each patient if the table says it."""
    if spec.endpoint is None:
        return pd.DataFrame({"time": [], "event": []}, index=pd.Index([], dtype=object)), None
    frame = read_endpoint(spec.endpoint, context)
    table = _indexed(spec.endpoint.table, spec.endpoint.id, context)
    for name in PROJECT_COLUMNS:
        column = has_column(table, name)
        if column is not None:
            project = table[column].dropna().map(project_code)
            return frame, project[~project.index.duplicated()]
    return frame, None


def _indexed(table: str, id_column: str | None, context: ReadContext) -> pd.DataFrame:
    return index_by_patient(context.table(table), context.patients, table, id_column)


def _read_label(name: str, label: Label, context: ReadContext) -> "pd.Series[Any]":
    table = primary_rows(_indexed(label.table, label.id, context), context.audit, label.table)
    column = find_column(table, label.column, label.table)
    values = one_per_patient(table[column].rename(column), label.table)
    classes = label.classes
    if classes is None:
        return pd.Series(pd.Categorical(values), index=values.index, name=name)
    meaning = _meaning(classes)
    mapped = values.map(lambda v: meaning.get(str(v).lower()), na_action="ignore")
    strange = values[mapped.isna() & values.notna()]
    if mapped.isna().all():
        raise DataError(
            f"{label.table}: column '{column}' has none of the classes {list(classes)} of label "
            f"'{name}', but {some(sorted(strange.astype(str).unique()))}"
        )
    if len(strange):
        context.note(
            "warning",
            f"'{name}' is unknown for {len(strange)} patients whose {column} is "
            f"{some(sorted(strange.astype(str).unique()))}",
            file=label.table,
            column=column,
        )
    return pd.Series(pd.Categorical(mapped, list(classes)), index=values.index, name=name)


def _meaning(classes: tuple[str, ...] | Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Return the class that each value (in lower case) means."""
    if isinstance(classes, Mapping):
        return {value.lower(): name for name, values in classes.items() for value in values}
    # The GDC writes TCGA-LGG for LGG.
    return {f"{prefix}{name}".lower(): name for name in classes for prefix in ("tcga-", "")}


def _read_modality(spec: DataSpec, name: str, context: ReadContext) -> Data:
    part = spec.modalities[name]
    kind = kinds.get(part.kind)
    modality = kind(name, kind.Options(**part.options))
    mine = context.named(name)
    try:
        data: Data = modality.read(part.source, mine)
    except DataError as error:
        raise DataError(f"modality '{name}': {error}") from None
    _check_values(data, name, mine, part.source.path)
    return data


def _read_label_maps(
    spec: DataSpec, modalities: Mapping[str, Data], context: ReadContext
) -> Images | None:
    if spec.segmentation is None:
        return None
    from omnisurv.data.readers.labels import read_labels

    scans = {
        name: data
        for name, data in modalities.items()
        if spec.modalities[name].kind == "mri" and isinstance(data, Images)
    }
    cube = shared_cube(spec.modalities, spec.name)
    try:
        return read_labels(spec.segmentation, context, cube, scans)
    except DataError as error:
        raise type(error)(f"segmentation: {error}") from None


def _check_values(data: Data, name: str, context: ReadContext, file: str) -> None:
    """Raise DataError if nobody has the modality; warn of zeros that may mean missing."""
    if isinstance(data, Images):
        if not len(data):
            raise DataError(f"modality '{name}': nobody has it, {file} holds no picture; remove it")
        return
    values = np.asarray(data.X)
    if not values.size or not np.isfinite(values).any():
        raise DataError(f"modality '{name}': nobody has it, {file} holds no value; remove it")
    if not np.nan_to_num(values).any():
        reason = "all values are 0: zeros are values, leave out what was not measured"
        context.note("warning", reason, file=file)
        return
    counted = data.uns.get("scale") != "table" or set(data.var["type"]) == {"continuous"}
    zero = np.isfinite(values).any(axis=1) & ~np.nan_to_num(values).any(axis=1)
    if counted and zero.any():
        context.note(
            "warning",
            f"all values are 0 for {int(zero.sum())} patients ({some(data.obs_names[zero])}): "
            "zeros are values, leave out who was not measured",
            file=file,
        )


def _without_redacted(
    spec: DataSpec, endpoint: pd.DataFrame, modalities: dict[str, Data], context: ReadContext
) -> tuple[pd.DataFrame, dict[str, Data]]:
    """Leave out the patients whom TCGA-CDR calls redacted: they are not of this disease."""
    if spec.endpoint is None:
        return endpoint, modalities
    table = _indexed(spec.endpoint.table, spec.endpoint.id, context)
    column = has_column(table, "Redaction")
    if column is None or table[column].isna().all():
        return endpoint, modalities
    redacted = table.index[table[column].notna()].unique()
    for patient in redacted:
        reason = "redacted: left out of the cohort"
        context.note("dropped", reason, file=spec.endpoint.table, patient=str(patient))
    left = {name: data[~data.obs_names.isin(redacted)].copy() for name, data in modalities.items()}
    return endpoint.drop(redacted), left


def _join(
    spec: DataSpec, endpoint: pd.DataFrame, modalities: dict[str, Data], audit: AuditLog
) -> pd.Index:
    """Return all patients with any modality, sorted; raise DataError if tables share nobody."""
    patients = pd.Index([], dtype=object)
    for name, data in modalities.items():
        ids = pd.Index(data.obs_names.astype(str), dtype=object)
        if len(endpoint) and not ids.isin(endpoint.index).any():
            assert spec.endpoint is not None
            raise DataError(
                f"modality '{name}' ({spec.modalities[name].source.path}) and the endpoint "
                f"({spec.endpoint.table}) share no patient: {some(ids, 2)} against "
                f"{some(endpoint.index, 2)}; check `patients: {{id: …}}`"
            )
        strangers = ids.difference(endpoint.index) if len(endpoint) else ids[:0]
        if len(strangers):
            audit.add(
                "warning",
                f"{len(strangers)} patients are not in the endpoint table, used for pre-training "
                f"alone: {some(strangers)}",
                modality=name,
                file=spec.modalities[name].source.path,
            )
        patients = patients.union(ids)
    without = endpoint.index.difference(patients)
    for patient in without:
        audit.add("dropped", "has none of the modalities", patient=str(patient))
    if len(without):
        say = f"{len(without)} patients have none of the modalities: {some(without)}"
        audit.add("warning", say)
    return patients.sort_values().rename("patient")


def _add_splits(obs: pd.DataFrame, spec: DataSpec, context: ReadContext) -> None:
    """Add ``group``, or ``split`` and ``fold`` of a split table, to obs."""
    splits = spec.splits
    if splits.group is not None:
        obs["group"] = _groups(splits.group, obs.index, spec, context)
    if splits.table is not None:
        _add_table(obs, splits, context)


def _groups(
    name: str, patients: pd.Index, spec: DataSpec, context: ReadContext
) -> "pd.Series[Any]":
    tables = [(spec.endpoint.table, spec.endpoint.id)] if spec.endpoint else []
    tables += [(label.table, label.id) for label in spec.labels.values()]
    for table, id_column in dict.fromkeys(tables):
        frame = _indexed(table, id_column, context)
        column = has_column(frame, name)
        if column is not None:
            return one_per_patient(frame[column].rename(column), table).reindex(patients)
    if name == HOSPITAL and spec.patients.id == "tcga":
        barcodes = [parse_barcode(patient) for patient in patients]
        return pd.Series([b.hospital if b else None for b in barcodes], index=patients)
    if tables:
        find_column(_indexed(*tables[0], context), name, f"splits.group: {tables[0][0]}")
    raise DataError(f"splits.group: no table has a column '{name}'; remove it or add an endpoint")


def _add_table(obs: pd.DataFrame, splits: Splits, context: ReadContext) -> None:
    assert splits.table is not None
    table = _indexed(splits.table, None, context)
    column = find_column(table, "split", splits.table)
    said = one_per_patient(table[column], splits.table).str.lower()
    strange = sorted(set(said.dropna()) - {"train", "test"})
    if strange:
        raise DataError(f"{splits.table}: split is 'train' or 'test', not {some(strange)}")
    obs["split"] = said.reindex(obs.index)
    if has_column(table, "fold"):
        obs["fold"] = one_per_patient(table["fold"], splits.table).reindex(obs.index)
    for part in ("train", "test"):
        if not (obs["split"] == part).any():
            examples = f"{some(said.index, 2)} against {some(obs.index, 2)}"
            raise DataError(f"{splits.table}: no patient of the cohort is in '{part}' ({examples})")
    outside = obs.index[obs["split"].isna()]
    if len(outside):
        context.note(
            "warning",
            f"{len(outside)} patients are in no split: {some(outside)}",
            file=splits.table,
        )
