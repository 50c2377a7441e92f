"""What goes wrong at a user, as one sentence: what, where, how to mend it.

OmnisurvError
└── InputError          the user's input is wrong; commands exit with 2
    ├── SpecError       a data spec or setting does not parse
    ├── DataError       a file or table cannot be used as it is
    ├── CheckpointError a run folder does not fit this recipe or version
    └── SeenPatientsError  an evaluation would touch patients the weights saw
"""

import difflib
from collections.abc import Iterable


class OmnisurvError(Exception):
    """Anything that omnisurv raises on purpose."""


class InputError(OmnisurvError, ValueError):
    """The user's input is wrong; the message says what, where and how to mend it."""


class SpecError(InputError):
    """A data spec, recipe or setting does not parse."""


class DataError(InputError):
    """A file or table cannot be used as it is."""


class CheckpointError(InputError):
    """A run folder does not fit this recipe, cohort or version."""


class SeenPatientsError(InputError):
    """An evaluation would touch patients that a stage of the weights has seen."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Say what the known names are, nearest first: ``" Did you mean 'rna'? Known: …"``."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"{hint} Known: {', '.join(names) or 'none'}."
