"""``python -m training.train_failure_rca.corpus.provoke``: programs in, labelled logs out."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from tqdm import tqdm

from training.train_failure_rca.corpus.provoke.harness import (
    ProvokedLog,
    all_scenarios,
    provoke_all,
    runnable,
)

SNAPSHOT = Path(__file__).parent.with_name("provoked.jsonl")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.train_failure_rca.corpus.provoke")
    parser.add_argument("--only", default="", help="names or parts of names, separated by commas")
    parser.add_argument("--jobs", type=int, default=2, help="programs at once")
    parser.add_argument(
        "--output", type=Path, default=SNAPSHOT, help="JSON lines; with --only, its other rows stay"
    )
    parser.add_argument("--list", action="store_true", help="names, labels and families")
    parser.add_argument("--show", action="store_true", help="print the output as well")
    arguments = parser.parse_args(argv)

    parts = [part for part in arguments.only.split(",") if part]
    order = list(all_scenarios())
    wanted = [
        scenario
        for name, scenario in all_scenarios().items()
        if not parts or any(part in name for part in parts)
    ]
    if arguments.list:
        for scenario in wanted:
            print(f"{scenario.name}\t{','.join(scenario.labels) or '-'}\t{scenario.family}")
        return 0
    able, lacking = runnable(wanted)
    for name, needs in lacking.items():
        print(f"skipped {name}: this machine offers no {', '.join(needs)}", file=sys.stderr)

    # As an interrupt from the keyboard does: no more programs, and nothing left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logs: list[ProvokedLog] = []
    failures = 0
    with tqdm(total=len(able), unit="program", disable=None) as bar:
        for scenario, result in provoke_all(able, jobs=arguments.jobs):
            bar.update()
            bar.set_postfix_str(scenario.name)
            if isinstance(result, ProvokedLog):
                logs.append(result)
                if arguments.show:
                    tqdm.write(_shown(result))
            else:
                failures += 1
                tqdm.write(f"FAILED {result}", file=sys.stderr)
    rows = {log.scenario: log.as_row() for log in logs}
    if lacking or failures or parts:
        # What was not run, or did not end as declared, stays as it was.
        rows = _read(arguments.output) | rows
    kept = [json.dumps(rows[name], ensure_ascii=False) for name in order if name in rows]
    arguments.output.write_text("".join(f"{row}\n" for row in kept), encoding="utf-8")
    print(
        f"{len(logs)} logs written to {arguments.output} (now {len(kept)}),"
        f" {failures} failed, {len(lacking)} skipped"
    )
    return 1 if failures else 0


def _read(path: Path) -> dict[str, dict[str, object]]:
    if not path.is_file():
        return {}
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {row["scenario"]: row for row in rows}


def _shown(log: ProvokedLog) -> str:
    head = f"===== {log.scenario} {log.labels} {log.family}"
    body = "\n".join(
        f"{'»' if number in log.decisive_lines else ' '} {line}"
        for number, line in enumerate(log.text.split("\n"), 1)
    )
    return f"{head}\n{body}"


if __name__ == "__main__":
    sys.exit(main())
