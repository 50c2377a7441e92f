"""Where the values of a modality lie, and in which format.

Each modality kind says in its ``formats`` which of these (or of its own) it is read from.
"""

from typing import Annotated, Literal, Protocol

from pydantic import BeforeValidator

from omnisurv.config import Settings

Names = Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)]
"""One name or several."""


class Source(Settings):
    """A file or folder, and the format of what is in it."""

    format: str
    path: str


class MatrixSource(Source):
    """A wide table: features × samples or patients × features."""

    format: Literal["matrix"]
    orientation: Literal["features_x_samples", "samples_x_features"] | None = None
    id_column: str | None = None
    """Column of sample or patient ids (or of feature ids, if features are rows)."""
    ids: Literal["ensembl", "symbol", "probe", "entrez", "other"] | None = None
    scale: Literal["counts", "linear", "log2", "ln", "z-score", "beta", "m-value"] | None = None
    sample_types: tuple[str, ...] | None = None


class TableSource(Source):
    """A clinical table with a row (or several) for each patient."""

    format: Literal["table"]
    id: str | None = None


class StarSource(Source):
    """A GDC download of STAR gene counts."""

    format: Literal["gdc-star"]
    sample_sheet: Names | None = None
    metadata: Names | None = None
    genes: Literal["protein_coding", "all"] = "protein_coding"
    sample_types: tuple[str, ...] | None = None


class SesameSource(Source):
    """A GDC download of SeSAMe (or older) beta values."""

    format: Literal["gdc-sesame"]
    sample_sheet: Names | None = None
    metadata: Names | None = None
    probes: str = "union"
    """``union``, ``shared`` by all platforms, or a file that lists them."""
    platforms: tuple[Literal["27k", "450k", "EPIC", "EPICv2"], ...] | None = None
    sample_types: tuple[str, ...] | None = None


class GdcSource(Protocol):
    """What every GDC download says: a folder, and whose its files are."""

    @property
    def path(self) -> str: ...  # noqa: D102
    @property
    def sample_sheet(self) -> Names | None: ...  # noqa: D102
    @property
    def metadata(self) -> Names | None: ...  # noqa: D102
    @property
    def sample_types(self) -> tuple[str, ...] | None: ...  # noqa: D102
