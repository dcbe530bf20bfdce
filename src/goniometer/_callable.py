"""Packages that answer to a call, where a verb of the public face is also the name of a layer."""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    # importlib binds a subpackage as an attribute of its parent when it is first imported, so that a function of the
    # same name in the parent would come and go. With the package itself callable, one name means one object.
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _function(self)(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(_function(self))


def _function(package: ModuleType) -> Any:
    return getattr(importlib.import_module(package.__dict__["_home"]), package.__name__.rpartition(".")[2])


def answer_with(package: str, home: str) -> None:
    """Let ``package(...)`` call the function of the package's own name in the module ``home``, imported when called."""
    module = sys.modules[package]
    module.__dict__["_home"] = home
    module.__class__ = _CallablePackage
