"""Folders that nnU-Net reads: a file for each channel of a case, and a ``dataset.json``.

``imagesTr/CASE_0000.nii.gz`` (and ``imagesTs``), ``labelsTr/CASE.nii.gz``. Which sequence channel
``0000`` is says ``channel_names``, in version 1 ``modality``. nnU-Net wants all channels of a
case; here any may be missing.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from omnisurv.data.images import Images
from omnisurv.data.readers.brats import Case, MappedFolder, scans_of, volumes_in
from omnisurv.data.readers.context import ReadContext
from omnisurv.data.readers.scans import ENDINGS, Scans, canonical_name, read_scans
from omnisurv.data.regions import Edition
from omnisurv.errors import DataError, did_you_mean

IMAGES, LABELS = ("imagesTr", "imagesTs"), ("labelsTr", "labelsTs")
CHANNEL = re.compile(r"^(.+)_(\d{4})$")
_OEDEMA = re.compile(r"edema|\bSNFH\b", re.IGNORECASE)
_CORE = re.compile(r"core|\bTC\b", re.IGNORECASE)


class NnunetFolder(MappedFolder):
    """A dataset of nnU-Net (``nnUNet_raw/Dataset001_NAME``, or a task of version 1)."""

    format: Literal["nnunet"]


class NnunetSource(NnunetFolder):
    """One sequence of such a dataset."""

    sequence: str
    """A channel's name in ``dataset.json``, or another name of the same sequence."""


def read_nnunet(source: NnunetSource, context: ReadContext, options: Mapping[str, Any]) -> Images:
    """Return the cubes of one sequence of each patient who has it.

    Raises:
        DataError: no channel is this sequence, or what ``find_nnunet`` refuses.
    """
    names = set(_channels(context.path(source.path)).values())
    wanted = canonical_name(source.sequence)
    found = next((name for name in names if name.lower() == wanted.lower()), None)
    if found is None:
        raise DataError(
            f"{source.path}/dataset.json has no channel '{source.sequence}'."
            + did_you_mean(wanted, names)
        )
    return read_scans(find_nnunet(source, context), found, context, options)


def find_nnunet(source: NnunetFolder, context: ReadContext) -> list[Scans]:
    """Return the files of each patient, label maps included; of several visits the earliest.

    Raises:
        DataError: it is no dataset of nnU-Net, its files are no NIfTI, or nothing says whose the
            cases are.
    """
    folder = context.path(source.path)
    channels = _channels(folder)
    cases: dict[str, Case] = {}
    for file in _volumes(folder, IMAGES):
        named = CHANNEL.match(ENDINGS.sub("", file.name))
        if named is None or int(named[2]) not in channels:
            what = "dataset.json names no such channel" if named else "not named CASE_0000"
            context.note("dropped", what, file=_inside(file, context))
            continue
        case = cases.setdefault(named[1], Case(named[1]))
        case.files.append((channels[int(named[2])], file))
    if not cases:
        raise DataError(f"{folder} has no volume such as imagesTr/CASE_0000.nii.gz")
    for file in _volumes(folder, LABELS):
        name = ENDINGS.sub("", file.name)
        if name in cases:
            cases[name].labels.append(file)
    return scans_of(sorted(cases.values(), key=lambda case: case.name), source, context)


def told_edition(source: NnunetFolder, context: ReadContext) -> Edition:
    """Return the edition of the label maps, as ``dataset.json`` tells it.

    nnU-Net's conversions of BraTS and the Medical Segmentation Decathlon call oedema 1 (``msd``),
    BraTS 2023 calls it 2, and no value tells one from the other.

    Raises:
        DataError: the names of the labels tell neither.
    """
    named = _description(context.path(source.path)).get("labels") or {}
    version_1 = any(str(name).isdigit() for name in named)
    values = {str(v): n for n, v in named.items()} if version_1 else dict(named)
    sets = {name: {int(v) for v in np.atleast_1d(value)} for name, value in values.items()}
    theirs: Edition = "brats24" if any(4 in told for told in sets.values()) else "brats23"
    for name, told in sets.items():
        if _OEDEMA.search(name) and told in ({1}, {2}):
            return "msd" if told == {1} else theirs
        if _CORE.search(name) and told in ({2, 3}, {1, 3}):
            return "msd" if told == {2, 3} else theirs
    raise DataError(
        f"{source.path}/dataset.json does not say which label is oedema ({', '.join(values)}); say "
        "`labels: msd` if it is 1, as in nnU-Net's conversions, or `labels: brats23` if it is 2"
    )


def _channels(folder: Path) -> dict[int, str]:
    """Return the sequence of each channel."""
    told = _description(folder)
    names = told.get("channel_names") or told.get("modality")
    if not isinstance(names, dict) or not all(str(key).isdigit() for key in names):
        raise DataError(
            f'{folder}/dataset.json has no `channel_names` such as {{"0": "T1", "1": "FLAIR"}}'
        )
    ending = told.get("file_ending", ".nii.gz")
    if not ENDINGS.search(str(ending)):
        raise DataError(f"{folder}: files end with {ending}, and only .nii and .nii.gz are read")
    return {int(key): canonical_name(str(name)) for key, name in names.items()}


def _description(folder: Path) -> dict[str, Any]:
    file = folder / "dataset.json"
    if not file.is_file():
        raise DataError(
            f"{folder} has no dataset.json; give the folder of one dataset, such as "
            "nnUNet_raw/Dataset001_NAME"
        )
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}") from None
    if not isinstance(told, dict):
        raise DataError(f"{file} describes no dataset")
    return told


def _volumes(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [file for name in names for file in volumes_in(folder / name)]


def _inside(file: Path, context: ReadContext) -> str:
    return str(file.relative_to(context.root)) if file.is_relative_to(context.root) else str(file)
