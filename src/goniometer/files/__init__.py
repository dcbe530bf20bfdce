"""Files of the package and files that it writes: names, settings, atomic writing, locks, provenance."""
