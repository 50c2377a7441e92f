"""Files of a download, parsed once: each patient's best sample that can be read."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from omnisurv.data.barcodes import Sample
from omnisurv.data.readers.context import ReadContext
from omnisurv.data.readers.gdc import Download
from omnisurv.data.readers.samples import note_choice
from omnisurv.data.store import Decode, Entry, Unit
from omnisurv.errors import DataError

if TYPE_CHECKING:
    import pyarrow

T = TypeVar("T")

PARSED = "omics"
"""Folder inside the store: nothing but a second reading of the raw files needs what is in it."""


@dataclass
class Layouts:
    """The distinct lists of features that files have, by their hash; most files share one."""

    read: "Callable[[Path], pyarrow.Array]"
    """Returns the list of features of a file."""
    known: "dict[str, pyarrow.Array]" = field(default_factory=dict)

    def learn(self, layout: str, file: Path) -> None:
        """Read the list of this hash, if it is new, from a file that has it."""
        if layout not in self.known:
            self.known[layout] = self.read(file)

    def used(self, chosen: "Iterable[Chosen[Any]]") -> list[str]:
        """Return the lists of what was chosen, in the order in which they were found."""
        wanted = {one.layout for one in chosen}
        return [layout for layout in self.known if layout in wanted]

    def truncated(self) -> set[str]:
        """Return the lists that are only the beginning of another: files cut short."""
        lists = self.known.values()
        return {
            short
            for short, ids in self.known.items()
            if any(len(o) > len(ids) and o.slice(0, len(ids)).equals(ids) for o in lists)
        }


def hash_of(ids: "pyarrow.Array") -> str:
    """Return what tells this list of features from all others."""
    import pyarrow
    from pyarrow import compute

    rows = pyarrow.ListArray.from_arrays([0, len(ids)], ids)
    joined = compute.binary_join(rows, "\n")[0]
    return hashlib.sha256(joined.as_buffer()).hexdigest()


@dataclass(frozen=True)
class Chosen(Generic[T]):
    """What was read of one patient."""

    sample: Sample
    layout: str
    payload: T


@dataclass(frozen=True)
class Parser(Generic[T]):
    """How the files of one sort are read.

    Attributes:
        decode: parses one file for the store; ``meta["layout"]`` is the hash of its features.
        options: of ``decode``.
        accept: returns what is kept of a file, given its values and layout; raises DataError if
            it cannot be used after all.
        layouts: lists of features of the files.
    """

    decode: Decode
    options: dict[str, Any]
    accept: "Callable[[Path, NDArray[Any], str], T]"
    layouts: Layouts


def read_best(download: Download, parser: Parser[T], context: ReadContext) -> dict[str, Chosen[T]]:
    """Read each patient's best sample that can be read; damaged files are named and skipped.

    All patients' best samples are read at once, then the next best of those whose file could
    not be used.

    Raises:
        DataError: not a single file could be read.
    """
    left = {patient: list(samples) for patient, samples in download.ranked.items()}
    chosen: dict[str, Chosen[T]] = {}
    failed = 0
    waiting = list(left)
    while waiting:
        tried = {patient: left[patient].pop(0) for patient in waiting if left[patient]}
        for patient, found in _read(tried, download, parser, context).items():
            if isinstance(found, DataError):
                failed += 1
                _note_failure(patient, tried[patient], str(found), context)
            else:
                chosen[patient] = Chosen(tried[patient], *found)
        short = parser.layouts.truncated()
        for patient in [p for p, one in chosen.items() if one.layout in short]:
            failed += 1
            _note_failure(patient, chosen.pop(patient).sample, "cut short", context)
        waiting = [patient for patient in left if patient not in chosen and left[patient]]
    if failed:
        context.note("warning", f"{failed} files could not be used, the audit names them")
    if not chosen:
        raise DataError(f"none of the {failed} files could be read; the first: {_last(context)}")
    for patient, one in chosen.items():
        note_choice(patient, one.sample, left[patient], context, "")
    return dict(sorted(chosen.items()))


def _read(
    samples: dict[str, Sample], download: Download, parser: Parser[T], context: ReadContext
) -> "dict[str, tuple[str, T] | DataError]":
    """Return layout and payload of a sample of each patient, or why it cannot be used."""
    files = {patient: download.files[sample.position] for patient, sample in samples.items()}
    found: dict[str, Any] = {
        patient: _why_not_whole(file, download.sizes) for patient, file in files.items()
    }
    units = [Unit(patient, (file,)) for patient, file in files.items() if found[patient] is None]
    store = replace(context.store, folder=context.store.folder / PARSED)
    for unit, entry in zip(units, store.fetch(units, parser.decode, parser.options), strict=True):
        (file,) = unit.files
        try:
            found[unit.patient] = _accept(file, entry, parser)
        except DataError as problem:  # the audit has a column for the file
            found[unit.patient] = DataError(str(problem).removeprefix(f"{file}: "))
    return found


def _accept(file: Path, entry: Entry | DataError, parser: Parser[T]) -> tuple[str, T]:
    if isinstance(entry, DataError):
        raise entry
    layout = str(entry.meta["layout"])
    parser.layouts.learn(layout, file)
    # A copy, as every mapped file would stay open.
    return layout, parser.accept(file, np.array(entry.open()), layout)


def _why_not_whole(path: Path, sizes: dict[str, int]) -> DataError | None:
    actual = path.stat().st_size
    if actual == 0:
        return DataError("empty file")
    promised = sizes.get(path.name)
    if promised is not None and promised != actual:
        return DataError(f"has {actual} bytes, the manifest says {promised}")
    return None


def _note_failure(patient: str, sample: Sample, reason: str, context: ReadContext) -> None:
    context.note(
        "dropped", f"damaged file: {reason}", file=sample.file, patient=patient, sample=sample.name
    )


def _last(context: ReadContext) -> str:
    damaged = [row for row in context.audit.rows if row[-1].startswith("damaged file")]
    return f"{damaged[0][1]}: {damaged[0][-1]}" if damaged else "no reason known"
