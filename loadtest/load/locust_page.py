"""Locust's own web page on the loopback interface: its users ask in a closed loop, all checked."""

from __future__ import annotations

import argparse
import subprocess
import tempfile

from loadtest.load.locust_run import (
    CHANNELS,
    LoadSettings,
    asked_models,
    locust_command,
    locust_environment,
    make_plan,
    prepare_answers,
)
from loadtest.load.own_server import Endpoints
from loadtest.load.plan import PLAN_VARIABLE
from loadtest.load.slo import read_slo

HOST = "127.0.0.1"


def serve_page(arguments: argparse.Namespace, endpoints: Endpoints) -> int:
    """Until Ctrl-C. Raises PresageError."""
    settings = LoadSettings(
        endpoints.grpc_address,
        endpoints.http_address,
        arguments.repository,
        arguments.artifacts,
        channels=CHANNELS,
        gateway_ports=endpoints.gateway_ports,
        fresh=arguments.fresh,
        data=arguments.data,
    )
    with tempfile.TemporaryDirectory(prefix="presage-loadtest-") as folder:
        plan = make_plan(settings, asked_models(settings), read_slo(), folder)
        plan.write()
        prepare_answers(plan)
        print(f"Locust's page: http://{HOST}:{arguments.port} (end with Ctrl-C)", flush=True)
        process = subprocess.Popen(
            locust_command(
                plan,
                *("--web-host", HOST, "--web-port", str(arguments.port)),
                *("--class-picker", "--loglevel", "WARNING"),
                *("--users", str(len(plan.flows))),
            ),
            env=locust_environment(plan) | {f"{PLAN_VARIABLE}_UI": "1"},
            # Ctrl-C in our terminal is for us: Locust is told to end below.
            start_new_session=True,
        )
        try:
            return process.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
