# SPDX-License-Identifier: Apache-2.0
"""The options that every node has, and how a child inherits them.

A node that is defined inline, inside its parent's options, takes from its parent
what its own definition leaves out; a node that is referred to by name does not
(QEMU, block.c, "inherited options").
"""

from __future__ import annotations

from typing import Any

import attrs

from blockyard.errors import InvalidOption
from blockyard.permission import Role

__all__ = ["Flags", "resolve"]


@attrs.frozen(kw_only=True)
class Flags:
    """A node's common options after inheritance, as they were asked for."""

    read_only: bool = False
    auto_read_only: bool = False
    cache_direct: bool = False
    cache_no_flush: bool = False
    discard: str = "ignore"
    detect_zeroes: str = "off"
    force_share: bool = False
    active: bool = True

    def check(self) -> None:
        """Refuse what does not fit together.

        :raises InvalidOption: with QEMU's sentence.
        """
        if self.force_share and not self.read_only:
            raise InvalidOption("force-share=on can only be used with read-only images")
        self.check_detect_zeroes()

    def check_detect_zeroes(self) -> None:
        """The part of :meth:`check` that a reopen makes as well."""
        if self.detect_zeroes == "unmap" and self.discard != "unmap":
            raise InvalidOption(
                "setting detect-zeroes to unmap is not allowed without setting "
                "discard operation to unmap"
            )


def resolve(options: Any, parent: Flags | None = None, role: Role = Role.IMAGE) -> Flags:
    """The flags of a node with these BlockdevOptions, defined inside ``parent``'s or alone."""
    base = Flags() if parent is None else _inherited(parent, role)
    cache = options.cache
    return Flags(
        read_only=_either(options.read_only, base.read_only),
        auto_read_only=_either(options.auto_read_only, base.auto_read_only),
        cache_direct=_either(cache and cache.direct, base.cache_direct),
        cache_no_flush=_either(cache and cache.no_flush, base.cache_no_flush),
        discard=str(options.discard or base.discard),
        detect_zeroes=str(options.detect_zeroes or "off"),
        force_share=_either(options.force_share, base.force_share),
        active=options.active is not False and base.active,
    )


def _inherited(parent: Flags, role: Role) -> Flags:
    # The lower layer may always unmap: what reaches it has passed the parent's policy.
    child = attrs.evolve(parent, discard="unmap", detect_zeroes="off")
    if role & Role.COW:
        child = attrs.evolve(child, read_only=True, auto_read_only=False)
    return child


def _either(own: bool | None, inherited: bool) -> bool:
    return inherited if own is None else own
