"""What was appended is read in order until it is committed, whatever happens in between."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import OverloadedError, ServerSetupError
from services import spool as spooling
from services.spool import Spool


def read_all(spool: Spool, limit: int = 100) -> list[bytes]:
    records: list[bytes] = []
    while block := spool.read(limit, 0.0):
        records += [record for _, record in block]
    return records


@given(
    steps=st.lists(
        st.one_of(
            st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), min_size=1),
            st.sampled_from(["read", "commit", "crash"]),
        ),
        max_size=30,
    )
)
@settings(max_examples=60, deadline=None)
def test_at_least_once_in_order(
    steps: list[list[bytes] | str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    written: list[bytes] = []
    delivered: list[bytes] = []
    pending: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spooling, "SEGMENT_BYTES", 64)
        spool = Spool(folder, fsync=False)
        for step in steps:
            if isinstance(step, list):
                spool.append(step)
                written += step
            elif step == "read":
                pending += [record for _, record in spool.read(40, 0.0)]
            elif step == "commit":
                spool.commit()
                delivered += pending
                pending = []
            else:
                spool.close()
                pending = []
                spool = Spool(folder, fsync=False)
        rest = pending + read_all(spool)
        spool.close()
    assert delivered + rest == written


def test_committed_segments_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooling, "SEGMENT_BYTES", 100)
    spool = Spool(tmp_path)
    for number in range(50):
        spool.append([b"record %02d" % number])
    assert len(list(tmp_path.glob("*.jsonl"))) > 3
    assert len(read_all(spool)) == 50
    assert spool.backlog_bytes == 500 - 50 + 50
    spool.commit()
    assert spool.backlog_bytes == 0
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


def test_what_was_half_written_was_never_acknowledged(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([b"whole"])
    spool.close()
    (segment,) = tmp_path.glob("*.jsonl")
    segment.write_bytes(segment.read_bytes() + b"half")
    again = Spool(tmp_path)
    again.append([b"next"])
    assert read_all(again) == [b"whole", b"next"]


def test_it_is_bounded(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=100)
    spool.append([b"x" * 60])
    with pytest.raises(OverloadedError, match="queue is full"):
        spool.append([b"y" * 60])
    assert read_all(spool) == [b"x" * 60]
    spool.commit()
    spool.append([b"y" * 60])
    assert read_all(spool) == [b"y" * 60]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(ServerSetupError, match="another --spool"):
        Spool(tmp_path)
    spool.close()
    Spool(tmp_path).close()


def test_positions_name_a_record_for_good(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([b"a", b"b"])
    before = spool.read(100, 0.0)
    identity = spool.identity
    spool.close()
    again = Spool(tmp_path)
    assert again.identity == identity
    assert again.replayed_bytes == 4
    assert again.read(100, 0.0) == before
