# SPDX-License-Identifier: Apache-2.0
"""The tools that core brings."""

from blockyard.cli.tool import Tool

__all__ = ["plugins", "serve"]

serve = Tool("serve a disk image to NBD clients", "blockyard.cli.serve")
plugins = Tool("list what is installed", "blockyard.cli.plugins")
