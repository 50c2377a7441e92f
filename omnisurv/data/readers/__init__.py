"""Readers: files as they are downloaded, to AnnData or pictures of patients, and an audit."""

from omnisurv.data.readers.brats import read_brats
from omnisurv.data.readers.context import ReadContext
from omnisurv.data.readers.h5mu import read_mudata
from omnisurv.data.readers.matrix import read_matrix
from omnisurv.data.readers.nnunet import read_nnunet
from omnisurv.data.readers.scans import read_nifti
from omnisurv.data.readers.sesame import read_gdc_sesame
from omnisurv.data.readers.slides import read_slides
from omnisurv.data.readers.star import read_gdc_star
from omnisurv.data.readers.stored import read_stored
from omnisurv.data.readers.table import read_table
from omnisurv.data.readers.trident import read_trident

__all__ = [
    "ReadContext",
    "read_brats",
    "read_gdc_sesame",
    "read_gdc_star",
    "read_matrix",
    "read_mudata",
    "read_nifti",
    "read_nnunet",
    "read_slides",
    "read_stored",
    "read_table",
    "read_trident",
]
