"""Figures: who has what, survival by group, scores by subset, imputation, training, calibration.

Every function takes plain tables and returns a matplotlib ``Figure`` that belongs to no window;
save it ``with style():``.
"""

from omnisurv.plots.combinations import availability
from omnisurv.plots.curves import calibration, kaplan_meier
from omnisurv.plots.losses import history
from omnisurv.plots.scores import subset_table
from omnisurv.plots.style import style
from omnisurv.plots.values import imputation_scatter

__all__ = [
    "availability",
    "calibration",
    "history",
    "imputation_scatter",
    "kaplan_meier",
    "style",
    "subset_table",
]
