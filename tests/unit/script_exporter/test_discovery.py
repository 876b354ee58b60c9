"""From the CMDB's words to targets: cards, tags, assignments, outputs, and answers not believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from contract.errors import ConfigError, ServerUnavailableError
from script_exporter.command import main
from script_exporter.discovery.cmdb import Cmdb
from script_exporter.discovery.host import Host, is_card, read_host
from script_exporter.discovery.service import Discovery
from script_exporter.discovery.settings import Assignment, CmdbSettings, Fields, load_settings
from script_exporter.discovery.settings import DiscoverySettings as Settings
from script_exporter.discovery.targets import assign, inventory, service_discovery


@pytest.mark.parametrize(
    ("text", "name", "is_one"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100", True),
        ("nvidia a100 80g pcie", "A100", True),
        ("RTX A1000", "A100", False),
        ("NVIDIA GA100", "A100", False),
        ("NVIDIA A10", "A100", False),
        ("NVIDIA A100", "A10", False),
        ("A800", "A800", True),
        ("NVIDIA H20", "H20", True),
        ("NVIDIA H200", "H20", False),
        ("NVIDIA GH200", "H200", False),
        ("Ascend 910B3", "910B", True),
        ("Ascend910B", "910B", True),
        ("910ProB", "910B", False),
        ("Ascend 1910B", "910B", False),
        ("Ascend 910", "910B", False),
        ("", "A100", False),
    ],
)
def test_a_card_is_known_by_the_cmdbs_own_words(text: str, name: str, is_one: bool) -> None:
    assert is_card(text, name) is is_one


@pytest.mark.parametrize(
    ("cards", "read"),
    [
        ("NVIDIA A800", ("NVIDIA A800",)),
        ("A100, H20", ("A100", "H20")),
        (["A100", "H20"], ("A100", "H20")),
        ([{"model": "A100", "count": 8}, {"name": "H20"}, {"slot": 3}], ("A100", "H20")),
        ({"model": "A100"}, ("A100",)),
        (910, ("910",)),
        (None, ()),
        ("", ()),
    ],
)
def test_cards_in_every_shape(cards: Any, read: tuple[str, ...]) -> None:
    host = read_host({"name": "n1", "cards": cards}, Fields())
    assert host is not None
    assert host.cards == read


@pytest.mark.parametrize(
    ("tags", "read"),
    [
        ({"env": "prod", "gpus": 8, "on": True, "x": None}, {"env": "prod", "gpus": "8", "on": "true", "x": ""}),  # noqa: E501
        (["env=prod", "rack:r1", "gpu"], {"env": "prod", "rack": "r1", "gpu": "true"}),
        ("env=prod,gpu", {"env": "prod", "gpu": "true"}),
        ([{"key": "env", "value": "prod"}, {"key": "gpu"}], {"env": "prod", "gpu": "true"}),
        (None, {}),
        (7, {}),
    ],
)  # fmt: skip
def test_tags_in_every_shape(tags: Any, read: dict[str, str]) -> None:
    host = read_host({"name": "n1", "tags": tags}, Fields())
    assert host is not None
    assert host.tags == read


def test_hosts_without_a_name_are_none() -> None:
    fields = Fields(name="meta.hostname", address="net.ip")
    given = {"meta": {"hostname": "n1"}, "net": {"ip": "10.0.0.1"}}
    assert read_host(given, fields) == Host("n1", "10.0.0.1", (), {})
    only_address = read_host({"net": {"ip": "10.0.0.1"}}, fields)
    assert only_address is not None
    assert only_address.name == "10.0.0.1"
    for bad in (
        None,
        3,
        {},
        {"meta": "n1"},
        {"meta": {"hostname": "a b"}},
        {"meta": {"hostname": 'a"'}},
    ):
        assert read_host(bad, fields) is None


def settings(folder: Path, **more: Any) -> Settings:
    given: dict[str, Any] = {
        "cmdb": {"file": folder / "hosts.json"},
        "assignments": [
            {"match": {"cards": ["A800", "A100"]}, "run": ["infiniband", "gpu_events"]},
            {
                "match": {"cards": "910B", "tags": {"env": ["prod", "test"]}},
                "unless": {"tags": {"state": "maintenance"}},
                "run": ["npu_optical"],
            },
            {"match": {"name": "gpu-.*"}, "run": ["infiniband", "nic"]},
        ],
        "state_file": folder / "state.json",
    }
    return Settings.model_validate(given | more)


def host(name: str, card: str = "", **tags: str) -> dict[str, Any]:
    return {"name": name, "address": f"10.0.0.{len(name)}", "cards": card, "tags": tags}


HOSTS = [
    host("gpu-1", "NVIDIA A800-SXM4-80GB", env="prod", rack="机架1"),
    host("npu-1", "Ascend 910B3", env="prod"),
    host("npu-2", "Ascend 910B3", env="prod", state="maintenance"),
    host("npu-3", "Ascend 910B3", env="dev"),
    host("web-1"),
]


def test_hosts_run_what_every_matching_assignment_says(tmp_path: Path) -> None:
    hosts = [read_host(one, Fields()) for one in HOSTS]
    targets = assign([one for one in hosts if one], settings(tmp_path))
    assert [(target.host.name, target.cards, target.collectors) for target in targets] == [
        ("gpu-1", ("A800",), ("infiniband", "gpu_events", "nic")),
        ("npu-1", ("910B",), ("npu_optical",)),
    ]


def write(folder: Path, hosts: Any) -> None:
    (folder / "hosts.json").write_text(json.dumps(hosts), "utf-8")


def test_targets_for_prometheus(tmp_path: Path) -> None:
    write(tmp_path, HOSTS)
    discovery = Discovery(settings(tmp_path))
    assert discovery.service_discovery() is None, "never an empty list for an unknown one"
    assert discovery.refresh()
    (gpu, npu) = json.loads(discovery.service_discovery() or "")
    assert gpu == {
        "targets": ["10.0.0.5:5535"],
        "labels": {
            "__meta_cmdb_name": "gpu-1",
            "__meta_cmdb_cards": ",A800,",
            "__meta_cmdb_collectors": ",infiniband,gpu_events,nic,",
            "__meta_cmdb_tag_env": "prod",
            "__meta_cmdb_tag_rack": "机架1",
        },
    }
    assert npu["labels"]["__meta_cmdb_cards"] == ",910B,"


def test_odd_tags_and_addresses_stay_valid() -> None:
    odd = Host("n1", "fd00::1", ("A800",), {"k8s.io/role": "gpu", "机架": "1", "k8s_io/role": "x"})
    targets = assign([odd], settings(Path()))
    (group,) = json.loads(service_discovery(targets, 9))
    assert group["targets"] == ["[fd00::1]:9"]
    assert group["labels"]["__meta_cmdb_tag_k8s_io_role"] == "gpu", "the first holds"
    assert "__meta_cmdb_tag___" in group["labels"]


def test_inventory_for_ansible(tmp_path: Path) -> None:
    write(tmp_path, HOSTS)
    discovery = Discovery(settings(tmp_path))
    discovery.refresh()
    content = yaml.safe_load(discovery.inventory() or "")["all"]
    assert content["hosts"]["gpu-1"] == {
        "ansible_host": "10.0.0.5",
        "script_exporter_port": 5535,
        "script_exporter_collectors": ["infiniband", "gpu_events", "nic"],
        "cmdb_cards": ["A800"],
        "cmdb_tags": {"env": "prod", "rack": "机架1"},
    }
    assert set(content["children"]) == {
        *("card_a800", "card_910b", "collector_infiniband", "collector_gpu_events"),
        *("collector_nic", "collector_npu_optical"),
    }
    assert content["children"]["card_910b"] == {"hosts": {"npu-1": {}}}


def test_a_template_in_a_tag_is_not_run_by_ansible() -> None:
    evil = Host("n1", "10.0.0.1", ("A800",), {"note": "{{ lookup('pipe', 'id') }}"})
    text = inventory(assign([evil], settings(Path())), 5535)
    assert """note: !unsafe "{{ lookup('pipe', 'id') }}\"""" in text


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def cmdb_of(folder: Path, **more: Any) -> tuple[Cmdb, Clock]:
    clock = Clock()
    given = CmdbSettings.model_validate({"file": folder / "hosts.json"} | more)
    return Cmdb(given, folder / "state.json", clock), clock


