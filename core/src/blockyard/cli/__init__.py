# SPDX-License-Identifier: Apache-2.0
"""The ``blockyard`` command: tools for people, found in the group blockyard.tools."""

from blockyard.cli.tool import Tool, ToolError

__all__ = ["Tool", "ToolError"]
