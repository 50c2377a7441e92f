"""Modalities of a MuData file (``.h5mu``), of muon, scverse or our own."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from omnisurv.data.readers.context import ReadContext
from omnisurv.data.readers.matrix import read_wide
from omnisurv.data.readers.wide import Wide
from omnisurv.data.sources import MatrixSource, Source
from omnisurv.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from anndata import AnnData

TYPED = ["feature", "type"]
"""Columns of ``var`` that say of a table's columns what they are."""


class MudataSource(Source):
    """One modality of a MuData file; who has no row in it, or none but NaN, lacks it."""

    format: Literal["mudata"]
    modality: str | None = None
    """Its name in the file; by default as in the spec."""
    ids: Literal["ensembl", "symbol", "probe", "entrez", "other"] | None = None
    scale: Literal["counts", "linear", "log2", "ln", "z-score", "beta", "m-value"] | None = None
    sample_types: tuple[str, ...] | None = None


def read_mudata(
    source: MudataSource, context: ReadContext, kind: str, type: str | None = None
) -> "AnnData":
    """Return patients × features of one modality, read as any wide table of samples × features.

    Raises:
        DataError: the file has no such modality, or what a wide table is refused for.
    """
    path = context.path(source.path)
    data = _load(path, source.modality or context.modality)
    values = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X)
    names = pd.Index(data.var_names.astype(str))
    prefix = f"{source.modality or context.modality}:"
    if names.str.startswith(prefix).all():  # as MuData has names that modalities share
        names = names.str.removeprefix(prefix)
    wide = Wide(
        pd.DataFrame({"index": data.obs_names.astype(str)}), names, values.astype(np.float32)
    )
    told: Any = data.uns.get("scale")
    as_matrix = MatrixSource(
        format="matrix",
        path=source.path,
        orientation="samples_x_features",
        id_column="index",
        ids=source.ids,
        scale=source.scale or (None if kind == "table" else told),
        sample_types=source.sample_types,
    )
    found = read_wide(wide, as_matrix, context, kind, type)
    if kind == "table" and type is None and set(TYPED) <= set(data.var):
        said = data.var[TYPED].set_axis(names).reindex(found.var_names)
        found.var[TYPED] = said.astype(object).to_numpy()
    return found


def _load(path: Path, modality: str) -> "AnnData":
    import h5py
    from anndata.io import read_elem

    try:
        with h5py.File(path, "r") as file:
            there = list(file.get("mod", ()))
            if modality in there:
                return read_elem(file["mod"][modality])
    except OSError as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not there:
        raise DataError(f"{path} is no MuData file: it has no modalities")
    raise DataError(
        f"{path} has no modality '{modality}'.{did_you_mean(modality, there)} Say `modality:`"
    )
