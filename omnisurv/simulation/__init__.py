"""Cohorts with known truth: simulate one in memory, or write one in the real file layouts."""

from omnisurv.simulation.brats import simulate_brats, write_brats
from omnisurv.simulation.files import write
from omnisurv.simulation.truth import SimulatedCohort, remove_cells, simulate

__all__ = ["SimulatedCohort", "remove_cells", "simulate", "simulate_brats", "write", "write_brats"]
