"""Patients × features of several modalities in one table in memory, as a cohort."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.data.audit import some
from omnisurv.data.cohort import Cohort
from omnisurv.data.readers.sniff import sniff_scale, sniff_types
from omnisurv.data.spec import DataSpec
from omnisurv.errors import DataError, did_you_mean
from omnisurv.registry import modalities as kinds

Floats: TypeAlias = NDArray[np.floating[Any]]
Given: TypeAlias = str | Sequence[str] | Mapping[str, Any]
"""What is said of a modality: its kind, its columns, or ``kind``, ``columns``, ``scale`` and the
options of the kind."""

ALONE = "clinical"
"""Name of the only modality of a table whose columns name none."""


@dataclass(frozen=True)
class Part:
    """The columns of one modality."""

    name: str
    kind: str
    columns: NDArray[np.int64]
    """Their positions."""
    features: list[str]
    """Their names, without the modality's in front."""
    scale: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Division:
    """Which columns of a table are which modality, on which scale."""

    parts: tuple[Part, ...]
    spec: DataSpec

    def to_cohort(
        self,
        values: Floats,
        patients: Sequence[str],
        time: Floats | None = None,
        event: NDArray[Any] | None = None,
    ) -> Cohort:
        """Return the cohort of a table (patients, columns); NaN is not measured."""
        import anndata

        index = pd.Index(list(patients), name="patient", dtype=object)
        obs = pd.DataFrame({"time": time, "event": event}, index=index, dtype=float)
        modalities = {}
        for part in self.parts:
            own = np.ascontiguousarray(values[:, part.columns], dtype=np.float32)
            var = pd.DataFrame(index=pd.Index(part.features, name="feature"))
            if part.scale == "table":
                var = var.assign(feature=part.features, type=sniff_types(own))
            modalities[part.name] = anndata.AnnData(
                own, obs=pd.DataFrame(index=index), var=var, uns={"scale": part.scale}
            )
        return Cohort(obs, modalities, self.spec)


def flatten(columns: pd.Index) -> pd.Index:
    """Return names such as ``rna:TP53`` for columns of two levels; others stay as they are."""
    if columns.nlevels == 1:
        return columns
    return pd.Index([":".join(map(str, levels)) for levels in columns], dtype=object)


def divide(
    columns: Sequence[str], values: Floats, modalities: Mapping[str, Given] | None
) -> Division:
    """Say which column is of which modality.

    Args:
        columns: names, with ``modality:`` in front where they are not listed.
        values: training patients; they tell the scale of expression and methylation.
        modalities: what is said of each; None takes the names in front of the columns, or the
            whole table for clinical variables where there are none.

    Raises:
        DataError: a column belongs to no modality or to two, or the scale is ambiguous.
        SpecError: an unknown kind or option.
    """
    told = _told(columns) if modalities is None else modalities
    parts = [_part(name, given, columns, values) for name, given in told.items()]
    owners: dict[int, str] = {}
    for part in parts:
        for position in part.columns:
            if int(position) in owners:
                raise DataError(
                    f"modalities: column '{columns[position]}' is of '{owners[int(position)]}' and "
                    f"of '{part.name}'; give it to one"
                )
            owners[int(position)] = part.name
    left = [column for position, column in enumerate(columns) if position not in owners]
    if left:
        raise DataError(
            f"modalities: {len(left)} columns of X are of no modality: {some(left)}; list them, "
            "or leave them out of X"
        )
    kinds_of = {part.name: {"kind": part.kind, **part.options} for part in parts}
    return Division(tuple(parts), spec_in_memory(kinds_of))


def _told(columns: Sequence[str]) -> dict[str, Given]:
    """Return modalities and kinds by what stands in front of the columns' names."""
    prefixes = [column.partition(":")[0] if ":" in column else "" for column in columns]
    names = list(dict.fromkeys(prefixes))
    if names == [""]:
        return {ALONE: {"kind": "table", "columns": list(columns)}}
    if "" in names:
        bare = [c for c, prefix in zip(columns, prefixes, strict=True) if not prefix]
        raise DataError(
            f"{len(bare)} columns of X name no modality ({some(bare)}), others do "
            f"({some([n for n in names if n])}); say `modalities={{name: [columns]}}`"
        )
    return {name: usual_kind(name) for name in names}


def usual_kind(name: str) -> str:
    """Return the kind that a modality's name tells; others are tables."""
    return name if name in kinds.names() and "matrix" in kinds.get(name).formats else "table"


def _part(name: str, given: Given, columns: Sequence[str], values: Floats) -> Part:
    if isinstance(given, str):
        given = {"kind": given}
    elif not isinstance(given, Mapping):
        given = {"columns": list(given)}
    options = dict(given)
    listed, scale = options.pop("columns", None), options.pop("scale", None)
    kind = options.pop("kind", None) or usual_kind(name)
    if "matrix" not in kinds.get(kind).formats:
        tables = [known for known, entry in kinds if "matrix" in entry.formats]
        raise DataError(
            f"modalities: '{name}' is of kind '{kind}', which no table of numbers holds; "
            f"known are {', '.join(tables)}"
        )
    places, features = _columns(name, listed, columns)
    own = np.asarray(values[:, places], dtype=np.float32)
    if scale is None:
        scale = sniff_scale(own, kind, f"modality '{name}'")
    return Part(name, kind, places, features, str(scale), options)


def _columns(
    name: str, listed: Sequence[object] | None, columns: Sequence[str]
) -> tuple[NDArray[np.int64], list[str]]:
    """Return positions and features of a modality's columns."""
    if listed is None:
        places = [i for i, column in enumerate(columns) if column.startswith(f"{name}:")]
        if not places:
            prefixes = {column.partition(":")[0] for column in columns}
            raise DataError(
                f"modalities: no column of X begins with '{name}:'.{did_you_mean(name, prefixes)} "
                f"Or list them: `modalities={{'{name}': [columns]}}`"
            )
    else:
        position = {column: i for i, column in enumerate(columns)}
        for column in map(str, listed):
            if column not in position:
                raise DataError(
                    f"modalities: X has no column '{column}' of '{name}'."
                    + did_you_mean(column, list(position)[:1000])
                )
        places = [position[str(column)] for column in listed]
    features = [columns[place].removeprefix(f"{name}:") for place in places]
    return np.array(places, dtype=np.int64), features


def spec_in_memory(modalities: Mapping[str, Mapping[str, Any]]) -> DataSpec:
    """Return a spec of kinds and options of modalities that were never in a file."""
    source = {"format": "matrix", "path": "in memory"}
    told = {name: {"source": source, **options} for name, options in modalities.items()}
    values = {"name": "in memory", "patients": {"id": "column"}, "modalities": told}
    return DataSpec.parse(values, "modalities in memory")
