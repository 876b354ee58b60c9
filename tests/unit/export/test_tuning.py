"""tuning.toml: read, written, refused by name, and applied to what the specs say."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.errors import ConfigError
from contract.manifest import MAX_QUEUE_SIZE
from export.command import main
from export.config_pbtxt import ModelConfig, parse_config, spec_configs
from export.target import CPU, TARGETS
from export.tuning import Tuning, apply_tuning, read_tunings, write_tunings
from training.registry import get_spec


def config_of(name: str, target: str = "cpu") -> ModelConfig:
    spec = get_spec("log_anomaly")
    return next(one for one in spec_configs(spec, TARGETS[target]) if one.triton_name == name)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    tunings = {
        "cpu": {
            "log_anomaly": Tuning(instances=2, chunk_tokens=512, max_queue_delay_microseconds=0)
        },
        "cpu-openvino": {"log_anomaly_classifier": Tuning(instances=3, threads=1)},
    }
    write_tunings(tunings, tmp_path / "tuning.toml")
    assert read_tunings(tmp_path / "tuning.toml") == tunings


def test_no_file_no_tuning(tmp_path: Path) -> None:
    assert read_tunings(tmp_path / "tuning.toml") == {}
    model = config_of("log_anomaly")
    assert apply_tuning(model, None) is model


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cpu = 3", "not a table"),
        ("[cpu.m]\nspeed = 3", "unknown setting"),
        ("[cpu.m]\ninstances = 0", "instances makes no sense"),
        ("[cpu.m]\ninstances = true", "instances makes no sense"),
        ("[cpu.m]\nthreads = '2'", "threads makes no sense"),
        ("[cpu.m", "cannot be read"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "tuning.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        read_tunings(path)


def test_front_and_classifier_are_tuned() -> None:
    tuned = apply_tuning(
        config_of("log_anomaly"),
        Tuning(
            instances=2,
            chunk_tokens=512,
            preferred_batch_size=64,
            max_queue_delay_microseconds=500,
        ),
    )
    config = parse_config(tuned.config)
    assert config.instance_group[0].count == 2
    assert list(config.dynamic_batching.preferred_batch_size) == [64]
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    assert config.dynamic_batching.default_queue_policy.max_queue_size == MAX_QUEUE_SIZE
    assert config.parameters["text_chunk_tokens"].string_value == "512"
    tuned = apply_tuning(config_of("log_anomaly_classifier"), Tuning(instances=3, threads=2))
    config = parse_config(tuned.config)
    assert config.instance_group[0].count == 3
    assert config.parameters["intra_op_thread_count"].string_value == "2"


def test_openvino_streams_follow_the_instances() -> None:
    model = config_of("log_anomaly_classifier", "cpu-openvino")
    config = parse_config(apply_tuning(model, Tuning(instances=4, threads=2)).config)
    assert config.parameters["NUM_STREAMS"].string_value == "4"
    assert config.parameters["INFERENCE_NUM_THREADS"].string_value == "8"


@pytest.mark.parametrize(
    ("name", "target", "tuning", "expected"),
    [
        ("log_anomaly", "cpu", Tuning(threads=2), "no threads"),
        ("log_anomaly_classifier", "cpu", Tuning(chunk_tokens=64), "only a text front"),
        ("log_anomaly", "cpu", Tuning(preferred_batch_size=10_000), "above the model's"),
        ("log_anomaly_classifier", "cpu-openvino", Tuning(preferred_batch_size=2), "no dynamic"),
    ],
)
def test_a_setting_without_use_is_refused(
    name: str, target: str, tuning: Tuning, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        apply_tuning(config_of(name, target), tuning)


def test_writing_and_checking_configs_apply_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = tmp_path / "repository"
    monkeypatch.chdir(tmp_path)
    assert main(["config", "--write", "--repository", str(repository)]) == 0
    plain = (repository / "log_anomaly" / "config.pbtxt").read_text()
    write_tunings({CPU.name: {"log_anomaly": Tuning(instances=2)}})
    # Now the files are not what specs and tuning say.
    assert main(["config", "--check", "--repository", str(repository)]) != 0
    assert main(["config", "--write", "--repository", str(repository)]) == 0
    assert main(["config", "--check", "--repository", str(repository)]) == 0
    assert "tuning.toml" in capsys.readouterr().out
    tuned = (repository / "log_anomaly" / "config.pbtxt").read_text()
    assert (
        parse_config(tuned).instance_group[0].count
        == 2
        != parse_config(plain).instance_group[0].count
    )
