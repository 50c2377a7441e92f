"""omnisurv."""
