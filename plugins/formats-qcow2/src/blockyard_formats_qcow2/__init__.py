# SPDX-License-Identifier: Apache-2.0
"""The ``qcow2`` format."""

from blockyard_formats_qcow2.schema import QCOW2

__all__ = ["QCOW2"]
