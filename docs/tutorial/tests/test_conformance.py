# SPDX-License-Identifier: Apache-2.0
from blockyard_drivers_ram import RamDriver

from blockyard.plugins import Registry
from blockyard.testing import Subject
from blockyard.testing.pytest_suite import ConformanceSuite

# Without this the installed plugins are used, which is what a plugin of yours wants.
registry = Registry()
registry.add("drivers", "ram", RamDriver)


class TestRam(ConformanceSuite):
    subject = Subject(
        make=lambda folder, size: {"driver": "ram", "size": size},
        persists=False,
        refused=({"driver": "ram"}, {"driver": "ram", "size": -1}),
        registry=registry,
    )
