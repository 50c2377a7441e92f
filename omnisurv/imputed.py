"""What imputing gives: completed modalities, in memory and on disk."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.data.containers import join
from omnisurv.data.images import FilledImages
from omnisurv.files import atomic, writable
from omnisurv.modality import Modality

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

Values = NDArray[np.float32]

EMBEDDING = "X_omnisurv"
"""Where scanpy finds the embedding: ``use_rep="X_omnisurv"``."""


@dataclass(frozen=True)
class Imputation:
    """Completed modalities of a cohort.

    Of tables, ``values[name]`` is an AnnData of all patients, in the modality's own unit: ``X``
    holds what was measured and, elsewhere, the imputed mean; ``layers["imputed"]`` says which is
    which; ``layers["low"]`` and ``["high"]`` bound the ``level`` interval (equal to X where
    measured); ``layers["draw_0"]`` and on are the draws, where asked for. Of pictures it is a
    ``FilledImages``.
    """

    values: dict[str, Any]
    level: float
    modalities: dict[str, Modality] = field(default_factory=dict)
    """The kinds that write the values."""
    draws: dict[str, Values] = field(default_factory=dict)
    """Seeded draws (draws, patients, features) of each modality, where asked for."""
    obs: pd.DataFrame = field(default_factory=pd.DataFrame)
    """The cohort's, and ``evidence``: which modalities each patient has."""
    embedding: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Where the encoder puts each patient; see ``om.embed``."""

    def to_mudata(self) -> "MuData":
        """Return the completed tables as one MuData, ready for scanpy; pictures stay behind.

        ``obs`` has the cohort's endpoint, labels and ``evidence``, the modalities that a patient
        has. ``obsm["X_omnisurv"]``, of the whole and of each table, is where the encoder puts the
        patient. Where tables share feature names, all get their modality in front.
        """
        tables = {n: v for n, v in self.values.items() if not isinstance(v, FilledImages)}
        data, _ = join(tables)
        for column in self.obs:
            data.obs[column] = self.obs[column].reindex(data.obs_names)
        for part in (data, *data.mod.values()):
            part.obsm[EMBEDDING] = self.embedding.loc[part.obs_names].to_numpy()
        return data

    def save(self, folder: str | Path, *, tsv: bool = False) -> Path:
        """Write every modality in the field's format, and a manifest.

        Tables become one ``.h5ad`` (and ``.tsv`` with bounds on request), pictures a folder of
        files by patient.

        Raises:
            InputError: the folder cannot be written to.
        """
        folder = writable(Path(folder))
        manifest = {}
        for name, data in self.values.items():
            pictures = isinstance(data, FilledImages)
            place = writable(folder / name) if pictures else folder
            files = self.modalities[name].write(data, place)
            if tsv and not isinstance(data, FilledImages):
                _save_tsv(data, folder, name)
            manifest[name] = {**_told(data), "level": self.level}
            manifest[name]["files"] = [str(file.relative_to(folder)) for file in files]
        with atomic(folder / "imputation.json") as path:
            path.write_text(json.dumps(manifest, indent=1))
        return folder


def _told(data: "AnnData | FilledImages") -> dict[str, Any]:
    """Return what the manifest says of a modality."""
    if isinstance(data, FilledImages):
        whole = any_value = data.imputed
        told: dict[str, Any] = {"run": data.run}
    else:
        whole = data.obs["imputed"].to_numpy()
        any_value = np.any(data.layers["imputed"], axis=1)
        told = data.uns["omnisurv"]
    return {
        "patients": len(whole),
        "patients_without": int(whole.sum()),
        "patients_with_imputed_values": int(any_value.sum()),
        **told,
    }


def _save_tsv(data: "AnnData", folder: Path, name: str) -> None:
    for suffix, values in (
        ("", data.X),
        ("_low", data.layers["low"]),
        ("_high", data.layers["high"]),
        ("_imputed", np.asarray(data.layers["imputed"]).astype(int)),
    ):
        frame = pd.DataFrame(values, index=data.obs_names, columns=data.var_names)
        with atomic(folder / f"{name}{suffix}.tsv") as path:
            frame.to_csv(path, sep="\t")
