"""The command line of what writes a page of the documentation, or compares it."""

import argparse
import sys
from pathlib import Path


def write_or_compare(page: Path, wanted: str, recipe: str, about: str) -> int:
    """Write the page; with `--check` say whether it is what it would be written to. Returns the exit code."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="compare with the page that is there")
    if not parser.parse_args().check:
        page.write_text(wanted, encoding="utf-8")
        return 0
    if page.read_text(encoding="utf-8") == wanted:
        return 0
    print(f"docs/{page.name} is not what it is made from says: run `just {recipe}`", file=sys.stderr)
    return 1
