"""Pictures of a cohort, one array per patient, read from the store only when looked at."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.data.store import Entry
from omnisurv.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData

Data: TypeAlias = Union["AnnData", "Images"]
"""The values of a modality: a table of features, or pictures."""


class Images:
    """A lazy collection of pictures with the manners of AnnData that a cohort needs.

    Attributes:
        obs_names: patients, in order.
        uns: ``scale``, the unit of the arrays: ``z-score`` (MRI) or ``rgb`` (slides).
    """

    def __init__(self, entries: Sequence[Entry], scale: str) -> None:
        self.entries = list(entries)
        self.obs_names = pd.Index([entry.patient for entry in entries], dtype=object)
        self.uns = {"scale": scale}

    @property
    def n_obs(self) -> int:
        """Number of patients."""
        return len(self.entries)

    @property
    def n_vars(self) -> int:
        """Numbers in the largest picture."""
        return max((int(self.array(row).size) for row in range(self.n_obs)), default=0)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, patients: "Iterable[str] | NDArray[Any] | slice") -> "Images":
        """Return the pictures of some patients: ids, positions, a boolean mask or a slice."""
        if isinstance(patients, slice):
            chosen: NDArray[Any] = np.arange(len(self))[patients]
        else:
            wanted = np.asarray(list(patients))
            if wanted.dtype == bool:
                chosen = np.flatnonzero(wanted)
            elif wanted.dtype.kind in "iu":
                chosen = wanted
            else:
                chosen = self.obs_names.get_indexer(pd.Index(wanted, dtype=object))
                if (chosen < 0).any():
                    raise DataError(f"no picture of {wanted[chosen < 0][0]}")
        return Images([self.entries[int(row)] for row in chosen], self.uns["scale"])

    def copy(self) -> "Images":
        """Return the collection itself, which nothing changes."""
        return self

    def array(self, row: int) -> NDArray[Any]:
        """Return a patient's array: (x, y, z) of a volume, (tiles, y, x, 3) of a slide."""
        return self.entries[row].open()

    def meta(self, row: int) -> Mapping[str, Any]:
        """Return what is known of a patient's picture: file, geometry, scores."""
        return self.entries[row].meta

    def of(self, patient: str) -> "Entry | None":
        """Return a patient's entry, None if there is no picture."""
        found = np.flatnonzero(self.obs_names == patient)
        return self.entries[int(found[0])] if len(found) else None

    def __repr__(self) -> str:
        return f"Images({self.n_obs} patients, {self.uns['scale']})"


@dataclass(frozen=True)
class FilledImages:
    """Pictures of every patient of a cohort: measured where they are, imputed elsewhere.

    Attributes:
        patients: in the order of the rows below.
        images: the measured ones; None if nobody has any.
        values: (n, blocks, *space, channels) in the unit of the store.
        half: (blocks, *space, channels) half-width of the interval; infinite where not known.
        imputed: (n,) True = all of the patient's picture was imputed.
        like: what is known of another picture of the same kind of the patient, which tells the
            grid to write on; None where there is none.
        level: nominal coverage of the interval.
        run: which run imputed.
    """

    patients: list[str]
    images: Images | None
    values: NDArray[np.float32]
    half: NDArray[np.float32]
    imputed: NDArray[np.bool_]
    like: list[Mapping[str, Any] | None]
    level: float
    run: str
