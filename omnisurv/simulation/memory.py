"""A simulated cohort as the readers would give it, without files."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import yaml

from omnisurv.data.cohort import Cohort
from omnisurv.data.spec import DataSpec
from omnisurv.simulation.spec import SPEC

if TYPE_CHECKING:
    from anndata import AnnData

    from omnisurv.simulation.truth import SimulatedCohort

SCALES = {"rna": "linear", "dnam": "beta", "cnv_arm": "table", "protein": "table"}
TYPES = {"cnv_arm": "ordinal", "protein": "continuous"}


def build(simulated: "SimulatedCohort") -> Cohort:
    """Return the cohort, with the spec that a written one has."""
    people = simulated.patients
    obs = pd.DataFrame(
        {
            "time": simulated.time,
            "event": simulated.event,
            "project": pd.Categorical(people["project"], categories=["LGG", "GBM"]),
            "group": people["site"],
        }
    )
    modalities = {"clinical": _clinical(simulated)}
    for name, scale in SCALES.items():
        modalities[name] = _numeric(simulated, name, scale)
    arrays = people["era"].map({"early": "small array", "late": "large array"})
    modalities["dnam"].obs["platform"] = arrays[modalities["dnam"].obs_names]
    return Cohort(obs, modalities, DataSpec.parse(yaml.safe_load(SPEC), "simulated"))


def _numeric(simulated: "SimulatedCohort", name: str, scale: str) -> "AnnData":
    values = simulated.observed(name)
    var = pd.DataFrame(index=pd.Index(values.columns, name="feature"))
    if name in TYPES:
        var = var.assign(type=TYPES[name], feature=values.columns)
    return _wrap(values, var, {"scale": scale})


def _clinical(simulated: "SimulatedCohort") -> "AnnData":
    """Encode as tables are: ordinal levels counted from 0, categories one column for each."""
    table = simulated.observed("clinical")
    options = yaml.safe_load(SPEC)["modalities"]["clinical"]["columns"]
    columns: dict[str, "pd.Series[float]"] = {}
    rows, levels = [], {}
    for feature, option in options.items():
        kind = option["type"] if isinstance(option, dict) else option
        known = table[feature]
        if kind == "continuous":
            columns[feature] = known.astype(float)
            rows.append((feature, kind))
            continue
        declared = option.get("levels") if isinstance(option, dict) else None
        levels[feature] = declared or sorted(known.dropna().unique())
        if kind == "ordinal":
            codes = pd.Categorical(known, categories=levels[feature]).codes.astype(float)
            columns[feature] = pd.Series(np.where(codes < 0, np.nan, codes), known.index)
            rows.append((feature, kind))
            continue
        for level in levels[feature]:
            columns[f"{feature}={level}"] = (known == level).astype(float).where(known.notna())
            rows.append((feature, "binary"))
    values = pd.DataFrame(columns)
    var = pd.DataFrame(rows, index=values.columns, columns=["feature", "type"])
    return _wrap(values, var, {"scale": "table", "levels": levels})


def _wrap(values: pd.DataFrame, var: pd.DataFrame, uns: dict[str, object]) -> "AnnData":
    import anndata

    measured = values[values.notna().any(axis=1)]
    obs = pd.DataFrame({"sample": [f"{patient}-01A" for patient in measured.index]})
    obs.index = pd.Index(measured.index, name="patient")
    return anndata.AnnData(measured.to_numpy(np.float32), obs=obs, var=var, uns=uns)
