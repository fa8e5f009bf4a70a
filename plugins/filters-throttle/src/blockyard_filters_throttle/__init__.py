# SPDX-License-Identifier: Apache-2.0
"""The filter ``throttle`` and the object ``throttle-group``."""

from blockyard_filters_throttle.schema import THROTTLE, THROTTLE_GROUP

__all__ = ["THROTTLE", "THROTTLE_GROUP"]
