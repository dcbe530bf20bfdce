"""The cheapest rule that brings the symmetry error below a tolerance, and limits for continuous integration."""
