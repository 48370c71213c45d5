"""How images flow through an archive: one job per module."""
