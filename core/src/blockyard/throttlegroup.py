# SPDX-License-Identifier: Apache-2.0
"""The place of the object ``throttle-group``, which a package of its own carries."""

from __future__ import annotations

from blockyard.errors import UnknownPlugin
from blockyard.objects import Object, ObjectType
from blockyard.schema.throttle import ThrottleGroupProperties

__all__ = ["THROTTLE_GROUP", "ThrottleGroup"]

THROTTLE_GROUP = ObjectType(
    name="throttle-group",
    options=ThrottleGroupProperties,
    implementation="blockyard.throttlegroup:ThrottleGroup",
)


class ThrottleGroup(Object):
    """Its options are known and checked; what it does is not here."""

    type = THROTTLE_GROUP

    async def start(self) -> None:
        """Refuse.

        :raises UnknownPlugin: always, naming the package.
        """
        raise UnknownPlugin(
            "Object type 'throttle-group' is not available; "
            "install the package blockyard-filters-throttle"
        )

    async def stop(self) -> None:
        """Nothing was started."""
