"""Raw files decoded once into memory-mapped arrays, keyed by content and options."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omnisurv.data.workers import given_up, processes
from omnisurv.errors import DataError, InputError
from omnisurv.files import atomic, writable

FORMAT = 2
"""Version of stored arrays; part of every key."""
WHOLE = 64 * 2**20
"""Files up to this many bytes are hashed whole; of larger ones begin, middle and end."""
SAMPLE = 4 * 2**20
READERS = 4
"""Files that are hashed at once: disks and networks answer several questions in the time of one."""
STALE = 3600
"""Seconds after which an unfinished file is that of a killed run."""

Progress = Callable[[int, int], None]
"""Called with (done, all) raw files before the first and after each unit is decoded."""


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

    def __post_init__(self) -> None:
        """Make paths absolute: the decoder may run on another machine, in another folder."""
        object.__setattr__(self, "files", tuple(file.absolute() for file in self.files))


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
        workers: processes that decode. A script that asks for several must stand below
            ``if __name__ == "__main__":``, as multiprocessing has it.
        progress: told how many raw files are done.
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
            InputError: the folder cannot be written to, or a process that decodes was killed.
        """
        folder = self.folder.absolute()  # as workers elsewhere must find it
        keys = _keys_of(units, decode, options)
        found: dict[str | DataError, Entry | DataError] = {}
        jobs: list[_Job] = []
        for key, unit in dict(zip(keys, units, strict=True)).items():
            if isinstance(key, DataError):
                found[key] = key
                continue
            job = _Job(unit, decode, dict(options), folder, key)
            entry = job.find()
            if entry is None:
                jobs.append(job)
            else:
                found[key] = entry
        if jobs:
            _prepare(folder)
        for job, result in self._run(jobs, sum(len(unit.files) for unit in units)):
            found[job.key] = result
        return [found[key] for key in keys]

    def _run(
        self, jobs: "Sequence[_Job]", files: int
    ) -> "Iterator[tuple[_Job, Entry | DataError]]":
        """Yield jobs as they are finished, and tell of their progress among all ``files``."""
        tell = self.progress or _silent
        done = files - sum(len(job.unit.files) for job in jobs)
        if jobs:
            tell(done, files)
        for job, result in self._finished(jobs):
            done += len(job.unit.files)
            tell(done, files)
            yield job, result

    def _finished(self, jobs: "Sequence[_Job]") -> "Iterator[tuple[_Job, Entry | DataError]]":
        if self.pool is None and (self.workers < 2 or len(jobs) < 2):
            yield from ((job, job.run()) for job in jobs)
            return
        waiting: dict[Future[Entry | DataError], _Job] = {}
        with ExitStack() as stack:
            pool = self.pool or stack.enter_context(processes(min(self.workers, len(jobs))))
            try:
                for job in jobs:
                    waiting[pool.submit(job.run)] = job
                for future in as_completed(waiting):
                    yield waiting[future], future.result()
            except InputError:
                raise
            except Exception as error:
                kept = sum(job.find() is not None for job in jobs)
                raise given_up(error, kept, len(jobs)) from error
            finally:
                for future in waiting:
                    future.cancel()


def find_entry(folder: Path, patient: str, key: str) -> Entry | None:
    """Return what is stored under a key; None if nothing is, or if it is cut short."""
    array = folder / f"{key}.npy"
    try:
        meta = json.loads(array.with_suffix(".json").read_text(encoding="utf-8"))
        entry = Entry(patient, array, meta)
        whole = isinstance(meta, dict) and isinstance(entry.open(), np.ndarray)
    except (OSError, EOFError, ValueError):  # not there, no JSON, shorter than its header says
        return None
    return entry if whole else None


def write_entry(folder: Path, patient: str, key: str, decoded: Decoded) -> Entry:
    """Store an array and what is known of it, whole or not at all.

    Raises:
        InputError: the disk is full or the folder cannot be written to.
    """
    told = json.dumps(decoded.meta)
    array = folder / f"{key}.npy"
    with atomic(array) as path, path.open("wb") as file:
        np.save(file, decoded.array, allow_pickle=False)
    with atomic(array.with_suffix(".json")) as path:  # last: an array without it does not count
        path.write_text(told, encoding="utf-8")
    return Entry(patient, array, json.loads(told))


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
    folder: Path
    key: str

    def find(self) -> Entry | None:
        """Return what is stored; None if nothing is."""
        return find_entry(self.folder, self.unit.patient, self.key)

    def run(self) -> Entry | DataError:
        """Decode and store; a file that cannot be read is an answer, not an exception."""
        try:
            decoded = self.decode(self.unit, self.options)
            return write_entry(self.folder, self.unit.patient, self.key, decoded)
        except DataError as error:
            return error
        except InputError:  # a full disk or a package that is not there stops all files alike
            raise
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            return DataError(
                f"{self.unit.files[0]} cannot be decoded: {type(error).__name__}: {said}; if the "
                "file is whole, please report this"
            )


def _keys_of(
    units: Sequence[Unit], decode: Decode, options: Mapping[str, Any]
) -> list[str | DataError]:
    """Return the key of each unit, or why its files cannot be read."""

    def key(unit: Unit) -> str | DataError:
        try:
            files = [[file.name, fingerprint(file)] for file in unit.files]
        except OSError as error:
            where = error.filename or unit.files[0]
            return DataError(f"{where} cannot be read: {error.strerror or error}")
        told = {
            "format": FORMAT,
            "decode": f"{decode.__module__}.{decode.__qualname__}",
            "patient": unit.patient,
            "files": files,
            "told": dict(unit.told),
            "options": dict(options),
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]

    with ThreadPoolExecutor(READERS) as threads:
        return list(threads.map(key, units))


def _prepare(folder: Path) -> None:
    """Create the folder, and remove what killed runs have left unfinished in it."""
    try:
        writable(folder)
    except InputError as error:
        raise InputError(f"{error} or OMNISURV_CACHE") from error
    for file in folder.glob(".*.tmp"):
        with suppress(OSError):  # another process may be faster
            if time.time() - file.stat().st_mtime > STALE:
                file.unlink()


def _silent(done: int, files: int) -> None:
    """Tell nobody."""
