"""Pictures -> weights: `archiver train PRESET SOURCE --out DIR`."""
