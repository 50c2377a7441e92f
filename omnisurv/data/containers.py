"""Cohorts as MuData and back: availability, endpoint, labels and spec kept."""

import json
from typing import TYPE_CHECKING, Any

import pandas as pd

from omnisurv.data.images import Images
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
    import mudata

    # For good, not for this block: writing the object updates it again, and would warn.
    mudata.set_options(pull_on_update=False)
    tables = {name: cohort[name] for name in cohort.modalities}
    parts = {n: data.copy() for n, data in tables.items() if not isinstance(data, Images)}
    names = pd.Index([feature for part in parts.values() for feature in part.var_names])
    if not names.is_unique:
        for name, part in parts.items():
            part.var_names = [f"{name}:{feature}" for feature in part.var_names]
    data = mudata.MuData(parts)
    for column in cohort.obs:
        data.obs[column] = cohort.obs[column].reindex(data.obs_names)
    data.uns[KEY] = {
        "obs": _plain(cohort.obs),
        "audit": cohort.audit.reset_index(drop=True).rename(index=str),
        "spec": cohort.spec.model_dump_json() if cohort.spec else "",
        "prefixed": not names.is_unique,
        "categories": json.dumps(_categories(cohort.obs)),
    }
    return data


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
        return data.obs.copy(), modalities, spec, None
    if ours["prefixed"]:
        for name, part in modalities.items():
            part.var_names = part.var_names.str.removeprefix(f"{name}:")
    obs = _restore(ours["obs"], json.loads(ours["categories"]))
    if spec is None and ours["spec"]:
        spec = DataSpec.model_validate_json(ours["spec"])
    return obs, modalities, spec, ours["audit"].reset_index(drop=True)


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
