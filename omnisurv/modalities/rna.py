"""RNA-seq expression: genes in patches of a few hundred."""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pandas as pd

from omnisurv.config import Settings
from omnisurv.data.readers.h5mu import MudataSource
from omnisurv.data.sources import MatrixSource, Source, StarSource
from omnisurv.errors import DataError
from omnisurv.features import (
    FeatureTokeniser,
    Order,
    Shape,
    choose_features,
    chunk,
    fit_scale,
)
from omnisurv.modality import Modality, State
from omnisurv.registry import modalities

if TYPE_CHECKING:
    from anndata import AnnData

    from omnisurv.data.readers import ReadContext


class RnaOptions(Settings):
    """Options of an RNA-seq modality."""

    value: Literal["fpkm_uq", "fpkm", "tpm", "counts"] = "fpkm_uq"
    """Column of GDC STAR files."""
    patch: int = 128
    """Genes in a patch (impuTMAE: 512)."""
    min_sd: float = 0.0
    """Keep genes whose raw standard deviation is above this (impuTMAE: 0.1 of FPKM-UQ)."""
    max_missing: float = 0.5
    top_variance: int | None = None
    order: Order = "correlation"
    normalise: Literal["gene", "patient"] = "gene"
    """``gene``: robust standard units per gene. ``patient``: ln(x + 1) over the patient's own
    median and nothing else (impuTMAE §3)."""


@modalities.register("rna")
class Rna(Modality):
    """Gene expression: STAR counts, FPKM(-UQ), TPM, logged matrices or z-scores."""

    kind = "rna"
    summary = "RNA-seq expression, genes in patches"
    Options = RnaOptions
    formats: ClassVar = {"gdc-star": StarSource, "matrix": MatrixSource, "mudata": MudataSource}
    options: RnaOptions

    def read(self, source: Source, context: "ReadContext") -> "AnnData":
        """Read GDC STAR files, a wide matrix or a modality of a MuData file."""
        from omnisurv.data.readers import read_gdc_star, read_matrix, read_mudata

        if isinstance(source, StarSource):
            return read_gdc_star(source, context, value=self.options.value)
        if isinstance(source, MudataSource):
            return read_mudata(source, context, kind=self.kind)
        assert isinstance(source, MatrixSource)
        return read_matrix(source, context, kind=self.kind)

    def fit(self, train: "AnnData") -> FeatureTokeniser:
        """Choose genes, their order and their scale on training patients."""
        o = self.options
        kept = choose_features(
            train,
            o.order,
            min_sd=o.min_sd,
            max_missing=o.max_missing,
            top_variance=o.top_variance,
        )
        by_patient = o.normalise == "patient"
        unit = str(train.uns.get("scale", "linear"))
        if by_patient and shape_of(unit) != "ln1p":
            raise DataError(
                f"modality '{self.name}': `normalise: patient` divides by the patient's median "
                f"and needs raw values, these are on the scale '{unit}'; say normalise: gene"
            )
        scale = fit_scale(
            np.asarray(kept.X, dtype=float),
            shape_of(unit),
            standardise=not by_patient,
            by_patient=by_patient,
        )
        groups = chunk(kept.n_vars + by_patient, o.patch)
        return FeatureTokeniser(list(kept.var_names), groups, scale, unit)

    def restore(self, state: State) -> FeatureTokeniser:
        """Rebuild a fitted tokeniser."""
        return FeatureTokeniser.restore(state)

    @classmethod
    def example(cls, generator: np.random.Generator) -> tuple["Rna", "AnnData"]:
        """Return 24 patients with 50 genes on the FPKM scale, heavy tails and all."""
        import anndata

        factor = generator.normal(size=(24, 3)) @ generator.normal(size=(3, 50))
        values = np.exp(1.0 + 0.5 * factor + 0.3 * generator.normal(size=(24, 50)))
        data = anndata.AnnData(
            values.astype(np.float32),
            obs=pd.DataFrame(index=[f"TCGA-00-{i:04d}" for i in range(24)]),
            var=pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(50)]),
            uns={"scale": "linear"},
        )
        return cls("rna", RnaOptions(patch=8)), data


def shape_of(scale: str) -> Shape:
    """Return how values of this scale become roughly symmetric: logs where they are raw."""
    return "ln1p" if scale in ("counts", "linear") else "identity"
