"""DNA methylation: beta values of CpG probes in patches."""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pandas as pd

from omnisurv.config import Settings
from omnisurv.data.readers.h5mu import MudataSource
from omnisurv.data.sources import MatrixSource, SesameSource, Source
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


class DnamOptions(Settings):
    """Options of a DNA methylation modality."""

    patch: int = 128
    """Probes in a patch (impuTMAE: 1024)."""
    min_sd: float = 0.0
    max_missing: float = 0.5
    """Probes masked in more of the training patients than this are left out; the others keep
    their holes, which are hidden inputs and unscored targets."""
    top_variance: int | None = None
    order: Order = "correlation"
    values: Literal["m-value", "beta"] = "m-value"
    """Scale inside the model; imputed values are beta again (impuTMAE: beta)."""
    standardise: bool = True
    """Standard units per probe (impuTMAE: no)."""


@modalities.register("dnam")
class Dnam(Modality):
    """Beta values of 27k, 450k, EPIC and EPIC v2 arrays, masked probes and all."""

    kind = "dnam"
    summary = "DNA methylation, CpG beta values in patches"
    Options = DnamOptions
    formats: ClassVar = {"gdc-sesame": SesameSource, "matrix": MatrixSource, "mudata": MudataSource}
    options: DnamOptions

    def read(self, source: Source, context: "ReadContext") -> "AnnData":
        """Read SeSAMe beta files, a wide matrix or a modality of a MuData file."""
        from omnisurv.data.readers import read_gdc_sesame, read_matrix, read_mudata

        if isinstance(source, SesameSource):
            return read_gdc_sesame(source, context)
        if isinstance(source, MudataSource):
            return read_mudata(source, context, kind=self.kind)
        assert isinstance(source, MatrixSource)
        return read_matrix(source, context, kind=self.kind)

    def fit(self, train: "AnnData") -> FeatureTokeniser:
        """Choose probes, their order and their scale on training patients."""
        o = self.options
        kept = choose_features(
            train,
            o.order,
            min_sd=o.min_sd,
            max_missing=o.max_missing,
            top_variance=o.top_variance,
        )
        unit = str(train.uns.get("scale", "beta"))
        shape: Shape = "m-value" if unit == "beta" and o.values == "m-value" else "identity"
        scale = fit_scale(
            np.asarray(kept.X, dtype=float),
            shape,
            standardise=o.standardise,
            knee=False,
        )
        return FeatureTokeniser(list(kept.var_names), chunk(kept.n_vars, o.patch), scale, unit)

    def restore(self, state: State) -> FeatureTokeniser:
        """Rebuild a fitted tokeniser."""
        return FeatureTokeniser.restore(state)

    @classmethod
    def example(cls, generator: np.random.Generator) -> tuple["Dnam", "AnnData"]:
        """Return 24 patients with 40 probes, 15 % of the values masked."""
        import anndata

        factor = generator.normal(size=(24, 2)) @ generator.normal(size=(2, 40))
        beta = 1.0 / (1.0 + np.exp(-factor - generator.normal(size=40)))
        beta[generator.random(beta.shape) < 0.15] = np.nan
        data = anndata.AnnData(
            beta.astype(np.float32),
            obs=pd.DataFrame(index=[f"TCGA-00-{i:04d}" for i in range(24)]),
            var=pd.DataFrame(index=[f"cg{i:08d}" for i in range(40)]),
            uns={"scale": "beta"},
        )
        return cls("dnam", DnamOptions(patch=16)), data
