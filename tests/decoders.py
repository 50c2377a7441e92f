"""Decoders for tests of the store, in a module of their own so that other processes find them."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from omnisurv.data.store import Decoded, Unit
from omnisurv.errors import DataError, InputError


def decode_numbers(unit: Unit, options: Mapping[str, Any]) -> Decoded:
    """Return the numbers in a file times ``factor``; a word in it makes trouble instead."""
    (file,) = unit.files
    for name, line in (("log", file.name), ("pids", os.getpid())):
        with (file.parent / name).open("a") as log:
            log.write(f"{line}\n")
    text = file.read_text()
    if text in TROUBLE:
        TROUBLE[text](file)
    array = np.array(text.split(), np.float32) * options.get("factor", 1)
    return Decoded(array, {"file": file.name, "sum": float(array.sum()), **unit.told})


def decode_slowly(unit: Unit, options: Mapping[str, Any]) -> Decoded:
    time.sleep(0.1)
    return decode_numbers(unit, options)


def damaged(file: Path) -> None:
    raise DataError(f"{file} is damaged")


def not_installed(file: Path) -> None:
    raise InputError("numbers need abacus: pip install abacus")


def divide_by_zero(file: Path) -> None:
    raise ZeroDivisionError("division by zero")


def kill(file: Path) -> None:
    """End as the kernel ends what takes too much memory, but when the others are done."""
    deadline = time.monotonic() + 30
    while len({*(file.parent / "log").read_text().split()}) < len([*file.parent.glob("*.txt")]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)


TROUBLE = {
    "damaged": damaged,
    "not installed": not_installed,
    "bug": divide_by_zero,
    "killed": kill,
}


def decode_to_text(unit: Unit, options: Mapping[str, Any]) -> Decoded:
    return Decoded(np.zeros(2), {"when": Path()})


def decode_to_objects(unit: Unit, options: Mapping[str, Any]) -> Decoded:
    return Decoded(np.array([None, {}]), {})
