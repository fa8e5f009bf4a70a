# SPDX-License-Identifier: Apache-2.0
"""Makes the module beside this one known, for importlib mode has no path."""

import importlib.util
import sys
from pathlib import Path

NAME = "luks_volumes"

if NAME not in sys.modules:
    _spec = importlib.util.spec_from_file_location(NAME, Path(__file__).parent / f"{NAME}.py")
    assert _spec
    assert _spec.loader
    sys.modules[NAME] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[NAME])