def test_the_last_good_answer_holds_and_outlives_a_restart(tmp_path: Path) -> None:
    write(tmp_path, HOSTS)
    cmdb, clock = cmdb_of(tmp_path)
    assert cmdb.hosts is None
    assert cmdb.refresh()
    known = cmdb.hosts
    (tmp_path / "hosts.json").unlink()
    clock.now += 60
    assert not cmdb.refresh()
    assert (cmdb.hosts, cmdb.age_seconds) == (known, 60)
    assert "cannot be read" in cmdb.problem
    assert cmdb.requests == {"ok": 1, "unreachable": 1}

    again, clock = cmdb_of(tmp_path)
    clock.now += 90
    assert (again.hosts, again.age_seconds) == (known, 90)
    assert not again.refresh()
    assert again.hosts == known
    other, _ = cmdb_of(tmp_path, file=tmp_path / "other.json")
    assert other.hosts is None, "the answer of another CMDB"


@pytest.mark.parametrize(
    "answer",
    ["", "<html>502</html>", "[", "7", "null", '{"data": 1}', '[{"id": 1}]', "[" * 100_000],
)
def test_an_answer_that_is_none_changes_nothing(tmp_path: Path, answer: str) -> None:
    write(tmp_path, HOSTS)
    cmdb, _ = cmdb_of(tmp_path)
    assert cmdb.refresh()
    (tmp_path / "hosts.json").write_text(answer)
    assert not cmdb.refresh()
    assert len(cmdb.hosts or ()) == 5
    assert cmdb.requests["answer"] == 1


