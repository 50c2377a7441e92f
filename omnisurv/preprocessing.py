"""Raw downloads into tables, once: later commands read seconds instead of minutes."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from omnisurv.data.spec import DataSpec
from omnisurv.errors import DataError
from omnisurv.files import atomic, writable

if TYPE_CHECKING:
    from anndata import AnnData

    from omnisurv.data.cohort import Cohort

SAMPLES = ("gdc-star", "gdc-sesame")
"""Formats of one file a sample, which are what takes long to read."""


def preprocess(cohort: "Cohort", root: str | Path, out: str | Path) -> Path:
    """Write a cohort as tables with a data spec that reads them; return the spec.

    Modalities of one file a sample become one ``.h5ad`` each (the chosen sample of each patient);
    tables are copied. What was dropped, and why, stays in ``audit.csv``.

    Raises:
        DataError: the cohort has no spec, or a file of it lies outside ``root``.
        InputError: ``out`` cannot be written to.
    """
    spec = cohort.spec
    if spec is None:
        raise DataError("the cohort has no data spec, so nothing says what its tables are")
    root, out = Path(root), writable(Path(out))
    written = spec.model_dump(mode="json", exclude_unset=True)
    written.pop("root", None)
    for name, modality in spec.modalities.items():
        if modality.source.format in SAMPLES:
            data = cohort[name]
            with atomic(out / f"{name}.h5ad") as path:
                _plain(data).write_h5ad(path)
            written["modalities"][name]["source"] = _source(data, f"{name}.h5ad")
        else:
            _copy(modality.source.path, root, out)
    for table in _tables(spec):
        _copy(table, root, out)
    with atomic(out / "audit.csv") as path:
        cohort.audit.to_csv(path, index=False)
    with atomic(out / "cohort.yaml") as path:
        path.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
    return out / "cohort.yaml"


def _tables(spec: DataSpec) -> list[str]:
    """Return the tables of endpoint, labels and splits."""
    names = [label.table for label in spec.labels.values()]
    if spec.endpoint is not None:
        names += [spec.endpoint.table, spec.endpoint.follow_up_table or ""]
    return [name for name in dict.fromkeys([*names, spec.splits.table or ""]) if name]


def _source(data: "AnnData", path: str) -> dict[str, Any]:
    """Return the source that reads a written modality, nothing left to guess."""
    return {
        "format": "matrix",
        "path": path,
        "orientation": "samples_x_features",
        "id_column": "index",
        "scale": str(data.uns["scale"]),
    }


def _plain(data: "AnnData") -> "AnnData":
    """Return values and names alone; sample and file of each patient stand in the audit."""
    import anndata

    return anndata.AnnData(
        data.X, obs=data.obs[[]], var=data.var[[]], uns={"scale": str(data.uns["scale"])}
    )


def _copy(name: str, root: Path, out: Path) -> None:
    source, target = root / name, out / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"{name} lies outside the root folder {root}; move it there")
    if source.resolve() == target.resolve():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic(target) as path:
        shutil.copyfile(source, path)
        os.utime(path, (source.stat().st_atime, source.stat().st_mtime))
