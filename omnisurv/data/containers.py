"""Cohorts as MuData and back: availability, endpoint, labels and spec kept."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from omnisurv.data.frames import spec_in_memory, usual_kind
from omnisurv.data.images import Images
from omnisurv.data.readers.sniff import sniff_scale, sniff_types
from omnisurv.data.spec import DataSpec
from omnisurv.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from omnisurv.data.cohort import Cohort

KEY = "omnisurv"


def to_mudata(cohort: "Cohort") -> "MuData":
    """Return the cohort as MuData.

    Pictures stay behind. MuData knows only patients with some modality; the others stand in
    ``uns["omnisurv"]``, beside spec and audit. Where modalities share feature names (EGFR has an
    expression and a copy number), all names get their modality in front: ``rna:EGFR``.
    """
    tables = {name: cohort[name] for name in cohort.modalities}
    parts = {n: data for n, data in tables.items() if not isinstance(data, Images)}
    data, prefixed = join(parts)
    for column in cohort.obs:
        data.obs[column] = cohort.obs[column].reindex(data.obs_names)
    data.uns[KEY] = {
        "obs": _plain(cohort.obs),
        "audit": cohort.audit.reset_index(drop=True).rename(index=str),
        "spec": cohort.spec.model_dump_json() if cohort.spec else "",
        "prefixed": prefixed,
        "categories": json.dumps(_categories(cohort.obs)),
    }
    return data


def join(tables: "Mapping[str, AnnData]") -> "tuple[MuData, bool]":
    """Return copies of tables as MuData, and whether all names got their modality in front."""
    import mudata

    # For good, not for this block: writing the object updates it again, and would warn.
    mudata.set_options(pull_on_update=False)
    parts = {name: table.copy() for name, table in tables.items()}
    names = pd.Index([feature for part in parts.values() for feature in part.var_names])
    if not names.is_unique:
        for name, part in parts.items():
            part.var_names = [f"{name}:{feature}" for feature in part.var_names]
    return mudata.MuData(parts), not names.is_unique


def cohort_parts(
    data: "MuData", spec: DataSpec | None
) -> "tuple[pd.DataFrame, dict[str, AnnData], DataSpec | None, pd.DataFrame | None]":
    """Return obs, modalities, spec and audit of a MuData object."""
    modalities = {name: part.copy() for name, part in data.mod.items()}
    ours = data.uns.get(KEY)
    if ours is None:
        missing = {"time", "event"} - set(data.obs.columns)
        if missing:
            raise DataError(
                f"mudata.obs has no column {sorted(missing)}; add `time` in days and `event` (0, 1)"
            )
        return data.obs.copy(), modalities, _of_others(modalities, spec), None
    if ours["prefixed"]:
        for name, part in modalities.items():
            part.var_names = part.var_names.str.removeprefix(f"{name}:")
    obs = _restore(ours["obs"], json.loads(ours["categories"]))
    if spec is None and ours["spec"]:
        spec = DataSpec.model_validate_json(ours["spec"])
    return obs, modalities, spec, ours["audit"].reset_index(drop=True)


def _of_others(modalities: "Mapping[str, AnnData]", spec: DataSpec | None) -> DataSpec:
    """Note what values and names tell where tables do not: scales and types, kinds.

    Raises:
        DataError: the scale of expression or methylation is ambiguous.
    """
    given = spec.modalities if spec is not None else {}
    kinds = {n: given[n].kind if n in given else usual_kind(n) for n in modalities}
    for name, table in modalities.items():
        values = table.X.toarray() if hasattr(table.X, "toarray") else np.asarray(table.X)
        if "scale" not in table.uns:
            where = f'mdata["{name}"].uns["scale"]'
            table.uns["scale"] = sniff_scale(values, kinds[name], where)
        if kinds[name] == "table" and "type" not in table.var:
            table.var["feature"] = table.var_names.astype(str)
            table.var["type"] = sniff_types(values)
    return spec or spec_in_memory({name: {"kind": kind} for name, kind in kinds.items()})


def _categories(obs: pd.DataFrame) -> dict[str, list[str]]:
    return {
        str(name): [str(c) for c in obs[name].cat.categories]
        for name in obs
        if isinstance(obs[name].dtype, pd.CategoricalDtype)
    }


def _plain(obs: pd.DataFrame) -> pd.DataFrame:
    """Return texts and numbers alone, which HDF5 stores; a missing text is empty."""
    plain: dict[str, Any] = {}
    for name in obs:
        column = obs[name]
        if isinstance(column.dtype, pd.CategoricalDtype) or column.dtype == object:
            column = column.astype(object).where(column.notna(), "").astype(str)
        plain[str(name)] = column
    return pd.DataFrame(plain, index=obs.index)


def _restore(plain: pd.DataFrame, categories: dict[str, list[str]]) -> pd.DataFrame:
    obs = plain.copy()
    for name in obs:
        if not pd.api.types.is_numeric_dtype(obs[name]):
            text = obs[name].astype(object)
            obs[name] = text.where(text != "", None)
        if name in categories:
            obs[name] = pd.Categorical(obs[name], categories=categories[str(name)])
    return obs
