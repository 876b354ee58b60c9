"""The proof as a document: what was found, what was measured, which targets were reached."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass

from loadtest.gpu_proof.run import CALLERS, TRITON_ONNX, Proof, Row, in_process_and_served
from loadtest.gpu_proof.sides import EAGER

NOT_MEASURED = "not measured"
_BERT, _LSTM = "bert_base", "lstm_next"
_LENGTH, _LSTM_BATCH = 128, 4096


@dataclass(frozen=True)
class Verdict:
    """One target. ``reached``: None where it was not measured, which ``got`` explains."""

    target: str
    got: str
    reached: bool | None

    def words(self) -> str:
        return {True: "reached", False: "missed", None: NOT_MEASURED}[self.reached]


def verdicts(proof: Proof) -> list[Verdict]:
    """Only a GPU's figures are judged."""
    if not proof.machine.has_gpu:
        return [Verdict(name, "no GPU here", None) for name, _ in _TARGETS]
    return [judge(proof, name) for name, judge in _TARGETS]


def _matmul_share(proof: Proof, target: str) -> Verdict:
    rows = [r for r in proof.rows if r.subject == _BERT and r.length == _LENGTH]
    best = max(rows, key=lambda row: row.flops_per_second or 0.0, default=None)
    if best is None or best.flops_per_second is None:
        return Verdict(target, "no row of that length", None)
    share = best.flops_per_second / proof.ceilings.matmul_flops_per_second
    return Verdict(target, f"{share:.0%} ({best.side}, batch {best.batch})", share >= 0.40)


def _served_share(proof: Proof, target: str) -> Verdict:
    pair = in_process_and_served(proof, _BERT, _LENGTH)
    if pair is None:
        return Verdict(target, proof.absent.get((_BERT, TRITON_ONNX), "no such rows"), None)
    return Verdict(target, f"{pair[1] / pair[0]:.0%}", pair[1] / pair[0] >= 0.80)


def _together(proof: Proof, target: str) -> Verdict:
    rates = {one.side: one.timing.rows_per_second for one in proof.together if one.subject == _BERT}
    served = {side: rate for side, rate in rates.items() if side != EAGER}
    alone = [
        row.timing.rows_per_second
        for row in proof.rows
        if (row.subject, row.side, row.batch, row.length) == (_BERT, EAGER, 1, _LENGTH)
    ]
    if not served or EAGER not in rates:
        return Verdict(target, proof.absent.get((_BERT, TRITON_ONNX), "no such rows"), None)
    # The baseline gets its best: many callers, or one without their contention.
    ratio = max(served.values()) / max(rates[EAGER], *alone)
    return Verdict(target, f"{ratio:.1f}× ({max(served, key=served.__getitem__)})", ratio >= 10)


def _series_rate(proof: Proof, target: str) -> Verdict:
    rows = [r for r in proof.rows if r.subject == _LSTM and r.batch == _LSTM_BATCH]
    best = max(rows, key=lambda row: row.timing.rows_per_second, default=None)
    if best is None:
        return Verdict(target, "no row of that batch", None)
    rate = best.timing.rows_per_second
    return Verdict(target, f"{rate:,.0f} ({best.side})", rate >= 1_000_000)


_TARGETS = (
    ("BERT-base, 128 tokens: ≥ 40% of the bf16 matmul ceiling at the best batch", _matmul_share),
    ("BERT-base, 128 tokens, fp16: ≥ 80% of in-process through Triton", _served_share),
    (f"BERT-base, batch 1 × {CALLERS} callers: ≥ 10× eager fp32 through Triton", _together),
    (f"LSTM: ≥ 1,000,000 series/s at batch {_LSTM_BATCH}", _series_rate),
)


def as_markdown(proof: Proof, command: str) -> str:
    """The whole report."""
    return "\n".join(_lines(proof, command)) + "\n"


