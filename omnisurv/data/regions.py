"""Labels of brain tumours: one set for all editions of BraTS, and the way there and back.

=========  =====================================================================  ===============
edition    labels in the files                                                    common
=========  =====================================================================  ===============
brats15    1 necrotic, 2 oedema, 3 not enhancing, 4 enhancing (2012 to 2016)      1, 3 → 1; 4 → 3
brats21    1 necrotic or not enhancing, 2 oedema, 4 enhancing (2017 to 2021)      4 → 3
brats23    1 necrotic or not enhancing, 2 oedema, 3 enhancing                     as they are
brats24    as 2023, and 4 resection cavity, which is no tumour                    4 → 0
msd        1 oedema, 2 not enhancing, 3 enhancing (Medical Segmentation Decathlon)  1 ↔ 2
=========  =====================================================================  ===============
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from omnisurv.errors import DataError

Edition = Literal["brats15", "brats21", "brats23", "brats24", "msd"]
Labels = NDArray[np.uint8]

BACKGROUND, CORE, OEDEMA, ENHANCING = 0, 1, 2, 3
"""Common labels; the core is its necrotic and not enhancing part."""
OUTSIDE = 255
"""Stands in a cube where it reaches beyond the volume."""
REGIONS: dict[str, tuple[int, ...]] = {
    "ET": (ENHANCING,),
    "TC": (CORE, ENHANCING),
    "WT": (CORE, OEDEMA, ENHANCING),
}
"""Enhancing tumour, tumour core and whole tumour: nested, each with its common labels."""

_COMMON: dict[str, dict[int, int]] = {
    "brats15": {1: CORE, 2: OEDEMA, 3: CORE, 4: ENHANCING},
    "brats21": {1: CORE, 2: OEDEMA, 4: ENHANCING},
    "brats23": {1: CORE, 2: OEDEMA, 3: ENHANCING},
    "brats24": {1: CORE, 2: OEDEMA, 3: ENHANCING, 4: BACKGROUND},
    "msd": {1: OEDEMA, 2: CORE, 3: ENHANCING},
}
LABELS: dict[str, frozenset[int]] = {name: frozenset(table) for name, table in _COMMON.items()}
"""Values above 0 in the label maps of an edition."""
UNSAID: Edition = "brats23"
"""The edition of label maps that hold 1 and 2 alone, where ``auto`` is said."""


class AmbiguousLabelsError(DataError):
    """Nobody knows which edition label maps are of: to go on without some would be a guess."""


def labels_in(labels: NDArray[Any]) -> list[float]:
    """Return the values of a label map that are not 0, sorted."""
    return [float(value) for value in np.unique(labels[labels != 0])]


def edition_of(values: Iterable[float], where: "Path | str") -> Edition | None:
    """Return the edition that values tell: 4 without 3 is 2017 to 2021, 3 without 4 is 2023.

    None if there is neither, which all editions from 2017 on agree on. ``msd`` cannot be told
    from 2023; it must be said.

    Raises:
        AmbiguousLabelsError: there are both.
    """
    held = {3.0, 4.0} & set(values)
    if len(held) == 2:
        raise AmbiguousLabelsError(
            f"{where} holds the labels 3 and 4, which BraTS 2015 and 2024 do, with other "
            "meanings; say `labels: brats15` or `labels: brats24`"
        )
    return None if not held else "brats21" if 4.0 in held else "brats23"


def check_labels(
    values: Iterable[float],
    edition: str,
    where: "Path | str",
    hint: str = "is it a label map?",
) -> None:
    """Raise DataError where a value is no label of the edition, or of any for ``auto``.

    ``hint`` says what to do where the labels fit no other edition either.
    """
    values = list(values)
    known = {label for labels in LABELS.values() for label in labels}
    for value in values:
        if value not in LABELS.get(edition, known):
            whose = "no BraTS edition has" if edition == "auto" else f"{edition} does not have"
            fits = [name for name, labels in LABELS.items() if set(values) <= labels]
            also = f" (or {', '.join(fits[1:])})" if len(fits) > 1 else ""
            hint = f"say `labels: {fits[0]}`{also}" if fits else hint
            raise DataError(f"{where} holds the label {value:g}, which {whose}; {hint}")


def to_common(labels: NDArray[Any], edition: str, where: "Path | str") -> Labels:
    """Return common labels (0 background, 1 core, 2 oedema, 3 enhancing) of an edition's.

    Args:
        labels: of any shape and dtype.
        edition: whose labels they are; ``auto`` tells it by the labels.
        where: the file, for the error.

    Raises:
        DataError: a label is none of the edition's, or ``auto`` cannot tell.
    """
    values = labels_in(labels)
    check_labels(values, edition, where)
    if edition == "auto":
        edition = edition_of(values, where) or UNSAID
    table = np.zeros(OUTSIDE + 1, np.uint8)
    for label, common in _COMMON[edition].items():
        table[label] = common
    return np.asarray(table[labels.astype(np.uint8)])


def from_common(labels: NDArray[Any], edition: str) -> Labels:
    """Return an edition's labels of common ones; what is outside the volume becomes background.

    What an edition tells apart and others do not cannot be had back: all of the core is 1 in
    ``brats15``, and ``brats24`` has no resection cavity.

    Raises:
        DataError: there is no such edition (``auto`` is none), or a label is not common.
    """
    if edition not in _COMMON:
        raise DataError(f"'{edition}' is no edition of labels; say {', '.join(_COMMON)}")
    table = np.zeros(OUTSIDE + 1, np.uint8)
    for label, common in reversed(_COMMON[edition].items()):
        if common != BACKGROUND:
            table[common] = label
    strange = set(labels_in(labels)) - {CORE, OEDEMA, ENHANCING, OUTSIDE}
    if strange:
        raise DataError(f"{min(strange):g} is no common label; they are 0 to 3, and 255 outside")
    return np.asarray(table[labels.astype(np.uint8)])
