# SPDX-License-Identifier: Apache-2.0
"""The object ``secret``, and how other plugins find what one holds."""

from blockyard_objects_secret.lookup import passphrase, secret_bytes
from blockyard_objects_secret.schema import SECRET

__all__ = ["SECRET", "passphrase", "secret_bytes"]
