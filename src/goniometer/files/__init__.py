"""Files of the package and files that it writes: settings, atomic writing, locks, provenance."""
