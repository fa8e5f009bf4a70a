# SPDX-License-Identifier: Apache-2.0
"""The QEMU Machine Protocol: declaring commands and events, and serving monitors."""

from blockyard.qmp.command import CommandType, command, command_type
from blockyard.qmp.event import EventBus, EventType, event, event_type

__all__ = [
    "CommandType",
    "EventBus",
    "EventType",
    "command",
    "command_type",
    "event",
    "event_type",
]
