# SPDX-License-Identifier: Apache-2.0
"""Options of the object ``secret``, and its declaration."""

from __future__ import annotations

from blockyard.objects import ObjectType
from blockyard.schema.declare import QEnum, enum, struct

__all__ = ["SECRET", "QCryptoSecretFormat", "SecretCommonProperties", "SecretProperties"]


@enum
class QCryptoSecretFormat(QEnum):
    """How a secret is written down."""

    RAW = "raw"
    BASE64 = "base64"


@struct
class SecretCommonProperties:
    """What every kind of secret has.

    format: how it is written down (raw).
    keyid: the secret that it is encrypted with.
    iv: the initialization vector of that, 16 bytes in base64.
    """

    format: QCryptoSecretFormat | None = None
    keyid: str | None = None
    iv: str | None = None


@struct
class SecretProperties(SecretCommonProperties):
    """A secret.

    data: the secret itself.
    file: the file that holds it.
    """

    data: str | None = None
    file: str | None = None


SECRET = ObjectType(
    name="secret",
    options=SecretProperties,
    implementation="blockyard_objects_secret.secret:Secret",
    parent="secret_common",
)
