# SPDX-License-Identifier: Apache-2.0
"""The export type ``fuse``: a node as a file of this machine."""
