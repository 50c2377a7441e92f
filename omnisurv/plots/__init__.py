"""Figures of a cohort, of a model, and of one patient.

Every function takes plain tables or pictures and returns a matplotlib ``Figure`` that belongs to
no window; save it ``with style():``.
"""

from omnisurv.plots.arms import arms
from omnisurv.plots.calibration import calibration
from omnisurv.plots.classification import class_curves
from omnisurv.plots.combinations import availability
from omnisurv.plots.consistency import consistency
from omnisurv.plots.curves import kaplan_meier
from omnisurv.plots.decision import decision_curve
from omnisurv.plots.explanation import beeswarm, measuring, modality_importance
from omnisurv.plots.hidden import hidden_panels
from omnisurv.plots.losses import history
from omnisurv.plots.overtime import scores_over_time
from omnisurv.plots.patient import patient_curve, patient_modalities
from omnisurv.plots.pictures import Volume, volume_of, volume_slices
from omnisurv.plots.reconstruction import reconstruction_figure
from omnisurv.plots.scores import subset_table
from omnisurv.plots.slides import imputed_tiles, tile_gallery
from omnisurv.plots.steps import axial_steps
from omnisurv.plots.style import style
from omnisurv.plots.values import imputation_scatter

__all__ = [
    "Volume",
    "arms",
    "availability",
    "axial_steps",
    "beeswarm",
    "calibration",
    "class_curves",
    "consistency",
    "decision_curve",
    "hidden_panels",
    "history",
    "imputation_scatter",
    "imputed_tiles",
    "kaplan_meier",
    "measuring",
    "modality_importance",
    "patient_curve",
    "patient_modalities",
    "reconstruction_figure",
    "scores_over_time",
    "style",
    "subset_table",
    "tile_gallery",
    "volume_of",
    "volume_slices",
]
