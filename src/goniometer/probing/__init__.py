"""The response of a potential under rotation: symmetry errors, spectra, noise floors, residuals of rules."""
