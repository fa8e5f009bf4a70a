# SPDX-License-Identifier: Apache-2.0
"""The filter quorum: a disk that is kept several times, and a vote on what is read."""

from blockyard_filters_quorum.schema import QUORUM

__all__ = ["QUORUM"]
