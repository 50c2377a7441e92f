"""Pictures that were decoded before: an index of patients beside their arrays."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from omnisurv.data.audit import some
from omnisurv.data.images import Images
from omnisurv.data.readers.context import ReadContext
from omnisurv.data.sources import Source
from omnisurv.data.store import Decoded, Entry, find_entry, write_entry
from omnisurv.errors import DataError
from omnisurv.files import atomic

KEY = re.compile(r"[0-9a-f]{32}")
PLACE = ("root", "path")
"""Where a raw file lies is known when it is read, and no part of what was decoded."""


class StoredSource(Source):
    """What ``omnisurv preprocess`` has written of a modality: ``store/NAME.json``."""

    format: Literal["store"]


def read_stored(source: StoredSource, context: ReadContext, options: Mapping[str, Any]) -> Images:
    """Return the pictures in an index; raw files are not needed.

    Args:
        source: the index.
        context: folder and audit.
        options: the kind's options, by their names in a spec, that decoding depends on.

    Raises:
        DataError: no index, one decoded with other options, or not a picture of it is whole.
    """
    index = _inside(context.path(source.path), context.root)
    told = _read_index(index)
    _require_same(told["options"], options, source.path)
    entries, lost = [], []
    for patient, key in sorted(told["patients"].items()):
        entry = _find(index.parent, patient, key, context.root)
        file = str(Path(source.path).with_name(f"{key}.npy"))
        if entry is None:
            lost.append(patient)
            context.note("dropped", "damaged file: gone or cut short", file=file, patient=patient)
        else:
            path = told.get("files", {}).get(patient)
            entries.append(_with_path(entry, path, context.root))
            context.note("kept", "decoded before", file=file, patient=patient)
    if lost:
        reason = f"{len(lost)} pictures are gone or cut short: {some(lost)}"
        if not entries:
            raise DataError(f"{source.path}: {reason}; run `omnisurv preprocess` again")
        context.note("warning", f"{reason}; run `omnisurv preprocess` again", file=source.path)
    return Images(entries, told["scale"])


def write_stored(images: Images, index: Path, options: Mapping[str, Any]) -> None:
    """Write the index of a modality's pictures; what does not lie beside it is copied there.

    Args:
        images: the pictures.
        index: the file to write, ``….json``.
        options: the kind's options, by their names in a spec.

    Raises:
        InputError: the folder cannot be written to.
    """
    keys = {entry.patient: _keep(entry, index.parent) for entry in images.entries}
    files = {e.patient: e.meta["path"] for e in images.entries if _leads_inside(e.meta.get("path"))}
    told = {"scale": images.uns["scale"], "options": dict(options), "patients": keys}
    told |= {"files": files} if files else {}
    with atomic(index) as path:
        path.write_text(json.dumps(told, indent=1), encoding="utf-8")


def _keep(entry: Entry, folder: Path) -> str:
    """Return the key of a picture in the folder, where it is put if need be."""
    key = entry.key
    meta = {name: value for name, value in entry.meta.items() if name not in PLACE}
    if not KEY.fullmatch(key):  # a hash of the array alone, which knows not whose it is
        told = json.dumps([key, entry.patient, meta], sort_keys=True)
        key = hashlib.sha256(told.encode()).hexdigest()[:32]
    if find_entry(folder, entry.patient, key) is None:
        write_entry(folder, entry.patient, key, Decoded(entry.open(), meta))
    return key


def _leads_inside(path: object) -> bool:
    """Say whether this is a path that stays below the folder it starts in."""
    return isinstance(path, str) and not Path(path).is_absolute() and ".." not in Path(path).parts


def _with_path(entry: Entry, path: object, root: Path) -> Entry:
    """Return a picture with where its raw file lies, if that is beside the store."""
    if not _leads_inside(path):
        return entry
    place = {"root": str(root.absolute()), "path": path}
    return replace(entry, meta={**entry.meta, **place})


def _inside(file: Path, root: Path) -> Path:
    """Return the file; raise DataError if it lies outside the root folder, also by a link."""
    if not file.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{file} lies outside the root folder {root}; move it there")
    return file


def _find(folder: Path, patient: str, key: object, root: Path) -> Entry | None:
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise DataError(
            f"{folder}: '{key}' of {patient} is no key of a decoded picture; run `omnisurv "
            "preprocess` again"
        )
    _inside(folder / f"{key}.npy", root)
    return find_entry(folder, patient, key)


def _read_index(index: Path) -> dict[str, Any]:
    forms = {"scale": str, "options": dict, "patients": dict}
    try:
        told = json.loads(index.read_text(encoding="utf-8"))
        known = all(isinstance(told[name], form) for name, form in forms.items())
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise DataError(
            f"{index} is no index of decoded pictures; run `omnisurv preprocess` on the raw files"
        )
    return dict(told)


def _require_same(before: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Raise DataError if the spec wants pictures decoded in another way."""
    wanted = json.loads(json.dumps(dict(now)))
    other = [name for name in wanted if before.get(name) != wanted[name]]
    if other:
        said, says = (_as_spec(values, other) for values in (before, wanted))
        raise DataError(
            f"{where} was decoded with `{said}`, the spec says `{says}`; say the former, or run "
            "`omnisurv preprocess` on the raw files with the latter"
        )


def _as_spec(values: Mapping[str, Any], names: list[str]) -> str:
    shown = {name: values.get(name) for name in names}
    return ", ".join(f"{name}: {'null' if v is None else v}" for name, v in shown.items())
