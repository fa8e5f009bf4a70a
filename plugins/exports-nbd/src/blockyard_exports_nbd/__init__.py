# SPDX-License-Identifier: Apache-2.0
"""The NBD server and the export type ``nbd``."""
