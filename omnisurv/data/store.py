"""Raw files decoded once into memory-mapped arrays, keyed by content and options."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omnisurv.errors import DataError
from omnisurv.files import atomic, writable

FORMAT = 1
"""Version of stored arrays; part of every key."""
WHOLE = 64 * 2**20
"""Files up to this many bytes are hashed whole; of larger ones begin, middle and end."""
SAMPLE = 4 * 2**20

Progress = Callable[[int, int], None]
"""Called with (done, all) as units are finished."""


@dataclass(frozen=True)
class Unit:
    """What is decoded in one go: the raw files of one patient in one modality.

    Attributes:
        patient: whose they are.
        files: existing files; their content is part of the key.
        told: what else the decoder needs, as JSON knows it; part of the key.
    """

    patient: str
    files: tuple[Path, ...]
    told: Mapping[str, Any] = field(default_factory=dict)


class Decoded(NamedTuple):
    """A decoded array and what is known of it (JSON-able)."""

    array: NDArray[Any]
    meta: dict[str, Any]


Decode = Callable[[Unit, Mapping[str, Any]], Decoded]
"""A module's own function, so that other processes find it; raises DataError naming the file."""


@dataclass(frozen=True)
class Entry:
    """A stored array, or one in memory."""

    patient: str
    array: Path | NDArray[Any]
    meta: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Return what tells this array from all others: its key in the store, or its hash."""
        if isinstance(self.array, Path):
            return self.array.stem
        return hashlib.sha256(np.ascontiguousarray(self.array).tobytes()).hexdigest()

    def open(self) -> NDArray[Any]:
        """Return the array, memory-mapped where it lies on disk."""
        if isinstance(self.array, Path):
            return np.load(self.array, mmap_mode="r", allow_pickle=False)
        return self.array


@dataclass(frozen=True)
class Store:
    """A folder of decoded arrays, ``KEY.npy`` with ``KEY.json`` beside.

    A killed run leaves whole entries or none, so the next one goes on where it stopped.

    Attributes:
        folder: where the arrays lie.
        workers: processes that decode.
        progress: told of every finished unit.
        pool: runs the work elsewhere, such as ``dask.distributed.Client.get_executor()``; its
            workers must see the folder and the raw files.
    """

    folder: Path
    workers: int = 1
    progress: Progress | None = None
    pool: Executor | None = None

    def fetch(
        self, units: Sequence[Unit], decode: Decode, options: Mapping[str, Any]
    ) -> list[Entry | DataError]:
        """Return the array of each unit, or why there is none; only what is new is decoded.

        Raises:
            InputError: the folder cannot be written to.
        """
        jobs = [_Job(unit, decode, dict(options), str(self.folder)) for unit in units]
        found: dict[int, Entry | DataError] = {}
        for index, job in enumerate(jobs):
            entry = job.find()
            if entry is not None:
                found[index] = entry
        todo = [index for index in range(len(jobs)) if index not in found]
        if todo:
            writable(self.folder)
        for count, (index, result) in enumerate(self._run(jobs, todo), start=1):
            found[index] = result
            if self.progress is not None:
                self.progress(len(jobs) - len(todo) + count, len(jobs))
        return [found[index] for index in range(len(jobs))]

    def _run(
        self, jobs: "list[_Job]", todo: list[int]
    ) -> "Iterable[tuple[int, Entry | DataError]]":
        if self.pool is None and (self.workers < 2 or len(todo) < 2):
            for index in todo:
                yield index, jobs[index].run()
            return
        # Forking a process that has threads (torch, BLAS) may hang it.
        pool = self.pool or ProcessPoolExecutor(
            min(self.workers, len(todo)), mp_context=get_context("spawn")
        )
        try:
            waiting = {pool.submit(jobs[index].run): index for index in todo}
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        finally:
            if pool is not self.pool:
                pool.shutdown(cancel_futures=True)


def default_folder() -> Path:
    """Return where arrays are kept if nobody says: OMNISURV_CACHE, or the user's cache."""
    named = os.environ.get("OMNISURV_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else home / "omnisurv"


def fingerprint(file: Path) -> str:
    """Return a hash of a file's size and content; of large files three samples stand for all."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as stream:
        if size <= WHOLE:
            digest.update(stream.read())
        else:
            for start in (0, size // 2, size - SAMPLE):
                stream.seek(start)
                digest.update(stream.read(SAMPLE))
    return digest.hexdigest()


@dataclass(frozen=True)
class _Job:
    """One unit with all that a worker needs."""

    unit: Unit
    decode: Decode
    options: dict[str, Any]
    folder: str

    def key(self) -> str:
        told = {
            "format": FORMAT,
            "decode": f"{self.decode.__module__}.{self.decode.__qualname__}",
            "patient": self.unit.patient,
            "files": [[file.name, fingerprint(file)] for file in self.unit.files],
            "told": dict(self.unit.told),
            "options": self.options,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]

    def find(self) -> Entry | DataError | None:
        """Return what is stored; None if nothing is."""
        try:
            array, meta = self._paths()
        except OSError as error:
            return DataError(f"{self.unit.files[0]} cannot be read: {error.strerror or error}")
        if not meta.is_file():
            return None
        return Entry(self.unit.patient, array, json.loads(meta.read_text(encoding="utf-8")))

    def run(self) -> Entry | DataError:
        """Decode and store; a file that cannot be read is an answer, not an exception."""
        try:
            decoded = self.decode(self.unit, self.options)
        except DataError as error:
            return error
        array, meta = self._paths()
        with atomic(array) as path, path.open("wb") as file:
            np.save(file, decoded.array, allow_pickle=False)
        with atomic(meta) as path:  # last: an array without it does not count
            path.write_text(json.dumps(decoded.meta), encoding="utf-8")
        return Entry(self.unit.patient, array, decoded.meta)

    def _paths(self) -> tuple[Path, Path]:
        key = self.key()
        return Path(self.folder) / f"{key}.npy", Path(self.folder) / f"{key}.json"
