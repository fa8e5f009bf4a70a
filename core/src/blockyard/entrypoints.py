# SPDX-License-Identifier: Apache-2.0
"""Entry points, read without importing anything.

``importlib.metadata`` would do the same and takes a quarter of the daemon's
start-up budget to import; what is needed here is one small text file of each
installed distribution (packaging.python.org, "Entry points specification" and
"Recording installed projects").
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from blockyard.errors import UnknownPlugin

__all__ = ["EntryPoint", "distribution_version", "installed", "load_object"]

_INFO = (".dist-info", ".egg-info")
_LINE = re.compile(r"\s*(?P<name>[^=#;\s][^=]*?)\s*=\s*(?P<value>[\w.]+(?::[\w.]+)?)")


@attrs.frozen
class EntryPoint:
    """One line of an ``entry_points.txt``."""

    group: str
    name: str
    #: ``"module:attribute"``.
    value: str
    #: The distribution that declares it, with dashes: ``blockyard-drivers-file``.
    distribution: str
    #: The distribution's version; empty if its metadata folder does not say.
    version: str

    def load(self) -> object:
        """Import the module and answer the attribute; whatever that raises."""
        return load_object(self.value)


def load_object(value: str) -> object:
    """Import ``module:attribute`` and answer the attribute.

    :raises ImportError: or whatever importing the module raises.
    :raises AttributeError: if the module has no such attribute.
    """
    module, _, attribute = value.partition(":")
    __import__(module)
    found: object = sys.modules[module]
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part)
    return found


def implementation(declaration: Any) -> Any:
    """The class that a declaration names in its ``implementation``, imported now.

    :raises UnknownPlugin: if it cannot be imported.
    """
    found = getattr(declaration, "implementation", declaration)
    if not isinstance(found, str):
        return found
    try:
        return load_object(found)
    except Exception as error:
        raise UnknownPlugin(broken(declaration.name, found, error)) from error


def broken(name: str, origin: str, error: Exception) -> str:
    """The sentence for a plugin that is installed and cannot be imported."""
    return f"Plugin '{name}' of {origin} could not be loaded: {type(error).__name__}: {error}"


def installed(prefix: str, path: Iterable[str] | None = None) -> list[EntryPoint]:
    """Entry points of all groups that begin with ``prefix``, in the order of ``sys.path``.

    The first distribution of a name hides later ones, as it does for imports.
    """
    found: list[EntryPoint] = []
    seen: set[str] = set()
    for folder, distribution, version in _distributions(sys.path if path is None else path):
        if distribution not in seen and (text := _read(folder)) is not None:
            seen.add(distribution)
            if prefix in text:
                found += _parse(text, prefix, distribution, version)
    return found


def _distributions(path: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    for place in path:
        try:
            names = sorted(os.listdir(place or "."))
        except OSError:
            continue
        for name in names:
            if name.endswith(_INFO):
                project, version, *_ = [*name.rpartition(".")[0].split("-"), ""]
                yield os.path.join(place, name), _normal(project), version


def _normal(project: str) -> str:
    """The name with each run of ``-``, ``_`` and ``.`` as one dash, in lower case."""
    words = project.lower().replace("_", "-").replace(".", "-").split("-")
    return "-".join(word for word in words if word)


def _read(folder: str) -> str | None:
    try:
        with open(os.path.join(folder, "entry_points.txt"), encoding="utf-8") as file:
            return file.read()
    except OSError:
        return None


def _parse(text: str, prefix: str, distribution: str, version: str) -> Iterator[EntryPoint]:
    group = ""
    for line in text.splitlines():
        if line.startswith("["):
            group = line.strip().strip("[]").strip()
        elif group.startswith(prefix) and (match := _LINE.match(line)):
            yield EntryPoint(group, match["name"], match["value"], distribution, version)


def distribution_version(name: str, path: Iterable[str] | None = None) -> str:
    """The version of an installed distribution, as its folder's name says; else empty."""
    for _, distribution, version in _distributions(sys.path if path is None else path):
        if distribution == name:
            return version
    return ""
