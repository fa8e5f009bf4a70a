# SPDX-License-Identifier: Apache-2.0
"""What other formats use: volumes inside files of theirs, and the old qcow cipher.

A format reads and writes by coroutines of its own (:class:`Storage`), and hands
:attr:`Volume.address` to its native half, which encrypts and decrypts with
``csrc/crypto.h`` on any thread.
"""

from blockyard_formats_luks.amend import add_keyslot, amend_luks, erase_keyslot
from blockyard_formats_luks.cipher import Cipher, legacy_aes
from blockyard_formats_luks.create import Created, create_luks, header_length
from blockyard_formats_luks.storage import Storage
from blockyard_formats_luks.volume import Volume, open_luks

__all__ = [
    "Cipher",
    "Created",
    "Storage",
    "Volume",
    "add_keyslot",
    "amend_luks",
    "create_luks",
    "erase_keyslot",
    "header_length",
    "legacy_aes",
    "open_luks",
]
