"""The notes of a release: its section of CHANGELOG.md; with --version, what pyproject.toml says."""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def project_version(root: Path = ROOT) -> str:
    document = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    return str(document["project"]["version"])


def release_notes(changelog: str, version: str) -> str:
    """What stands below ``## <version>``. Raises LookupError: no such section, or an empty one."""
    sections = re.split(r"^## +", changelog, flags=re.MULTILINE)[1:]
    for section in sections:
        title, _, body = section.partition("\n")
        # ## 1.2.3, ## 1.2.3 (2026-11-28), ## [1.2.3] - 2026-11-28
        if re.match(rf"\[?v?{re.escape(version)}\]?(?![\w.])", title) and body.strip():
            return body.strip() + "\n"
    raise LookupError(f"CHANGELOG.md: expected a section `## {version}` with notes")


def main(argv: list[str]) -> int:
    if argv == ["--version"]:
        print(project_version())
        return 0
    if len(argv) != 1:
        print("expected --version or a version", file=sys.stderr)
        return 2
    try:
        print(release_notes((ROOT / "CHANGELOG.md").read_text("utf-8"), argv[0]), end="")
    except LookupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
