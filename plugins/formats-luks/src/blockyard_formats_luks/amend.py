# SPDX-License-Identifier: Apache-2.0
"""Key slots added and erased in a volume that exists: x-blockdev-amend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.errors import BlockyardError, InvalidOption
from blockyard.schema.crypto import QCryptoBlockLUKSKeyslotState
from blockyard_formats_luks.create import checked_iter_time
from blockyard_formats_luks.derivation import Budget, aside
from blockyard_formats_luks.header import KEY_SLOTS, SECTOR, Header, pack
from blockyard_formats_luks.keyslot import make_slot, random_bytes
from blockyard_formats_luks.volume import find_key, search_budget, slot_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from blockyard.schema.crypto import QCryptoBlockAmendOptionsLUKS
    from blockyard_formats_luks.storage import Storage
    from blockyard_formats_luks.volume import Volume

__all__ = ["add_keyslot", "amend_luks", "erase_keyslot"]

#: How often erased key material is written over, as QEMU and cryptsetup do.
_ERASURES = 40


async def amend_luks(
    volume: Volume,
    options: QCryptoBlockAmendOptionsLUKS,
    storage: Storage,
    *,
    secret: Callable[[str], bytes],
    key_secret: str | None,
    force: bool = False,
) -> None:
    """Add or erase key slots as x-blockdev-amend's options say.

    ``secret`` answers the passphrase of a secret's id; ``key_secret`` is the id that the
    volume was opened with.  ``volume.header`` is the new one afterwards.

    :raises BlockyardError: with QEMU's text.
    """
    if options.state is QCryptoBlockLUKSKeyslotState.ACTIVE:
        await _activate(volume, options, storage, secret, key_secret, force)
    else:
        await _deactivate(volume, options, storage, secret, force)


async def _activate(
    volume: Volume,
    options: QCryptoBlockAmendOptionsLUKS,
    storage: Storage,
    secret: Callable[[str], bytes],
    key_secret: str | None,
    force: bool,
) -> None:
    if options.new_secret is None:
        raise InvalidOption("'new-secret' is required to activate a keyslot")
    if options.old_secret is not None:
        raise InvalidOption("'old-secret' must not be given when activating keyslots")
    index = _slot_to_add(volume.header, options.keyslot)
    if volume.header.slots[index].active and not force:
        raise InvalidOption(f"Refusing to overwrite active keyslot {index} - please erase it first")
    present = secret(options.secret or key_secret or "")
    await add_keyslot(
        volume,
        storage,
        index,
        passphrase=present,
        new_passphrase=lambda: secret(options.new_secret or ""),
        iter_time=checked_iter_time(options.iter_time),
    )


def _slot_to_add(header: Header, keyslot: int | None) -> int:
    if keyslot is not None:
        return _checked(keyslot, signed=False)
    for index, slot in enumerate(header.slots):
        if not slot.active:
            return index
    raise InvalidOption("Can't add a keyslot - all keyslots are in use")


def _checked(keyslot: int, *, signed: bool) -> int:
    if 0 <= keyslot < KEY_SLOTS:
        return keyslot
    # QEMU keeps it in a C int, and prints it as one or as an unsigned one.
    shown = keyslot & 0xFFFFFFFF
    if signed and shown >> 31:
        shown -= 1 << 32
    raise InvalidOption(f"Invalid keyslot {shown} specified, must be between 0 and {KEY_SLOTS - 1}")


async def add_keyslot(
    volume: Volume,
    storage: Storage,
    index: int,
    *,
    passphrase: bytes,
    new_passphrase: Callable[[], bytes],
    iter_time: int,
) -> None:
    """Make slot ``index`` one that the new passphrase opens; any of the volume's gives the key.

    The new passphrase is asked for when the present one has proved right.  The key
    material is stable before the header refers to it.

    :raises BlockyardError: with QEMU's text.
    """
    budget = Budget()
    header, method = volume.header, volume.method
    with await find_key(volume, storage.read, passphrase) as key:
        word = new_passphrase()
        slot, material = await aside(
            budget,
            lambda: make_slot(header, method, header.slots[index], word, key, iter_time, budget),
        )
    await storage.write(slot.sector * SECTOR, material)
    await storage.flush()
    await _store(volume, storage, header.with_slot(index, slot))


async def _store(volume: Volume, storage: Storage, header: Header) -> None:
    await storage.write(0, pack(header))
    volume.header = header
    await storage.flush()


# -- erasing


async def _deactivate(
    volume: Volume,
    options: QCryptoBlockAmendOptionsLUKS,
    storage: Storage,
    secret: Callable[[str], bytes],
    force: bool,
) -> None:
    for name, value in (
        ("new-secret", options.new_secret),
        ("iter-time", options.iter_time),
        ("secret", options.secret),
    ):
        if value is not None:
            raise InvalidOption(f"'{name}' must not be given when erasing keyslots")
    old = secret(options.old_secret) if options.old_secret is not None else None
    if options.keyslot is not None:
        index = _checked(options.keyslot, signed=True)
        await _check_erasable(volume, storage, index, old, force)
        await erase_keyslot(volume, storage, index)
    elif old is not None:
        for index in await _slots_of(volume, storage, old, force):
            await erase_keyslot(volume, storage, index)
    else:
        raise InvalidOption(
            "To erase keyslot(s), either explicit keyslot index "
            "or the password currently contained in them must be given"
        )


async def _check_erasable(
    volume: Volume, storage: Storage, index: int, old: bytes | None, force: bool
) -> None:
    if old is not None and not await _opens(volume, storage, index, old, search_budget()):
        raise InvalidOption(
            f"Given keyslot {index} doesn't contain the given old password for erase operation"
        )
    if force:
        return
    if not volume.header.slots[index].active:
        raise InvalidOption(f"Given keyslot {index} is already erased (inactive) ")
    if _active(volume.header) == 1:
        raise InvalidOption(
            f"Attempt to erase the only active keyslot {index} which will erase all the data "
            "in the image irreversibly - refusing operation"
        )


async def _slots_of(volume: Volume, storage: Storage, old: bytes, force: bool) -> list[int]:
    budget = search_budget()
    found = [
        index for index in range(KEY_SLOTS) if await _opens(volume, storage, index, old, budget)
    ]
    if not found:
        raise InvalidOption("No keyslots match given (old) password for erase operation")
    if not force and len(found) == _active(volume.header):
        raise InvalidOption(
            "All the active keyslots match the (old) password that was given and erasing "
            "them will erase all the data in the image irreversibly - refusing operation"
        )
    return found


async def _opens(
    volume: Volume, storage: Storage, index: int, passphrase: bytes, budget: Budget
) -> bool:
    key = await slot_key(volume, storage.read, index, passphrase, budget)
    if key is None:
        return False
    key.wipe()
    return True


def _active(header: Header) -> int:
    return sum(slot.active for slot in header.slots)


async def erase_keyslot(volume: Volume, storage: Storage, index: int) -> None:
    """Take slot ``index`` out of use, and write over its key material.

    The material goes even where the header could not be written.

    :raises BlockyardError: what writing raises.
    """
    slot = volume.header.slots[index]
    length = -(-volume.header.material_bytes // SECTOR) * SECTOR
    failed: BlockyardError | None = None
    try:
        await _store(volume, storage, volume.header.with_slot(index, slot.disabled()))
    except BlockyardError as error:
        failed = error
    for _ in range(_ERASURES):
        await storage.write(slot.sector * SECTOR, bytes(random_bytes(length)))
        await storage.flush()
    if failed is not None:
        raise failed
