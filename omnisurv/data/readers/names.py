"""Feature names: versions, PAR genes, blank and duplicate symbols, replicate probes."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from omnisurv.data.readers.sniff import Floats

_REPLICATE = re.compile(r"_[BTO][CO]\d+$")


@dataclass(frozen=True)
class NamedFeatures:
    """Features under their final names."""

    values: Floats
    """(samples, features)."""
    var: pd.DataFrame
    notes: list[str]
    """What was done, for the audit."""


def strip_version(gene: str) -> str:
    """Return ``ENSG00000000003`` for ``ENSG00000000003.15``; a ``_PAR_Y`` stays."""
    return re.sub(r"\.\d+", "", gene, count=1)


def strip_replicate(probe: str) -> str:
    """Return ``cg00000029`` for the EPIC v2 name ``cg00000029_TC21``."""
    return _REPLICATE.sub("", probe)


def name_features(raw: "pd.Index[str]", values: Floats, ids: str) -> NamedFeatures:
    """Return features under unique, plain names.

    Genes lose their version; ``_PAR_Y`` copies and blank names are dropped; ``SYMBOL|entrez``
    becomes the symbol, unless genes share it; rs probes, which tell genotypes, are dropped;
    what still has the same name is averaged.
    """
    notes: list[str] = []
    names = pd.Series([str(name) if name is not None else "" for name in raw], dtype=object)
    names = names.where(~names.isin(["nan", "None", "?"]), "")
    keep = names != ""
    _count(notes, ~keep, "features without a name are left out")
    if ids == "ensembl":
        par = names.str.endswith("_PAR_Y")
        _count(notes, par, "_PAR_Y genes, copies of those on X, are left out")
        keep &= ~par
        names = names.map(strip_version).where(names.str.startswith("ENS"), names)
    elif ids == "probe":
        genotype = names.str.startswith("rs")
        _count(notes, genotype, "rs probes, which tell genotypes, are left out")
        keep &= ~genotype
        names = names.map(strip_replicate)
    elif ids == "symbol":
        names = _symbols(names)
    kept = np.flatnonzero(keep.to_numpy())
    return _average_duplicates(
        names.iloc[kept],
        pd.Index(raw)[kept],
        values[:, kept] if len(kept) < len(raw) else values,
        notes,
    )


def drop_unmeasured(features: NamedFeatures) -> NamedFeatures:
    """Return only features that somebody was measured for."""
    measured = np.isfinite(features.values).any(axis=0)
    if measured.all():
        return features
    empty = np.flatnonzero(~measured)
    names = ", ".join(features.var.index[empty[:3]])
    note = f"{len(empty)} features have no value in any patient ({names}…)"
    return NamedFeatures(
        features.values[:, measured],
        features.var.iloc[np.flatnonzero(measured)],
        [*features.notes, f"{note} and are left out"],
    )


def _symbols(names: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return symbols; ``SYMBOL|entrez`` stays where genes share a symbol or have none."""
    parts = names.str.split("|", n=1, expand=True)
    if parts.shape[1] == 1:
        return names
    several = pd.DataFrame({"symbol": parts[0], "id": parts[1]}).groupby("symbol")["id"].nunique()
    shared = parts[0].map(several).fillna(0) > 1
    return parts[0].where(~shared & (parts[0] != "?") & (parts[0] != ""), names)


def _average_duplicates(
    names: "pd.Series[Any]", raw: "pd.Index[str]", values: Floats, notes: list[str]
) -> NamedFeatures:
    codes, unique = pd.factorize(names)
    first = np.unique(codes, return_index=True)[1]
    var = pd.DataFrame({"id": raw.to_numpy()[first].astype(str)}, index=pd.Index(unique))
    var.index.name = "feature"
    if len(unique) == len(names):
        return NamedFeatures(values, var, notes)
    merged = values[:, first].copy()
    sizes = np.bincount(codes)
    members = np.argsort(codes, kind="stable")
    starts = np.r_[0, np.cumsum(sizes)]
    for code in np.flatnonzero(sizes > 1):
        merged[:, code] = nan_mean(values[:, members[starts[code] : starts[code + 1]]])
    several = int((sizes > 1).sum())
    notes.append(f"{several} features that stand more than once by that name are averaged")
    return NamedFeatures(merged, var, notes)


def nan_mean(values: Floats) -> Floats:
    """Return the mean of each row's measured values; NaN where there is none."""
    finite = np.isfinite(values)
    count = finite.sum(axis=1)
    total = np.where(finite, values, 0).sum(axis=1)
    mean = np.divide(total, count, out=np.full(len(values), np.nan, np.float32), where=count > 0)
    return np.asarray(mean, dtype=np.float32)


def _count(notes: list[str], which: "pd.Series[Any]", what: str) -> None:
    if which.any():
        notes.append(f"{int(which.sum())} {what}")
