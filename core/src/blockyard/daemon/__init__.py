# SPDX-License-Identifier: Apache-2.0
"""``blockyard-daemon``: command line and life cycle."""

__all__: list[str] = []