def _lines(proof: Proof, command: str) -> Iterator[str]:
    machine, ceilings = proof.machine, proof.ceilings
    yield f"# GPU proof: {machine.name}"
    yield ""
    yield f"`{command}`"
    if not machine.has_gpu:
        yield ""
        yield "**A dry run on the CPU: no figure here is a GPU's.**"
    yield ""
    yield from ["| part | found |", "|---|---|"]
    for check in machine.checks:
        yield f"| {check.part} | {check.found or 'missing: ' + str(check.missing)} |"
    if proof.triton_kind:
        yield f"| served by | {proof.triton_kind} |"
    yield ""
    yield (
        f"Ceilings, same run: bf16 matrix product of {ceilings.size}² "
        f"{ceilings.matmul_flops_per_second / 1e12:.1f} TFLOP/s; copy on the device "
        f"{ceilings.copy_bytes_per_second / 1e9:.0f} GB/s (read and written)."
    )
    yield from ["", "| target | measured | |", "|---|---|---|"]
    for verdict in verdicts(proof):
        yield f"| {verdict.target} | {verdict.got} | {verdict.words()} |"
    yield from [
        "",
        "## The export gate, target gpu",
        "",
        "| model | verdict | on |",
        "|---|---|---|",
    ]
    for name, verdict_word, on in proof.gate:
        yield f"| {name} | {verdict_word} | {on} |"
    yield from _speed(proof)
    yield from _callers(proof)
    if proof.absent:
        yield from ["", "## Not measured", "", "| network | side | why |", "|---|---|---|"]
        for (subject, side), why in proof.absent.items():
            yield f"| {subject} | {side} | {why.replace('|', '/')} |"


def _speed(proof: Proof) -> Iterator[str]:
    yield from [
        "",
        "## Speed, from arrays on the host to arrays on the host",
        "",
        "Medians of interleaved rounds. Difference: from eager fp32 on the CPU, in probability; "
        "for the LSTM in parts of the batch's spread. Share: of the matmul ceiling, by the matrix "
        "products alone.",
    ]
    for subject, source in proof.sources.items():
        yield from ["", f"### {subject} ({source})", ""]
        yield (
            "| batch × length | side | rows/s | × eager | p50 / p99 ms | share "
            "| difference, flipped |"
        )
        yield "|---|---|---|---|---|---|---|"
        rows = [row for row in proof.rows if row.subject == subject]
        for row in sorted(rows, key=lambda row: (row.length, row.batch)):
            yield _speed_row(proof, row, rows)


def _speed_row(proof: Proof, row: Row, rows: list[Row]) -> str:
    eager = [
        one.timing.rows_per_second
        for one in rows
        if one.side == EAGER and (one.batch, one.length) == (row.batch, row.length)
    ]
    ratio = f"{row.timing.rows_per_second / eager[0]:.1f}" if eager else "–"
    rate = row.flops_per_second
    share = "–" if rate is None else f"{rate / proof.ceilings.matmul_flops_per_second:.0%}"
    timing = row.timing
    return (
        f"| {row.batch} × {row.length} | {row.side} | {timing.rows_per_second:,.0f} | {ratio} "
        f"| {timing.p50_milliseconds:.2f} / {timing.p99_milliseconds:.2f} | {share} "
        f"| {row.worst:.1e}, {row.flipped} of {row.batch} |"
    )


def _callers(proof: Proof) -> Iterator[str]:
    yield from ["", f"## {CALLERS} callers, one row a request", ""]
    yield from ["| network | side | length | requests/s | p50 / p99 ms |", "|---|---|---|---|---|"]
    for one in proof.together:
        timing = one.timing
        yield (
            f"| {one.subject} | {one.side} | {one.length} | {timing.rows_per_second:,.0f} "
            f"| {timing.p50_milliseconds:.2f} / {timing.p99_milliseconds:.2f} |"
        )


def as_json(proof: Proof) -> str:
    """Every figure of the report, for whoever compares two cards."""
    return json.dumps(
        {
            "machine": dataclasses.asdict(proof.machine),
            "ceilings": dataclasses.asdict(proof.ceilings),
            "targets": [
                {"target": one.target, "got": one.got, "verdict": one.words()}
                for one in verdicts(proof)
            ],
            "rows": [dataclasses.asdict(row) for row in proof.rows],
            "callers": [dataclasses.asdict(one) for one in proof.together],
            "not_measured": [
                {"network": subject, "side": side, "why": why}
                for (subject, side), why in proof.absent.items()
            ],
        },
        indent=1,
    )
