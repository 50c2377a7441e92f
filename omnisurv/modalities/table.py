"""Tables: clinical variables, copy number, mutations, proteins, radiomics."""

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pandas as pd

from omnisurv.config import Settings
from omnisurv.data.readers.h5mu import MudataSource
from omnisurv.data.sources import MatrixSource, Source, TableSource
from omnisurv.errors import SpecError, did_you_mean
from omnisurv.features import (
    FeatureTokeniser,
    Order,
    Scale,
    chunk,
    fit_scale,
    keep_features,
    order_features,
)
from omnisurv.modality import Modality, State
from omnisurv.registry import modalities

if TYPE_CHECKING:
    from anndata import AnnData

    from omnisurv.data.readers import ReadContext

SMALL = 16
"""Tables of at most so many source columns get a token for each."""

ColumnType = Literal["continuous", "binary", "ordinal", "categorical"]


class Column(Settings):
    """Type of one column; ``levels`` in order for ordinal ones."""

    type: ColumnType
    levels: tuple[str, ...] | None = None


class TableOptions(Settings):
    """Options of a table."""

    columns: dict[str, ColumnType | Column] | None = None
    """Columns to take and their types; None takes all."""
    type: ColumnType | None = None
    """One type for all columns of a wide matrix; None is sniffed."""
    groups: dict[str, tuple[str, ...]] | None = None
    """One token for each named group of columns."""
    patch: int = 32
    """Features in a token where there are no groups and more than 16 columns."""
    order: Order = "correlation"
    max_missing: float = 0.9


@modalities.register("table")
class Table(Modality):
    """Patients × features of any type: continuous, binary, ordinal, categorical."""

    kind = "table"
    summary = "tables: clinical, CNV, mutations, proteins, radiomics"
    Options = TableOptions
    formats: ClassVar = {"table": TableSource, "matrix": MatrixSource, "mudata": MudataSource}
    options: TableOptions

    def read(self, source: Source, context: "ReadContext") -> "AnnData":
        """Read a clinical table with typed columns, a wide matrix or part of a MuData file."""
        from omnisurv.data.readers import read_matrix, read_mudata, read_table

        if isinstance(source, TableSource):
            return read_table(source, context, columns=self._columns())
        if isinstance(source, MudataSource):
            return read_mudata(source, context, kind=self.kind, type=self.options.type)
        assert isinstance(source, MatrixSource)
        return read_matrix(source, context, kind=self.kind, type=self.options.type)

    def fit(self, train: "AnnData") -> FeatureTokeniser:
        """Choose columns, groups and scales on training patients."""
        kept = train[:, keep_features(train, max_missing=self.options.max_missing)]
        order, groups = self._group(kept)
        kept = kept[:, order]
        values = np.asarray(kept.X, dtype=float)
        scale = fit_scale(values, "identity")
        plain = fit_scale(values, "identity", knee=False)
        # Few distinct values have no tail to tame, and their spread is the plain one.
        few = np.array([len(np.unique(v[np.isfinite(v)])) <= 10 for v in values.T])
        if few.any():
            scale = Scale(
                "identity",
                np.where(few, plain.center, scale.center),
                np.where(few, plain.spread, scale.spread),
            )
        return FeatureTokeniser(list(kept.var_names), groups, scale, "table")

    def restore(self, state: State) -> FeatureTokeniser:
        """Rebuild a fitted tokeniser."""
        return FeatureTokeniser.restore(state)

    def _columns(self) -> dict[str, Column] | None:
        if self.options.columns is None:
            return None
        return {
            name: column if isinstance(column, Column) else Column(type=column)
            for name, column in self.options.columns.items()
        }

    def _group(self, data: "AnnData") -> tuple[list[int], list[list[int]]]:
        """Return the order of the features and the groups over that order."""
        sources = data.var["feature"] if "feature" in data.var else pd.Series(data.var_names)
        sources = pd.Series(np.asarray(sources, dtype=str))
        if self.options.groups is not None:
            members = [self._members(sources, c) for c in self.options.groups.items()]
            rest = sorted(set(range(data.n_vars)) - {i for group in members for i in group})
            members = [group for group in [*members, rest] if group]
        elif sources.nunique() <= SMALL:
            members = [list(np.flatnonzero(sources == name)) for name in sources.unique()]
        else:
            order = order_features(data, self.options.order)
            return [int(i) for i in order], chunk(data.n_vars, self.options.patch)
        order_list = [int(i) for group in members for i in group]
        ends = np.cumsum([len(group) for group in members])
        starts = ends - [len(group) for group in members]
        return order_list, [list(range(int(a), int(b))) for a, b in zip(starts, ends, strict=True)]

    def _members(self, sources: "pd.Series[str]", group: tuple[str, tuple[str, ...]]) -> list[int]:
        name, columns = group
        for column in columns:
            if column not in set(sources):
                raise SpecError(
                    f"modalities.{self.name}.groups.{name}: unknown column '{column}'."
                    + did_you_mean(column, sources)
                )
        return [int(i) for i in np.flatnonzero(sources.isin(columns))]

    @classmethod
    def example(cls, generator: np.random.Generator) -> tuple["Table", "AnnData"]:
        """Return 24 patients with age, a biomarker with holes, and a grade of three levels."""
        import anndata

        age = generator.normal(60, 10, size=24)
        marker = (generator.random(24) < 0.4).astype(float)
        marker[generator.random(24) < 0.2] = np.nan
        grade = generator.integers(0, 3, size=24)
        data = anndata.AnnData(
            np.column_stack([age, marker, np.eye(3)[grade]]).astype(np.float32),
            obs=pd.DataFrame(index=[f"TCGA-00-{i:04d}" for i in range(24)]),
            var=pd.DataFrame(
                {
                    "feature": ["age", "IDH", *["grade"] * 3],
                    "type": ["continuous", *["binary"] * 4],
                },
                index=["age", "IDH", "grade=G2", "grade=G3", "grade=G4"],
            ),
            uns={"scale": "table"},
        )
        return cls("clinical", TableOptions()), data
