# SPDX-License-Identifier: Apache-2.0
"""QMP's JSON; the work is done beside the schema, whose command line takes JSON too."""

from blockyard.schema.jsontext import JsonError, JsonParser, dumps, parse

__all__ = ["JsonError", "JsonParser", "dumps", "parse"]
