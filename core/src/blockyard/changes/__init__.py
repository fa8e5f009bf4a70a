# SPDX-License-Identifier: Apache-2.0
"""What the graph is changed by: a file per kind of change, and what they share.

Users call :class:`blockyard.graph.Graph`; nothing else imports from here but the graph's
own neighbours.
"""
