"""What is particular to the machine that ran a program, replaced; long output, shortened.

A model that learns from these logs must not learn where they were made, and a log that names no
machine can be published.
"""

from __future__ import annotations

import os
import platform
import re
import site
import sys
import sysconfig
import zlib
from pathlib import Path

LARGEST_LINES = 200
LONGEST_LINE = 6_000
_HEAD_LINES = 40
_TAIL_LINES = 60
_AROUND_PROOF = 12

_WORKSPACES = ("/workspace", "/home/liwei/projects/sft", "/data/team/run7", "/mnt/nas/exp/pretrain")
_CONDA = "/opt/conda"
_PREFIXES = (_CONDA, "/usr/local", "/opt/conda/envs/pt", "/home/liwei/miniconda3/envs/train")
_PACKAGE_FOLDERS = ("site-packages", "dist-packages")
HOSTS = ("gpu-node-07", "worker-3", "a800-012", "train-job-0")


def chosen(name: str, options: tuple[str, ...]) -> str:
    """One of the options, always the same for a scenario."""
    return options[zlib.crc32(name.encode()) % len(options)]


def normalise(text: str, *, scenario: str, folder: Path) -> str:
    """The output without this machine's paths, users and hosts."""
    workspace = chosen(scenario, _WORKSPACES)
    prefix = chosen(scenario[::-1], _PREFIXES)
    packages = "dist-packages" if prefix == "/usr/local" else "site-packages"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = f"{prefix}/lib/{version}"
    pairs: dict[str, str] = {}
    for path in {folder, folder.resolve()}:
        pairs[f"{path}/tmp"] = "/tmp"
        pairs[f"{path}/home"] = "/home/liwei"
        pairs[str(path)] = workspace
    for path in {*site.getsitepackages(), sysconfig.get_paths()["purelib"]}:
        pairs[path] = pairs[str(Path(path).resolve())] = f"{library}/{packages}"
    # pip's and the interpreter's own modules.
    pairs[f"{sys.base_prefix}/lib/{version}/site-packages"] = f"{library}/{packages}"
    pairs[sysconfig.get_paths()["stdlib"]] = library
    for path in {sys.prefix, sys.base_prefix, str(Path(sys.prefix).resolve())}:
        pairs[path] = prefix
    pairs[str(Path.home())] = "/home/liwei"
    pairs[platform.release()] = "5.15.0-105-generic"
    for found in sorted(pairs, key=len, reverse=True):
        text = text.replace(found, pairs[found])
    host = platform.node()
    if host:
        text = re.sub(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", chosen(scenario, HOSTS), text)
    return "\n".join(_shorten(line) for line in text.rstrip("\n").split("\n"))


def leftovers(text: str) -> list[str]:
    """What of this machine still stands in a text: must be nothing."""
    suspects = {str(Path.cwd()), sys.base_prefix, sys.prefix, str(Path.home()), "/.pyenv/"}
    suspects.discard("/")
    user = os.environ.get("USER", "")
    if len(user) > 4:
        suspects.add(user)
    return sorted(suspect for suspect in suspects if suspect and suspect in text)


def cut(lines: list[str], proofs: dict[str, list[int]]) -> tuple[list[str], dict[str, list[int]]]:
    """At most about LARGEST_LINES: head, tail and what is around the proofs (line numbers from 1).

    What is left out leaves no mark: a collector that drops lines leaves none, either.
    """
    if len(lines) <= LARGEST_LINES:
        return lines, proofs
    kept = set(range(1, _HEAD_LINES + 1)) | set(range(len(lines) - _TAIL_LINES + 1, len(lines) + 1))
    for numbers in proofs.values():
        for number in numbers[:2] + numbers[-1:]:
            kept.update(range(number - _AROUND_PROOF, number + _AROUND_PROOF + 1))
    order = sorted(number for number in kept if 1 <= number <= len(lines))[: LARGEST_LINES * 2]
    place = {number: index for index, number in enumerate(order, 1)}
    return (
        [lines[number - 1] for number in order],
        {
            label: [place[number] for number in numbers if number in place]
            for label, numbers in proofs.items()
        },
    )


def _shorten(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…"
