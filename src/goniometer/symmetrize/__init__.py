"""The response of a potential over a rule."""

from goniometer.symmetrize.response import Response, response

__all__ = ["Response", "response"]
