import os

os.environ.setdefault("NUMBA_THREADING_LAYER", "workqueue")  # pycox's kernels survive forks

import numpy as np
import pytest


class Patients:
    """Simulated patients with Weibull-like curves; no two times are equal."""

    def __init__(self, seed: int, n: int = 120) -> None:
        draw = np.random.default_rng(seed)
        self.risk = draw.normal(size=n)
        scale = 1000 * np.exp(-0.8 * self.risk)
        death, censored = draw.exponential(scale), draw.uniform(50, 3000, n)
        self.time = np.minimum(death, censored) + 1
        self.event = death <= censored
        self.times = np.linspace(0, 3200, 60)
        self.S = np.exp(-self.times[:, None] / scale)

    @property
    def endpoint(self):
        return self.time, self.event

    @property
    def surv(self):
        from sksurv.util import Surv

        return Surv.from_arrays(self.event, self.time)


@pytest.fixture(scope="session")
def train():
    return Patients(1, 150)


@pytest.fixture(scope="session")
def test():
    return Patients(2)
