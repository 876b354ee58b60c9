"""``--check config``: the file's faults, and what this machine lacks to run it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from contract.errors import ConfigError, PresageError
from script_exporter.config import Collector, ExporterConfig, load_config
from script_exporter.server import parse_address
from script_exporter.tokens import load_tokens


def check_config(path: Path) -> int:
    """Print what is odd, and how many collectors run.

    Raises ConfigError: every fault of the file, or else everything that would fail at run time.
    """
    config = load_config(path)
    for warning in (*config.warnings, *_risks(config)):
        print(f"warning: {warning}")
    faults = list(_faults(config))
    if faults:
        raise ConfigError(
            f"{len(faults)} faults on this machine", where=str(path), got="; ".join(faults)
        )
    print(f"{path}: {len(config.collectors)} collectors")
    return 0


def _faults(config: ExporterConfig) -> Iterator[str]:
    web = config.file.web
    for file in (web.token_file, web.reload_token_file):
        try:
            load_tokens(file)
        except PresageError as error:
            yield str(error)
    try:
        if web.listen_address:
            parse_address(web.listen_address)
    except ValueError as error:
        yield f"web.listen_address: {error}"
    for collector in config.collectors:
        for fault in _script_faults(collector):
            yield f"{collector.key}: {fault}"


def _script_faults(collector: Collector) -> Iterator[str]:
    settings = collector.settings
    program = collector.command[0]
    if settings.script_type == "executable" and os.sep not in program:
        if shutil.which(program) is None:
            yield f"no program {program} on PATH"
    else:
        script = Path(settings.script_path)
        if not script.is_file():
            yield f"no script {script}"
        elif settings.script_type == "executable" and not os.access(script, os.X_OK):
            yield f"{script} is not executable"
        if settings.script_type != "executable" and shutil.which(program) is None:
            yield f"no interpreter {program} on PATH"
    if settings.user:
        import pwd

        try:
            pwd.getpwnam(settings.user)
        except KeyError:
            yield f"no user {settings.user}"
        if os.geteuid() != 0 and pwd.getpwuid(os.geteuid()).pw_name != settings.user:
            yield f"only root can run a script as {settings.user}"


def _risks(config: ExporterConfig) -> Iterator[str]:
    for collector in config.collectors:
        script = Path(collector.settings.script_path)
        try:
            mode = script.stat().st_mode
        except OSError:
            continue
        if mode & (stat.S_IWOTH | stat.S_IWGRP):
            yield f"{collector.key}: {script} can be written by others"
    web = config.file.web
    for file in filter(None, (web.token_file, web.reload_token_file)):
        if Path(file).is_file() and Path(file).stat().st_mode & stat.S_IROTH:
            yield f"{file} can be read by everybody"
