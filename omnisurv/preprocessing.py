"""Raw files into tables and arrays, once: later commands read seconds instead of minutes."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from omnisurv.data.images import Images
from omnisurv.data.readers.stored import write_stored
from omnisurv.data.segmentation import shared_cube
from omnisurv.data.spec import DataSpec, ModalitySpec
from omnisurv.errors import DataError
from omnisurv.files import atomic, writable
from omnisurv.registry import modalities as kinds

if TYPE_CHECKING:
    from anndata import AnnData

    from omnisurv.data.cohort import Cohort

SAMPLES = ("gdc-star", "gdc-sesame")
"""Formats of one file a sample, which are what takes long to read."""
DAMAGED = "damaged file: "
"""How the audit begins the reason of what could not be read."""
STORE = "store"
"""Folder of decoded arrays inside the one that is written."""


def preprocess(cohort: "Cohort", root: str | Path, out: str | Path) -> Path:
    """Write a cohort as tables and arrays with a data spec that reads them; return the spec.

    Modalities of one file a sample become one ``.h5ad`` each (the chosen sample of each patient),
    pictures arrays in ``store/`` with an index; tables are copied. Nothing in ``out`` points out
    of it. What was dropped, and why, stays in ``audit.csv``.

    Args:
        cohort: read with ``Store(out / "store")``, pictures lie where they belong; decoded
            elsewhere, they are copied.
        root: folder of the cohort's files.
        out: folder to write.

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
        data = cohort[name]
        if isinstance(data, Images):
            source = _write_pictures(data, modality, out, name)
        elif modality.source.format in SAMPLES:
            source = _write_table(data, spec, out, name)
        else:
            _copy(modality.source.path, root, out)
            continue
        written["modalities"][name]["source"] = source
    if cohort.label_maps is not None:
        written["segmentation"] |= _write_label_maps(cohort.label_maps, spec, out)
    for table in _tables(spec):
        _copy(table, root, out)
    with atomic(out / "audit.csv") as path:
        cohort.audit.to_csv(path, index=False)
    with atomic(out / "cohort.yaml") as path:
        path.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
    return out / "cohort.yaml"


def damaged(cohort: "Cohort") -> list[str]:
    """Return the files that could not be read, with the reason, a line each."""
    rows = cohort.audit[cohort.audit["reason"].str.startswith(DAMAGED)]
    lines = []
    for modality, file, text in zip(rows["modality"], rows["file"], rows["reason"], strict=True):
        reason = text.removeprefix(DAMAGED)
        lines.append(f"{modality}: {reason if file in reason else f'{file}: {reason}'}")
    return lines


def _tables(spec: DataSpec) -> list[str]:
    """Return the tables of endpoint, labels and splits."""
    names = [label.table for label in spec.labels.values()]
    if spec.endpoint is not None:
        names += [spec.endpoint.table, spec.endpoint.follow_up_table or ""]
    return [name for name in dict.fromkeys([*names, spec.splits.table or ""]) if name]


def _write_pictures(data: Images, modality: ModalitySpec, out: Path, name: str) -> dict[str, Any]:
    """Write the index of a modality's pictures; return the source that reads it."""
    index = writable(out / STORE) / _file(name, "json")
    options = kinds.get(modality.kind).Options(**modality.options)
    write_stored(data, index, options.model_dump(mode="json"))
    return {"format": "store", "path": f"{STORE}/{index.name}"}


def _write_label_maps(maps: Images, spec: DataSpec, out: Path) -> dict[str, Any]:
    """Write the index of the label maps; return what reads it, their edition told."""
    assert spec.segmentation is not None
    index = writable(out / STORE) / "segmentation.labels.json"
    cube = shared_cube(spec.modalities, spec.name)
    told = {str(entry.meta["edition"]) for entry in maps.entries}
    edition = told.pop() if told else spec.segmentation.labels
    write_stored(maps, index, {**cube, "labels": edition})
    return {"source": {"format": "store", "path": f"{STORE}/{index.name}"}, "labels": edition}


def _write_table(data: "AnnData", spec: DataSpec, out: Path, name: str) -> dict[str, Any]:
    """Write a modality's table; return the source that reads it, nothing left to guess."""
    for patient in data.obs_names:
        if spec.patients.patient(patient) != patient:
            raise DataError(
                f"`patients: {{id: {spec.patients.id}}}` does not find '{patient}' again in the "
                f"bare id '{patient}', which is all that a table has; let the pattern match it too"
            )
    path = _file(name, "h5ad")
    with atomic(out / path) as target:
        _plain(data).write_h5ad(target)
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


def _file(name: str, ending: str) -> str:
    if not _is_inside(name) or len(Path(name).parts) != 1:
        raise DataError(f"modality '{name}': no file can have this name; choose another")
    return f"{name}.{ending}"


def _copy(name: str, root: Path, out: Path) -> None:
    source, target = root / name, out / name
    if not _is_inside(name):
        raise DataError(f"{name} lies outside the root folder {root}; move it there")
    if source.resolve() == target.resolve():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic(target) as path:
        shutil.copyfile(source, path)
        os.utime(path, (source.stat().st_atime, source.stat().st_mtime))


def _is_inside(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts
