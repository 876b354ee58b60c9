"""``python -m script_exporter discover --settings FILE [--serve | --print http_sd|inventory]``"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

from contract.errors import ConfigError, ServerUnavailableError
from script_exporter.discovery.service import Discovery
from script_exporter.discovery.settings import load_settings
from script_exporter.server import PageServer, parse_address

DEFAULT_SETTINGS = Path("deploy/script_exporter/discovery.yml")


def run(argv: list[str]) -> int:
    """Ask once and write the files, or serve until SIGTERM. Exit code 0.

    An unreachable CMDB is no failure while there is an older answer; it is told on stderr.

    Raises ConfigError, ServerSetupError, ServerUnavailableError: no answer, now or ever.
    """
    parser = argparse.ArgumentParser(
        prog="python -m script_exporter discover",
        description="Hosts by card type and tags from the CMDB: which collectors each runs.",
    )
    parser.add_argument("--settings", type=Path, default=DEFAULT_SETTINGS, metavar="FILE")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--serve", action="store_true", help="/sd, /inventory, /metrics, until told")
    what.add_argument("--print", choices=("http_sd", "inventory"), dest="printed")
    parser.add_argument(
        "--accept-loss",
        action="store_true",
        help="believe an answer that lacks many hosts known before (once)",
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = load_settings(arguments.settings)
    discovery = Discovery(settings)
    if arguments.serve:
        try:
            address = parse_address(settings.output.listen)
        except ValueError as error:
            raise ConfigError("no address to listen on", where="output.listen") from error
        return _serve(discovery, address, accept_loss=arguments.accept_loss)
    discovery.refresh(accept_loss=arguments.accept_loss)
    targets = discovery.targets
    if targets is None:
        raise ServerUnavailableError(
            "the CMDB has never answered", where=str(arguments.settings), got=discovery.cmdb.problem
        )
    if arguments.printed:
        text = (
            discovery.inventory()
            if arguments.printed == "inventory"
            else discovery.service_discovery()
        )
        print(text)
    else:
        age = discovery.cmdb.age_seconds or 0.0
        print(f"{len(targets)} hosts run collectors, by an answer {age:.0f} s old")
    return 0


def _serve(discovery: Discovery, address: tuple[str, int], *, accept_loss: bool) -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if accept_loss:
        discovery.refresh(accept_loss=True)
    asking = threading.Thread(target=discovery.run, args=(stop,), name="cmdb", daemon=True)
    with PageServer(address, discovery.pages()) as server:
        asking.start()
        print(f"script_exporter discover: {server.url}/sd", flush=True)
        stop.wait()
    return 0
