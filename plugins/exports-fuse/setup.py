# SPDX-License-Identifier: Apache-2.0
"""The native half; everything else is in pyproject.toml."""

from setuptools import setup

setup(
    cffi_modules=["native_build.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
