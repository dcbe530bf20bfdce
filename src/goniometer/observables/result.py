"""What an observable is: values with errors, coordinates, units, and how they came about."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray

from goniometer.files.records import replace_bytes


@dataclass(frozen=True)
class Axis:
    """A coordinate of values: its numbers or labels, and their unit."""

    values: np.ndarray
    unit: str = ""


@dataclass(frozen=True)
class Observable:
    """A measured quantity.

    Attributes
    ----------
    name, unit
        What it is.
    values, errors
        Of the same shape; errors are standard errors, NaN where there is none.
    axes
        Name to coordinate, in the order of the axes of the values.
    about
        Plain values: the number of frames and replicas, the autocorrelation time, settings of the estimator.
    """

    name: str
    unit: str
    values: np.ndarray
    errors: np.ndarray
    axes: Mapping[str, Axis] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def largest(self) -> tuple[float, float, float]:
        """The largest absolute value, the largest error of a point that has a value, and the largest ratio of both.

        NaN where there is none.
        """
        known = np.isfinite(self.values)
        errors = np.where(known & np.isfinite(self.errors), self.errors, np.nan)
        ratios = np.divide(np.abs(self.values), errors, out=np.full(errors.shape, np.nan), where=errors > 0.0)
        values = np.where(known, np.abs(self.values), np.nan)
        value, error, ratio = (
            float(np.nanmax(each)) if np.isfinite(each).any() else float("nan") for each in (values, errors, ratios)
        )
        return value, error, ratio

    def disagreeing_axis(self, other: Observable) -> str | None:
        """The name of the first axis whose points are not those of another observable; None if all are.

        An axis that is longer in one of them agrees as far as the shorter one goes: times of a correlation for
        instance, of runs of different lengths.
        """
        if list(self.axes) != list(other.axes):
            return next(iter({*self.axes} ^ {*other.axes}), None) or next(iter(self.axes))
        for name, axis in self.axes.items():
            one, two = (np.asarray(each.axes[name].values) for each in (self, other))
            count = min(len(one), len(two))
            if axis.unit != other.axes[name].unit or not _equal(one[:count], two[:count]):
                return name
        return None

    def to_xarray(self) -> xarray.Dataset:
        """Values and errors as variables over the axes."""
        names = list(self.axes)
        coordinates = {name: (name, axis.values, {"units": axis.unit}) for name, axis in self.axes.items()}
        variables = {
            self.name: (names, self.values, {"units": self.unit}),
            f"{self.name}_error": (names, self.errors, {"units": self.unit}),
        }
        return xarray.Dataset(variables, coordinates, {**self.about, "observable": self.name})

    def save(self, path: str | Path) -> None:
        """Write it as netCDF, in one step. Raises :class:`InputError` if that cannot be done."""
        content = io.BytesIO()  # HDF5 does not survive a disk that is full
        self.to_xarray().to_netcdf(content, engine="h5netcdf")
        replace_bytes(path, content.getvalue())


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Labels, or numbers but for rounding."""
    if one.dtype.kind in "fiu" and other.dtype.kind in "fiu":
        return bool(np.allclose(one, other, rtol=1e-6, atol=1e-9))
    return bool(np.array_equal(one, other))
