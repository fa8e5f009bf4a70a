# SPDX-License-Identifier: Apache-2.0
"""The object ``secret``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio.to_thread

from blockyard.errors import InvalidOption
from blockyard.objects import Object, Property
from blockyard.schema.structure import visit
from blockyard_objects_secret.base64 import decode
from blockyard_objects_secret.reading import read_file
from blockyard_objects_secret.schema import SECRET, QCryptoSecretFormat

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Secret"]


class Secret(Object):
    """Bytes that are nobody else's business.

    Changing its properties afterwards changes what the properties say, as in QEMU, and
    not :attr:`value`.
    """

    type = SECRET

    #: What it holds, decoded and decrypted; wiped when it ends.
    value: bytearray

    async def start(self) -> None:
        """Read, decrypt or decode.

        :raises InvalidOption: if that cannot be done, with QEMU's text.
        :raises NotFound: if there is no secret of the id ``keyid``.
        """
        options = self.options
        written = await self._written()
        encoded = options.format is QCryptoSecretFormat.BASE64
        if options.keyid is not None:
            from blockyard_objects_secret.decryption import decrypt
            from blockyard_objects_secret.lookup import secret_bytes

            key = secret_bytes(self.yard.objects, options.keyid)
            self.value = bytearray(decrypt(written, key, options.iv, encoded=encoded))
        else:
            self.value = bytearray(decode(written) if encoded else written)

    async def _written(self) -> bytes:
        data, file = self.options.data, self.options.file
        if file is not None:
            if data is not None:
                raise InvalidOption("'file' and 'data' are mutually exclusive")
            return await anyio.to_thread.run_sync(read_file, file, abandon_on_cancel=True)
        if data is None:
            raise InvalidOption("Either 'file' or 'data' must be provided")
        written: bytes = data.encode("utf-8", "surrogateescape")
        return written

    async def stop(self) -> None:
        """Forget it."""
        self.value[:] = bytes(len(self.value))

    def properties(self) -> dict[str, Property]:
        """In QEMU's order."""
        found = {
            "iv": self._text("iv"),
            "keyid": self._text("keyid"),
            "format": Property(
                type="QCryptoSecretFormat",
                get=lambda: self.options.format or QCryptoSecretFormat.RAW,
                set=self._setter("format", QCryptoSecretFormat),
            ),
        }
        return {**found, "file": self._text("file"), "data": self._text("data")}

    def _text(self, name: str) -> Property:
        return Property(
            type="string",
            get=lambda: getattr(self.options, name) or "",
            set=self._setter(name, str),
        )

    def _setter(self, name: str, kind: Any) -> Callable[[Any], None]:
        return lambda value: setattr(self.options, name, visit(kind, value, name=name))
