"""Figures of a cohort, of a model, and of one patient.

Every function takes plain tables or pictures and returns a matplotlib ``Figure`` that belongs to
no window; save it ``with style():``.
"""

from omnisurv.plots.combinations import availability
from omnisurv.plots.curves import calibration, kaplan_meier
from omnisurv.plots.losses import history
from omnisurv.plots.patient import patient_curve, patient_modalities
from omnisurv.plots.pictures import volume_slices
from omnisurv.plots.scores import subset_table
from omnisurv.plots.slides import imputed_tiles, tile_gallery
from omnisurv.plots.style import style
from omnisurv.plots.values import imputation_scatter

__all__ = [
    "availability",
    "calibration",
    "history",
    "imputation_scatter",
    "imputed_tiles",
    "kaplan_meier",
    "patient_curve",
    "patient_modalities",
    "style",
    "subset_table",
    "tile_gallery",
    "volume_slices",
]
