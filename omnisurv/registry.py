"""Collections that grow by one file: a module in the package registers itself by name."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from omnisurv.errors import SpecError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Named things of one sort, found in the modules of ``package`` on first use.

    Lower layers look things up here by name and so never import the layers above them.
    """

    def __init__(self, noun: str, package: str) -> None:
        self.noun = noun
        self.package = package
        self._entries: dict[str, T] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorate a class or function to file it under ``name``."""

        def file_under(entry: T) -> T:
            if name in self._entries and self._entries[name] is not entry:
                raise ValueError(f"two {self.noun}s are registered as '{name}'")
            self._entries[name] = entry
            return entry

        return file_under

    def _discover(self) -> None:
        if not self._discovered:
            self._discovered = True
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
                importlib.import_module(f"{self.package}.{module.name}")

    def get(self, name: str) -> T:
        """Return the entry called ``name``; raise SpecError with the nearest name if none is."""
        self._discover()
        if name not in self._entries:
            raise SpecError(f"unknown {self.noun} '{name}'.{did_you_mean(name, self._entries)}")
        return self._entries[name]

    def names(self) -> list[str]:
        """Return all registered names, sorted."""
        self._discover()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[tuple[str, T]]:
        """Iterate over (name, entry), sorted by name."""
        return iter([(name, self._entries[name]) for name in self.names()])


# Typed loosely here because this leaf may not import the seams it serves.
modalities: "Registry[Any]" = Registry("modality kind", "omnisurv.modalities")
recipes: "Registry[Any]" = Registry("recipe", "omnisurv.recipes")
heads: "Registry[Any]" = Registry("head", "omnisurv.heads")
fitted: "Registry[Any]" = Registry("task", "omnisurv.tasks")
