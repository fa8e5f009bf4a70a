# SPDX-License-Identifier: Apache-2.0
"""An emulated machine with a kernel of its own, for what the kernel of the test machine lacks."""

from guest.kernel import Kernel, UnavailableError
from guest.machine import Finished, Machine

__all__ = ["Finished", "Kernel", "Machine", "UnavailableError"]
