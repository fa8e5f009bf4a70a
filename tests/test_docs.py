# SPDX-License-Identifier: Apache-2.0
"""The guides' examples run, and what they quote is what is in the tree."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page, language):
    found = BLOCK.findall((DOCS / page).read_text())
    return [text for name, file, text in found if name == language and not file]


def run(code, folder, *path):
    script = folder / "example.py"
    script.write_text(code)
    words = [sys.executable, "-W", "error", str(script)]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(map(str, path))}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_librarys_examples_run_one_after_the_other(tmp_path):
    for code in blocks("library.md", "python"):
        run(code, tmp_path)


def test_the_readmes_library_example_runs(tmp_path):
    (tmp_path / "disk.img").write_bytes(bytes(4096))
    for language, _, code in BLOCK.findall((ROOT / "README.md").read_text()):
        if language == "python":
            run(code, tmp_path)


def test_the_tutorials_check_runs(tmp_path):
    format_in_python, naming, check = blocks("writing-a-driver.md", "python")
    run(format_in_python, tmp_path)
    run(naming, tmp_path)
    assert "0 failed" in run(check, tmp_path, DOCS / "tutorial" / "src")


def test_the_native_chapters_declaration_imports(tmp_path):
    for code in blocks("native-driver.md", "python"):
        run(code, tmp_path)


@pytest.mark.parametrize("page", sorted(p.name for p in DOCS.glob("*.md")))
def test_quoted_files_are_what_they_quote(page):
    for _, file, text in BLOCK.findall((DOCS / page).read_text()):
        if file:
            assert text == (DOCS / file).read_text(), f"{page}: run tests/test_docs.py to refresh"


@pytest.mark.parametrize("page", sorted(p.name for p in DOCS.glob("*.md")))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (DOCS / page).read_text()):
        assert (DOCS / target).exists(), target


def test_every_page_is_in_the_index():
    index = (DOCS / "index.md").read_text()
    for page in DOCS.glob("*.md"):
        assert page.name == "index.md" or page.name in index


def refresh():
    """Copy quoted files into the pages."""
    for page in DOCS.glob("*.md"):

        def quoted(match):
            language, file, _ = match.groups()
            if not file:
                return match[0]
            return f"```{language} file={file}\n{(DOCS / file).read_text()}```"

        page.write_text(BLOCK.sub(quoted, page.read_text()))


if __name__ == "__main__":
    refresh()
