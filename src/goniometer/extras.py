"""Packages that only some commands need, and the extra of the installation that brings each of them."""

from __future__ import annotations

from importlib.util import find_spec

from goniometer.errors import InputError

#: Modules of each extra; those of the core are not listed.
EXTRAS = {
    "metatomic": ("metatensor", "metatomic", "torch"),
    "dynamics": ("h5netcdf", "h5py", "ipi", "vesin", "xarray"),
    "report": ("cmcrameri", "jinja2", "markupsafe", "matplotlib"),
    "ice": ("genice2",),
    "nnp": ("numba",),
    "study": ("psutil", "snakemake"),
    "train": ("metatrain", "pooch"),
}


def remedy(error: ModuleNotFoundError) -> str | None:
    """One sentence that tells which extra brings a module that was not found; None if no extra does."""
    module = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if module in modules:
            return f"this needs {module}, which is not installed: pip install 'goniometer[{extra}]'"
    return None


def require(extra: str) -> None:
    """Raise :class:`InputError`, which names the remedy, unless the modules of an extra are there: before long work."""
    for module in EXTRAS[extra]:
        try:
            found = find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise InputError(str(remedy(ModuleNotFoundError(name=module))))
