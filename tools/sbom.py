"""Writes the list of the crates in one wheel, as CycloneDX, for `maturin build --sbom-include`.

    python tools/sbom.py [--target TARGET] [--features FEATURES] FILE

maturin makes such a list by itself. That one names the checkout's path, so two checkouts make two wheels of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from pathlib import Path

from third_party import ROOT, Crate, linked_crates


def main() -> int:
    """Writes the file.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--target", help="the Rust target of the wheel; by default, that of this machine")
    parser.add_argument("--features", default="", help="cargo features that the wheel is built with")
    options = parser.parse_args()

    target = options.target or host()
    features = tuple(f"candle-phi-python/{name}" for name in options.features.replace(",", " ").split())
    content = bill_of_materials(linked_crates(features, target))
    options.file.parent.mkdir(parents=True, exist_ok=True)
    options.file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def host() -> str:
    """The Rust target of this machine."""
    command = ["rustc", "-vV"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return next(line.removeprefix("host: ") for line in output.splitlines() if line.startswith("host: "))


def bill_of_materials(crates: list[Crate]) -> dict[str, object]:
    """The content of the file. Nothing in it depends on when or where it is made."""
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "name": "candle-phi",
                "version": workspace["version"],
                "purl": f"pkg:pypi/candle-phi@{workspace['version']}",
                "licenses": [{"expression": workspace["license"]}],
            },
        },
        "components": [
            {
                "type": "library",
                "bom-ref": f"pkg:cargo/{crate.name}@{crate.version}",
                "name": crate.name,
                "version": crate.version,
                "purl": f"pkg:cargo/{crate.name}@{crate.version}",
                "licenses": [{"expression": " AND ".join(crate.licences)}],
            }
            for crate in crates
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
