import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_THREADING_LAYER", "workqueue")
os.environ.setdefault("MPLBACKEND", "Agg")

from collections.abc import Iterator
from pathlib import Path

import pytest

REAL = Path(os.environ.get("OMNISURV_REALDATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker is left alone with it at the end."""

    def seconds(item: pytest.Item) -> float:
        marker = item.get_closest_marker("slow")
        return 0 if marker is None else marker.kwargs.get("seconds", 1)

    items.sort(key=seconds, reverse=True)


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not (REAL / "tcga_glioma").exists():
        pytest.skip(f"no real data at {REAL}; set OMNISURV_REALDATA to the folder that holds it")
    return REAL


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decode to a folder of the tests; the user's cache stays as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNISURV_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
