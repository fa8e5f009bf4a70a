# SPDX-License-Identifier: Apache-2.0
"""The options by which people make encrypted images and change their key slots."""

from blockyard.creation import SIZE, CreateOption, Creation, Kind

__all__ = ["LUKS"]

_ITER_TIME = CreateOption("iter-time", Kind.NUMBER, "Time to spend in PBKDF in milliseconds")

LUKS = Creation(
    options=(
        SIZE,
        CreateOption(
            "key-secret", Kind.TEXT, "ID of the secret that provides the keyslot passphrase"
        ),
        CreateOption("cipher-alg", Kind.TEXT, "Name of encryption cipher algorithm"),
        CreateOption("cipher-mode", Kind.TEXT, "Name of encryption cipher mode"),
        CreateOption("ivgen-alg", Kind.TEXT, "Name of IV generator algorithm"),
        CreateOption("ivgen-hash-alg", Kind.TEXT, "Name of IV generator hash algorithm"),
        CreateOption("hash-alg", Kind.TEXT, "Name of encryption hash algorithm"),
        _ITER_TIME,
        CreateOption("detached-header", Kind.BOOL, "Create a detached LUKS header"),
    ),
    amend=(
        CreateOption("state", Kind.TEXT, "Select new state of affected keyslots (active/inactive)"),
        CreateOption("keyslot", Kind.NUMBER, "Select a single keyslot to modify explicitly"),
        CreateOption("old-secret", Kind.TEXT, "Select all keyslots that match this password"),
        CreateOption(
            "new-secret",
            Kind.TEXT,
            "New secret to set in the matching keyslots. Empty string to erase",
        ),
        _ITER_TIME,
    ),
)
