import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_THREADING_LAYER", "workqueue")
os.environ.setdefault("MPLBACKEND", "Agg")

from pathlib import Path

import pytest

REAL = Path(os.environ.get("OMNISURV_REALDATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not (REAL / "tcga_glioma").exists():
        pytest.skip(f"no real data at {REAL}; set OMNISURV_REALDATA to the folder that holds it")
    return REAL
