"""The response of a potential under rotation: symmetry errors, spectra, noise floors and residuals of rules."""
