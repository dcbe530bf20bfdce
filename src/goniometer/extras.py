"""The packages that only some commands need, and the extra of the installation that brings each of them."""

from __future__ import annotations

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
