# SPDX-License-Identifier: Apache-2.0
"""What version this is, and of which interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockyard.schema.control import VersionInfo

__all__ = ["INTERFACE", "package_version", "version_info"]

#: The version of QEMU whose storage daemon's interface this is.
INTERFACE = (11, 1, 0)


def package_version() -> str:
    """Blockyard's version, as its distribution says."""
    from blockyard.entrypoints import distribution_version

    return distribution_version("blockyard")


def version_info() -> VersionInfo:
    """What query-version answers and the greeting says."""
    from blockyard.schema.control import VersionInfo, VersionTriple

    major, minor, micro = INTERFACE
    return VersionInfo(
        qemu=VersionTriple(major=major, minor=minor, micro=micro),
        package=f"Blockyard {package_version()}",
    )
