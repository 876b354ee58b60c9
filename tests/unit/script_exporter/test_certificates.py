"""When certificates end: of files and of a server that shows one."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.fixtures.endpoints import HOST, free_port
from tests.fixtures.node_tree import NodeTree
from tests.unit.script_exporter.test_collectors import run, series

DAY = 86_400
END, READABLE = "certificate_not_after_timestamp_seconds", "certificate_readable"


@pytest.fixture
def node(tmp_path: Path) -> NodeTree:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl: apt-get install openssl")
    return NodeTree(tmp_path / "root")


def certificate(folder: Path, days: int) -> tuple[Path, Path]:
    """(certificate, key), self-signed, of so many days."""
    folder.mkdir(parents=True, exist_ok=True)
    file, key = folder / f"{days}.pem", folder / f"{days}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=localhost", "-days", str(days)),
            *("-out", str(file), "-keyout", str(key)),
        ],
        check=True,
        capture_output=True,
    )
    return file, key


def test_the_first_of_a_chain_to_end_counts(node: NodeTree) -> None:
    folder = node.root / "etc"
    long, _ = certificate(folder, 300)
    short, _ = certificate(folder, 20)
    (folder / "chain.pem").write_text(long.read_text() + "junk\n" + short.read_text())
    found = series("certificates.py", node, "/etc/300.pem", "/etc/chain.pem")
    assert found[END, "/etc/300.pem"] == pytest.approx(time.time() + 300 * DAY, abs=300)
    assert found[END, "/etc/chain.pem"] == pytest.approx(time.time() + 20 * DAY, abs=300)
    assert found[READABLE, "/etc/chain.pem"] == 1


def test_what_cannot_be_read_is_told_and_hides_no_other(node: NodeTree) -> None:
    folder = node.root / "etc"
    certificate(folder, 20)
    (folder / "key.pem").write_text("no certificate at all")
    (folder / "broken.pem").write_text(
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    )
    closed = f"{HOST}:{free_port()}"
    targets = ("/etc/none.pem", "/etc/key.pem", "/etc/broken.pem", closed)
    found = series("certificates.py", node, *targets, "/etc/20.pem")
    assert [found[READABLE, target] for target in targets] == [0, 0, 0, 0]
    assert not [key for key in found if key[0] == END and key[1] in targets]
    assert (END, "/etc/20.pem") in found
    said = run("certificates.py", node, *targets).stderr
    assert all(f"{target}: " in said for target in targets)


def test_a_server_is_asked_and_not_its_file(node: NodeTree, tmp_path: Path) -> None:
    file, key = certificate(tmp_path, 45)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, context.wrap_socket(connection, server_side=True) as secured:
                secured.recv(1)

        threading.Thread(target=serve, daemon=True).start()
        target = f"{HOST}:{listener.getsockname()[1]}"
        found = series("certificates.py", node, target)
    assert found[END, target] == pytest.approx(time.time() + 45 * DAY, abs=300)
