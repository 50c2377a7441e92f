"""Processes that work beside each other, and what to say when those that decode are killed."""

import os
import signal
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from multiprocessing import get_context, parent_process
from threading import Thread

from omnisurv.errors import InputError


def processes(count: int) -> ProcessPoolExecutor:
    """Return so many processes, which finish what they are at when the user stops the run."""
    # Forking a process that has threads (torch, BLAS) may hang it.
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_begin)


def helpers(count: int) -> AbstractContextManager[ProcessPoolExecutor | None]:
    """Give so many processes; None for one, for this process can do it itself."""
    return processes(count) if count > 1 else nullcontext()


def given_up(error: Exception, kept: int, wanted: int) -> InputError:
    """Return what to say when not a file was at fault, but what decodes it.

    Args:
        error: what the pool says.
        kept: files that are stored by now.
        wanted: files that were to be.
    """
    so_far = f"{kept} of {wanted} are decoded and kept, the same command goes on there"
    if isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker":  # dask's
        return InputError(
            f"a process that decodes was killed, most likely for want of memory; {so_far}; give it "
            "more memory or fewer --workers"
        )
    said = " ".join(str(error).split())[:200]
    return InputError(
        f"the processes that decode gave up with {type(error).__name__} ({said}); {so_far}; check "
        "that omnisurv is installed where they run, and that they see the files"
    )


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each has one core; torch is not loaded yet
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the parent is killed; the pool alone would wait for its next file for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
