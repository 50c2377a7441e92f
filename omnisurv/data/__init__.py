"""From files to cohorts: data specs, readers, endpoints, splits."""
