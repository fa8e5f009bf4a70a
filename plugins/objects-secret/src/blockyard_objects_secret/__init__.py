# SPDX-License-Identifier: Apache-2.0
"""The object ``secret``; :mod:`blockyard_objects_secret.lookup` finds what one holds."""

from blockyard_objects_secret.schema import SECRET

__all__ = ["SECRET"]
