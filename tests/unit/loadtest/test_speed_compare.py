"""compare: the mix it asks, the fits it prints, its verdicts and its tables."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from loadtest.log_mix import job_logs, mix_logs, new_logs, read_mix, restarted_logs
from loadtest.speed.compare import Comparison, as_json
from loadtest.speed.compare_table import compare_report, ratios, verdict
from loadtest.speed.facts import Fact, matmul_flops
from loadtest.speed.growth import fit_growth
from loadtest.speed.infer_message import infer_message
from loadtest.speed.presage_server import CONFIG_FILE, stage_newest, uncached_config
from loadtest.speed.questions import CompareSettings
from loadtest.speed.side import Rounds


class Digits:
    """A tokenizer that masks digits; a token a word."""

    def mask(self, text: str) -> str:
        return "".join("#" if letter.isdigit() else letter for letter in text)

    def encode(self, masked: list[str]) -> list[list[int]]:
        return [[0] * len(text.split()) for text in masked]


def test_mix_keeps_each_systems_order_and_its_share_of_new_forms() -> None:
    systems = [[b"a 1", b"a 2", b"b 1"], [b"c 1", b"c 2", b"c 3"]]
    mix = mix_logs(systems, Digits(), "two systems")  # type: ignore[arg-type]
    assert [line for line in mix.lines if line in systems[0]] == systems[0]
    assert [line for line in mix.lines if line in systems[1]] == systems[1]
    assert mix.new_share == pytest.approx(3 / 6)
    assert sorted(mix.primer) == [b"a 2", b"c 2"]
    assert "50.0% of the lines are the first" in str(mix)


def test_real_mix_never_becomes_more_repetitive() -> None:
    mix = mix_logs([[b"a 1", b"a 2", b"b 1", b"a 3"]], Digits(), "one")  # type: ignore[arg-type]
    tokenizer = Digits()
    asked = [tokenizer.mask(line.decode()) for line in itertools.islice(mix.real(seed=1), 400)]
    first = len(set(asked))
    # Half of the lines are the first of their form in every one of the hundred rounds.
    assert first == 200 + 1
    known = {tokenizer.mask(line.decode()) for line in itertools.islice(mix.seen(), 400)}
    assert known == {"a #"}


def test_mix_without_files_takes_the_runs_own_lines(tmp_path: Path) -> None:
    mix = read_mix(tmp_path / "none", Digits(), ["x 1", " ", "y"])  # type: ignore[arg-type]
    assert sorted(mix.lines) == [b"x 1", b"y"]
    assert "golden" in mix.source
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "one.log").write_bytes(b"p 1\n\np 2\n")
    assert read_mix(tmp_path, Digits(), []).lines == (b"p 1", b"p 2")  # type: ignore[arg-type]


def test_job_logs_have_so_many_lines_and_are_new_or_restarted() -> None:
    (log,) = job_logs(["epoch 1 took 123 s\nboom", "\n"], 5)
    assert log.split("\n") == ["boom", "epoch 1 took 123 s", "boom", "epoch 1 took 123 s", "boom"]
    one, two = itertools.islice(new_logs([log], seed=0), 2)
    assert not set(one.split(b"\n")) & set(two.split(b"\n"))
    again = [text.decode() for text in itertools.islice(restarted_logs([log], seed=0), 3)]
    assert len(set(again)) == 3
    assert {Digits().mask(text) for text in again} == {Digits().mask(log)}


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_exponent_is_found(exponent: float) -> None:
    sizes = (10, 20, 40, 80)
    growth = fit_growth("x", sizes, [3e-3 * size**exponent for size in sizes])
    assert growth.exponent == pytest.approx(exponent)
    assert growth.linear == (exponent <= 1)


@pytest.mark.parametrize(
    ("sizes", "seconds"), [((5,), (1.0,)), ((5, 5), (1.0, 2.0)), ((1, 2), (0.0, 1.0))]
)
def test_what_has_no_exponent_is_refused(
    sizes: tuple[int, ...], seconds: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="no exponent"):
        fit_growth("x", sizes, seconds)


def test_verdicts() -> None:
    assert verdict(10.0, 10.0) == "met"
    assert verdict(9.9, 10.0) == "**missed**"
    assert verdict(9.9, 10.0, at_most=True) == "met"
    assert verdict(1.0, None) == ""


def test_matmul_flops_are_those_of_bert_base(tmp_path: Path) -> None:
    config = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    (tmp_path / "config.json").write_text(json.dumps(config))
    # 85 million weights in its layers, twice each for each token, and the attention scores.
    expected = 2 * 32 * (12 * 12 * 768 * 768) + 2 * 12 * 32 * 2 * 32 * 768
    assert matmul_flops(tmp_path / "config.json", 32) == expected


def _comparison() -> Comparison:
    eager, presage, slow = Rounds(), Rounds(), Rounds()
    for rate in (10.0, 20.0, 10.0):
        eager.add(int(rate), 1.0, [0.1])
        presage.add(int(rate * 12), 1.0, [0.01])
        slow.add(int(rate * 5), 1.0, [0.02])
    eager.spend({"callers": 0.1, "baseline": 2.9})
    presage.spend({"callers": 0.1, "tritonserver": 0.5})
    presage.count(requests=100, executions=20, queue_seconds=1.0, compute_seconds=2.0)
    presage.count(mask=0.1, tokenize=0.2, classify=0.4, classifier=40, text=90, padding=10)
    return Comparison(
        "lines",
        "log lines",
        64,
        "lines/s",
        {"off": 10.0, "on": 100.0},
        threads=2,
        sides=[
            ("eager PyTorch, FastAPI", "none", eager),
            ("Presage cpu", "off", presage),
            ("Presage cpu", "on, all seen", slow),
        ],
        absent={"torch.compile, FastAPI": "no compiler"},
    )


def test_table_has_ratios_verdicts_and_what_is_missing() -> None:
    fact = Fact("server ready", 3.0, "3.0 s", "≤ 15 s", "met", "how")
    report = compare_report([_comparison()], [fact], CompareSettings())
    rows = {
        line.split("|")[2].strip() + "," + line.split("|")[3]: line
        for line in report.splitlines()
        if line.startswith("| log lines")
    }
    assert "| 12.0 (12.0–12.0) | ≥ 10 | met |" in rows["Presage cpu, off "]
    assert "| 5.0 (5.0–5.0) | ≥ 100 | **missed** |" in rows["Presage cpu, on, all seen "]
    assert "not measured: no compiler" in report
    assert "| server ready | 3.0 s | ≤ 15 s | met | how |" in report
    # 100 requests in 20 batches; queue and compute of each; the front's split of 480 rows.
    assert "| 5.0 | 10.00 / 20.00 | 0.21 / 0.42 / 0.83 | 0.08 | 10% |" in report
    assert "`text_cache_entries` 0" in report


def test_ratio_is_of_the_same_round() -> None:
    ours, theirs = Rounds(rates=[10.0, 30.0]), Rounds(rates=[5.0, 3.0])
    assert ratios(ours, theirs) == [2.0, 10.0]


def test_json_holds_every_round() -> None:
    (one,) = json.loads(as_json([_comparison()]))
    assert one["sides"][1]["rates"] == [120.0, 240.0, 120.0]
    assert one["absent"] == {"torch.compile, FastAPI": "no compiler"}


def test_message_is_what_tritonclient_would_send() -> None:
    from tritonclient.grpc import service_pb2

    column = np.array([[b"disk failed"]], dtype=object)
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    sent = infer_message("m", {"text": column, "series": numbers}, ("score",))
    request = service_pb2.ModelInferRequest.FromString(sent)
    assert [tuple(one.shape) for one in request.inputs] == [(1, 1), (2, 3)]
    assert [one.datatype for one in request.inputs] == ["BYTES", "FP32"]
    assert request.raw_input_contents[0] == b"\x0b\0\0\0disk failed"
    assert request.raw_input_contents[1] == numbers.tobytes()
    assert [one.name for one in request.outputs] == ["score"]


def test_the_newest_version_is_staged_with_a_twin_that_forgets(tmp_path: Path) -> None:
    front, graph = tmp_path / "r" / "words", tmp_path / "r" / "words_classifier"
    for folder, backend in ((front, "python"), (graph, "onnxruntime")):
        for version in ("2", "10"):
            (folder / version).mkdir(parents=True)
            (folder / version / "file").write_text(version)
        (folder / CONFIG_FILE).write_text(f'name: "{folder.name}"\nbackend: "{backend}"\n')
    stage_newest(tmp_path / "r", tmp_path / "staged", ("words",))
    names = sorted(path.name for path in (tmp_path / "staged").iterdir())
    assert names == ["words", "words__uncached", "words_classifier"]
    assert (tmp_path / "staged" / "words__uncached" / "10" / "file").read_text() == "10"
    assert not (tmp_path / "staged" / "words" / "2").exists()
    twin = (tmp_path / "staged" / "words__uncached" / CONFIG_FILE).read_text()
    assert 'name: "words__uncached"' in twin
    assert 'string_value: "0"' in twin


def test_uncached_config_drops_the_response_cache() -> None:
    text = 'name: "w"\nbackend: "python"\nresponse_cache { enable: true }\n'
    assert "response_cache" not in uncached_config(text, "w")