def test_an_answer_that_lacks_many_hosts_is_not_believed(tmp_path: Path) -> None:
    write(tmp_path, HOSTS)
    cmdb, _ = cmdb_of(tmp_path)
    assert cmdb.refresh()
    for fewer in ([], HOSTS[:2]):
        write(tmp_path, fewer)
        assert not cmdb.refresh()
        assert len(cmdb.hosts or ()) == 5
    assert "--accept-loss" in cmdb.problem
    assert cmdb.requests["shrunk"] == 2
    assert cmdb.refresh(accept_loss=True)
    assert len(cmdb.hosts or ()) == 2
    write(tmp_path, HOSTS[:1])
    assert cmdb.refresh(), "half of them may go"


def test_hosts_that_come_twice_or_have_no_name_are_counted(tmp_path: Path) -> None:
    write(tmp_path, [*HOSTS, HOSTS[0], {"id": 3}])
    discovery = Discovery(settings(tmp_path))
    discovery.refresh()
    text = discovery.metrics()
    assert 'cmdb_discovery_hosts{state="assigned"} 2\n' in text
    assert 'cmdb_discovery_hosts{state="unassigned"} 3\n' in text
    assert 'cmdb_discovery_hosts{state="skipped"} 2\n' in text
    assert 'cmdb_discovery_card_hosts{card="A800"} 1\n' in text
    assert 'cmdb_discovery_collector_hosts{name="nic"} 1\n' in text


def test_a_state_file_that_is_broken_is_not_used(tmp_path: Path) -> None:
    write(tmp_path, HOSTS)
    for text in ("", "[]", "{}", '{"source": 1}', "\x00"):
        (tmp_path / "state.json").write_text(text)
        cmdb, _ = cmdb_of(tmp_path)
        assert cmdb.hosts is None
        assert cmdb.refresh()


def test_one_shot_writes_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, HOSTS)
    file = tmp_path / "discovery.yml"
    given = settings(tmp_path).model_dump(mode="json")
    given["output"] = {"file_sd": str(tmp_path / "sd/x.json"), "inventory": str(tmp_path / "i.yml")}
    file.write_text(yaml.safe_dump(given))
    flags = ["discover", "--settings", str(file)]
    assert main(flags) == 0
    assert capsys.readouterr().out == "2 hosts run collectors, by an answer 0 s old\n"
    assert len(json.loads((tmp_path / "sd/x.json").read_text())) == 2
    assert "card_a800" in (tmp_path / "i.yml").read_text()

    # The CMDB is away: no failure, but said; the files stay as they are.
    (tmp_path / "hosts.json").unlink()
    (tmp_path / "sd/x.json").unlink()
    assert main([*flags, "--print", "inventory"]) == 0
    assert "card_910b" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "sd/x.json").read_text())) == 2

    (tmp_path / "state.json").unlink()
    assert main(flags) == ServerUnavailableError.exit_code
    assert "has never answered" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"cmdb": {}}, "either file or url"),
        ({"cmdb": {"file": "x", "url": "http://x"}}, "either file or url"),
        ({"cmdb": {"url": "ftp://x"}}, "cmdb.url"),
        ({"cmdb": {"file": "x", "interval": 0}}, "above 0"),
        ({"assignments": []}, "assignments"),
        ({"assignments": [{"run": []}]}, "assignments.0.run"),
        ({"assignments": [{"match": {"name": "("}, "run": ["a"]}]}, "regular expression"),
        ({"assignments": [{"match": {"card": "A100"}, "run": ["a"]}]}, "match.card"),
        ({"output": {"port": 0}}, "output.port"),
        ({"colour": 1}, "colour"),
    ],
)
def test_faults_of_the_settings(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    good = {"cmdb": {"file": "x"}, "assignments": [{"run": ["a"]}]}
    file = tmp_path / "discovery.yml"
    file.write_text(yaml.safe_dump(good | change))
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    assert fault in str(caught.value)


def test_an_assignment_without_conditions_is_for_all() -> None:
    everywhere = Assignment.model_validate({"run": ["nic"]})
    given = Settings.model_validate({"cmdb": {"file": "x"}, "assignments": [everywhere]})
    assert len(assign([Host("n1", "n1", (), {})], given)) == 1


def test_the_sample_is_well(
    repository_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(repository_root)
    sample = load_settings(Path("deploy/script_exporter/discovery.yml"))
    discovery = Discovery(sample.model_copy(update={"state_file": tmp_path / "state.json"}))
    assert discovery.refresh()
    collectors = {target.host.name: target.collectors for target in discovery.targets or ()}
    assert collectors["gpu-a800-001"] == ("infiniband", "nic", "gpu_events", "stuck_processes")
    assert collectors["npu-910b-001"] == ("npu_optical", "nic", "stuck_processes")
    assert collectors["storage-admin-01"] == ("storage_quota",)
    assert "gpu-h20-001" not in collectors
    names = {name for given in collectors.values() for name in given}
    folder = repository_root / "script_exporter/collectors"
    assert {name for name in names if not (folder / f"{name}.py").is_file()} == set()
