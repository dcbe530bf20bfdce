"""Independent starting configurations for molecular dynamics."""
