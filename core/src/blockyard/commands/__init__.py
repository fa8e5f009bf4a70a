# SPDX-License-Identifier: Apache-2.0
"""The QMP commands of core, a file per subject; entry points name the functions."""

__all__: list[str] = []
