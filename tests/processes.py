"""Processes for tests to kill, each forked from one that has imported what they need."""

from multiprocessing import get_context
from pathlib import Path

import pytest

CONTEXT = get_context("forkserver")
PRELOADED = ["lightning.fabric", "omnisurv.training", "tests.tuning_worker"]


def start(target, *args):
    """Call a function of a module in a process of its own, which ends with the tests."""
    CONTEXT.set_forkserver_preload(PRELOADED)
    process = CONTEXT.Process(target=target, args=args, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        process.start()
    return process
