"""Where a study lives, so that many workers share it and a killed one's trial is done again."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from optuna import Study, Trial
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import (
    BaseStorage,
    InMemoryStorage,
    JournalStorage,
    RDBStorage,
    RetryHeartbeatStaleTrialCallback,
)
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from omnisurv.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

HEARTBEAT = 60
"""Seconds between two signs of life of a worker; after twice as many its trial is stale."""
RETRIES = 3
"""Times that a trial is done again whose workers died."""
LEASE = "omnisurv:alive"
"""Attribute of a trial in a journal: when its worker was last alive, seconds since 1970."""


class LeasedJournal(JournalStorage, BaseHeartbeat):
    """A journal whose trials are leased, which Optuna's own is not: there the dead run for ever.

    The worker of a trial renews its lease with every heartbeat. A trial whose lease has run out is
    failed and queued again by the next worker that asks for one. Clocks of machines that share a
    journal have to agree to within a heartbeat.
    """

    def __init__(self, backend: BaseJournalBackend, heartbeat: int) -> None:
        super().__init__(backend)
        self._heartbeat = heartbeat
        self._retry = _retry()

    def record_heartbeat(self, trial_id: int) -> None:
        """Renew the lease of a running trial."""
        try:
            self.set_trial_system_attr(trial_id, LEASE, time.time())
        except UpdateFinishedTrialError:  # taken for dead, after a long sleep
            return

    def get_heartbeat_interval(self) -> int:
        """Return the seconds between two heartbeats."""
        return self._heartbeat

    def get_heartbeat_stale_trial_callback(self) -> Callable[[Study, FrozenTrial], None]:
        """Return what queues a dead worker's trial again."""
        return self._retry

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        oldest = time.time() - 2 * self._heartbeat
        return [trial._trial_id for trial in running if _alive(trial) < oldest]


def _alive(trial: FrozenTrial) -> float:
    """Return when a running trial's worker was last alive; it begins before its first beat."""
    begun: datetime | None = trial.datetime_start
    lease = float(trial.system_attrs.get(LEASE, 0.0))
    return max(lease, begun.timestamp() if begun is not None else 0.0)


def open_storage(place: str | BaseStorage | None, heartbeat: int = HEARTBEAT) -> BaseStorage:
    """Return the storage at a place, with heartbeats.

    Args:
        place: a journal file; a database (``sqlite:///study.db``, ``postgresql://user@host/db``);
            a storage of Optuna's, which is returned as it is; None for memory.
        heartbeat: seconds between two signs of life of a worker.

    Raises:
        InputError: the database does not answer, or its driver is not installed.
    """
    if place is None:
        return InMemoryStorage()
    if isinstance(place, BaseStorage):
        return place
    if "://" not in place:
        try:
            return LeasedJournal(JournalFileBackend(place), heartbeat)
        except OSError as error:
            raise InputError(
                f"--storage {place}: {error.strerror or error}; give a file to write, or a URL"
            ) from None
    return _open_database(place, heartbeat)


def _open_database(url: str, heartbeat: int, attempts: int = 3) -> RDBStorage:
    from sqlalchemy.exc import SQLAlchemyError

    # Workers on one SQLite file wait for each other.
    settings: dict[str, Any] = (
        {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    )
    try:
        with quiet():
            return RDBStorage(
                url,
                settings,
                heartbeat_interval=heartbeat,
                heartbeat_stale_trial_callback=_retry(),
            )
    except ImportError:
        raise InputError(
            f"--storage {_kind(url)}: no driver for it is installed; for PostgreSQL: "
            "pip install 'omnisurv[tune]'"
        ) from None
    except SQLAlchemyError as error:
        said = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
        if attempts > 1 and ("already exists" in said or "unique" in said.lower()):
            time.sleep(0.5)  # workers that start together make the tables at the same time
            return _open_database(url, heartbeat, attempts - 1)
        raise InputError(
            f"--storage {_kind(url)}: {said}; a URL is like sqlite:///study.db or "
            "postgresql://user@host/database"
        ) from None


def beats(storage: BaseStorage) -> bool:
    """Return whether the storage tells the dead from the running."""
    return isinstance(storage, BaseHeartbeat) and storage.get_heartbeat_interval() is not None


def superseded(trials: "Sequence[FrozenTrial]") -> set[int]:
    """Return the numbers of trials whose worker died and that were queued again."""
    return {number for t in trials for number in t.system_attrs.get("retry_history", [])}


def original(trial: Trial) -> int:
    """Return the number of the trial that this one does again, or its own."""
    return int(_frozen(trial).system_attrs.get("failed_trial", trial.number))


def again(trial: Trial) -> None:
    """Queue a trial that is being stopped once more."""
    trial.set_user_attr("reason", "stopped")
    _retry()(trial.study, _frozen(trial))


def _frozen(trial: Trial) -> FrozenTrial:
    return trial.study.get_trials(deepcopy=False)[trial.number]


@contextmanager
def quiet() -> Iterator[None]:
    """Do not warn of what Optuna calls experimental: heartbeats and ``WilcoxonPruner``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _retry() -> RetryHeartbeatStaleTrialCallback:
    with quiet():
        return RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)


def _kind(url: str) -> str:
    """Return the URL without user and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
