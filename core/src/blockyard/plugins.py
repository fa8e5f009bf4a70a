# SPDX-License-Identifier: Apache-2.0
"""The registry: which drivers, exports, jobs... are installed, loaded by name.

A plugin is a distribution with entry points in the groups of :data:`GROUPS`.
Nothing is imported before somebody asks for a name; then the entry point's
declaration is, and only when it is used the implementation that the declaration
names.  A plugin that cannot be imported harms nobody but who asks for it.

``BLOCKYARD_PLUGINS=drivers-file,exports-nbd`` in the environment limits what is
seen to those distributions and core.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from blockyard.branches import provide_branches
from blockyard.entrypoints import EntryPoint, broken, implementation, installed
from blockyard.errors import BlockyardError, UnknownPlugin

__all__ = [
    "BLOCK_KINDS",
    "GROUPS",
    "PluginRecord",
    "Registry",
    "default_registry",
    "implementation",
    "package_of",
]

#: The kinds of plugin; the entry-point group is the kind after ``blockyard.``.
GROUPS = (
    "drivers",
    "formats",
    "filters",
    "jobs",
    "exports",
    "objects",
    "chardevs",
    "tools",
    "commands",
    "events",
    "hooks",
    "options",
)

#: The kinds that blockdev-add looks in.
BLOCK_KINDS = ("drivers", "formats", "filters")

#: What a name of each kind is called in errors.
_NOUNS = {
    "drivers": "driver",
    "formats": "driver",
    "filters": "driver",
    "jobs": "job type",
    "exports": "block export type",
    "objects": "object type",
    "chardevs": "chardev backend",
}

#: Well-known names that a package of ours carries.
_PACKAGES: dict[str, dict[str, str]] = {
    "drivers": {
        "file": "blockyard-drivers-file",
        "host_device": "blockyard-drivers-file",
        "host_cdrom": "blockyard-drivers-file",
        "nbd": "blockyard-drivers-nbd",
        "null-co": "blockyard-drivers-null",
        "null-aio": "blockyard-drivers-null",
        "nvme": "blockyard-drivers-nvme",
        "raw": "blockyard-formats-raw",
        "luks": "blockyard-formats-luks",
        "qcow2": "blockyard-formats-qcow2",
        "blkdebug": "blockyard-filters-debug",
        "blklogwrites": "blockyard-filters-debug",
        "blkverify": "blockyard-filters-debug",
        "compress": "blockyard-filters-compress",
        "copy-on-read": "blockyard-filters-copy-on-read",
        "preallocate": "blockyard-filters-preallocate",
        "quorum": "blockyard-filters-quorum",
        "throttle": "blockyard-filters-throttle",
    },
    "exports": {
        "nbd": "blockyard-exports-nbd",
        "vhost-user-blk": "blockyard-exports-vhost",
        "fuse": "blockyard-exports-fuse",
        "vduse-blk": "blockyard-exports-vduse",
    },
    "objects": {
        "secret": "blockyard-objects-secret",
        "throttle-group": "blockyard-filters-throttle",
    },
    "jobs": dict.fromkeys(("backup", "commit", "mirror", "stream", "amend"), "blockyard-jobs"),
}


@attrs.frozen(eq=False, repr=False, kw_only=True)
class PluginRecord:
    """One installed name, as ``blockyard plugins`` lists it."""

    kind: str
    name: str
    distribution: str
    version: str
    value: str
    #: Why it cannot be loaded; None when it can, or was not tried.
    error: str | None = None


class Registry:
    """What is installed, by kind and name."""

    def __init__(
        self, entry_points: Iterable[EntryPoint] | None = None, only: str | None = None
    ) -> None:
        """``only`` limits the distributions, as BLOCKYARD_PLUGINS does (the default)."""
        limit = os.environ.get("BLOCKYARD_PLUGINS") if only is None else only
        self._entries: dict[tuple[str, str], EntryPoint] = {}
        self._loaded: dict[tuple[str, str], Any] = {}
        self._declared: dict[type, Any] = {}
        for entry in installed("blockyard.") if entry_points is None else entry_points:
            kind = entry.group.removeprefix("blockyard.")
            if kind in GROUPS and _allowed(entry.distribution, limit):
                self._entries.setdefault((kind, entry.name), entry)

    def names(self, *kinds: str) -> list[str]:
        """The names of these kinds, sorted, without importing anything."""
        keys = {*self._entries, *self._loaded}
        return sorted(name for kind, name in keys if kind in kinds)

    def add(self, kind: str, name: str, declaration: Any) -> None:
        """Register a declaration of this process's own; it hides an installed one."""
        self._loaded[kind, name] = declaration

    def find(self, kind: str, name: str) -> Any:
        """The declaration called ``name``.

        :raises UnknownPlugin: if it is not installed, or cannot be imported.
        """
        key = (kind, name)
        if key not in self._loaded:
            if key not in self._entries:
                raise UnknownPlugin(_unknown(kind, name))
            self._loaded[key] = _load(self._entries[key])
        return self._loaded[key]

    def driver(self, name: str) -> Any:
        """The :class:`~blockyard.node.DriverType` of a driver, format or filter.

        :raises UnknownPlugin: if it is not installed, or cannot be imported.
        """
        for kind in BLOCK_KINDS:
            if self.has(kind, name):
                return self._driver_type(self.find(kind, name))
        raise UnknownPlugin(_unknown("drivers", name))

    def _driver_type(self, found: Any) -> Any:
        """A declaration, where the entry point may be a class that carries one."""
        if not isinstance(found, type):
            return found
        if found not in self._declared:
            self._declared[found] = attrs.evolve(_carried(found), implementation=found)
        return self._declared[found]

    def has(self, kind: str, name: str) -> bool:
        """Whether the name is known, without importing anything."""
        return (kind, name) in self._loaded or (kind, name) in self._entries

    def records(self, *, load: bool = False) -> list[PluginRecord]:
        """All installed names; with ``load`` each is imported to see whether it can be."""
        return [
            PluginRecord(
                kind=kind,
                name=name,
                distribution=entry.distribution,
                version=entry.version,
                value=entry.value,
                error=self._problem(kind, name) if load else None,
            )
            for (kind, name), entry in sorted(self._entries.items())
        ]

    def every(self, kind: str) -> Iterator[tuple[str, Any]]:
        """All declarations of a kind that can be imported; broken ones are left out."""
        for name in self.names(kind):
            try:
                yield name, self.find(kind, name)
            except UnknownPlugin:
                continue

    def _problem(self, kind: str, name: str) -> str | None:
        try:
            declaration = self.find(kind, name)
            if isinstance(getattr(declaration, "implementation", None), str):
                implementation(declaration)
        except BlockyardError as error:
            return str(error)
        return None


def default_registry() -> Registry:
    """The registry of this process's installed distributions, read once."""
    global _default
    if _default is None:
        _default = Registry()
        provide_branches(_default)
    return _default


_default: Registry | None = None


def _carried(driver: Any) -> Any:
    """The declaration that a driver's class carries."""
    return driver.type


def package_of(kinds: Iterable[str], name: str) -> str | None:
    """The package of ours that carries a well-known name, installed or not."""
    packages = (_PACKAGES.get(kind, {}).get(name) for kind in kinds)
    return next((package for package in packages if package), None)


def _allowed(distribution: str, limit: str | None) -> bool:
    wanted = {name.strip() for name in (limit or "").split(",")}
    short = distribution.removeprefix("blockyard-")
    return limit is None or distribution == "blockyard" or bool({distribution, short} & wanted)


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except Exception as error:
        raise UnknownPlugin(broken(entry.name, entry.distribution, error)) from error


def _unknown(kind: str, name: str) -> str:
    noun = _NOUNS.get(kind, kind.removesuffix("s"))
    package = package_of(BLOCK_KINDS if kind in BLOCK_KINDS else (kind,), name)
    hint = f"; install the package {package}" if package else ""
    return f"Unknown {noun} '{name}'{hint}"
