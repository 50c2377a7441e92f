"""Pages: what a reader is shown of a run, of results, of one patient."""
