"""Readers: files as they are downloaded, to AnnData (patients × features) and an audit."""

from omnisurv.data.readers.context import ReadContext
from omnisurv.data.readers.matrix import read_matrix
from omnisurv.data.readers.sesame import read_gdc_sesame
from omnisurv.data.readers.star import read_gdc_star
from omnisurv.data.readers.table import read_table

__all__ = ["ReadContext", "read_gdc_sesame", "read_gdc_star", "read_matrix", "read_table"]
