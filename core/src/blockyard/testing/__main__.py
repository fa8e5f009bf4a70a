# SPDX-License-Identifier: Apache-2.0
"""``python -m blockyard.testing``: the list of checks, and what each holds a driver to."""

from blockyard.testing.check import checks

__all__ = ["main"]


def main() -> None:
    """Print it."""
    for check in checks():
        needs = " [writable]" if check.writes and not check.stores else ""
        needs = " [stores]" if check.stores else needs
        print(f"{check.subject:<13}{check.name.replace('_', ' ')}{needs}\n{'':13}  {check.doc}")


if __name__ == "__main__":
    main()
