"""
Damages files of every format that the project reads, and reads them as somebody would: data, or an error to act upon.

```bash
python tests/mutations/read_mutations.py --number 10000 --seed 0
python tests/mutations/read_mutations.py --formats mat video --number 500 --keep failures
python tests/mutations/read_mutations.py --only mat:117
```

A case fails where it ends in another error than `ValueError`, one of ours, or `OSError`, or in one that names no file or tells
a story; where it crashes, takes over 10 seconds of CPU or 2 GB of memory, opens a socket, asks a question, runs a program or
writes outside of its folder. The exit status is 1 then. Case N of a format is the same for all numbers of cases and workers.
With ACTION_LLM_TEST_DATA, real files and those that were faults once are damaged as well.
"""

import argparse
import io
import os
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from typing import NamedTuple

# Before the libraries read them.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
TESTS = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[:1] = [str(TESTS)]

from mutations.formats import FORMATS, mutator_of  # noqa: E402
from mutations.seeds import Seed  # noqa: E402
from mutations.watching import DATA, TYPED, Outcome, Task, watched  # noqa: E402


class Case(NamedTuple):
    """Number N of a format: seeds as they are come first."""

    format: str
    number: int

    def __str__(self) -> str:
        return f"{self.format}:{self.number}"


def damaged(case: Case, seed: int, made: Sequence[Seed]) -> tuple[Seed, bytes]:
    """Which file of which folder, and what it holds now."""
    if case.number < len(made):
        return made[case.number], made[case.number].content
    rng = Random(f"{seed} {case}")
    chosen = rng.choice(made)
    others = [other.content for other in made if Path(other.file).suffix == Path(chosen.file).suffix]
    return chosen, mutator_of(case.format, chosen.file)(chosen.content, rng, others)


def task_of(case: Case, seed: int, made: Sequence[Seed]) -> Task:
    format_ = FORMATS[case.format]
    chosen: list[Seed] = []

    def fill(root: Path) -> None:
        source, content = damaged(case, seed, made)
        chosen[:] = [source]
        shutil.copytree(source.folder, root, dirs_exist_ok=True)
        (root / source.file).write_bytes(content)

    return Task(case, fill, lambda root: format_.read(root, chosen[0].file), format_.names)


def shares(names: Sequence[str], number: int) -> dict[str, int]:
    """Cases of each format, by their weights."""
    total = sum(FORMATS[name].weight for name in names)
    return {name: max(1, round(number * FORMATS[name].weight / total)) for name in names}


def cases(counts: dict[str, int]) -> list[Case]:
    """Formats side by side, so that all of them have been tried after a while."""
    numbered = [(number / count, Case(name, number)) for name, count in counts.items() for number in range(count)]
    return [case for _, case in sorted(numbered, key=lambda pair: pair[0])]


def make_seeds(names: Sequence[str], folder: Path, real: Path | None) -> dict[str, list[Seed]]:
    return {name: FORMATS[name].make(folder / name, real) for name in names}


def warm_up(made: dict[str, list[Seed]], folder: Path) -> None:
    """Reads one sound file of each format, so that processes need not import what it takes."""
    for name, seeds in made.items():
        root = folder / name / "input"
        shutil.copytree(seeds[0].folder, root)
        try:
            FORMATS[name].read(root, seeds[0].file)
        except Exception as error:
            if name != "playlist":
                raise RuntimeError(f"the first seed of {name} cannot be read") from error


class Report:
    """Counts outcomes, and keeps what failed."""

    def __init__(self, keep: Path | None):
        self.keep = keep
        self.counts: dict[str, Counter] = defaultdict(Counter)
        self.failures: dict[tuple[str, str], list[tuple[Case, str, str]]] = defaultdict(list)
        self.seconds: Counter = Counter()
        self.was_stopped = False

    def add(self, case: Case, outcome: Outcome, file: str, content: bytes) -> None:
        column = "failures" if outcome.is_failure else outcome.result
        self.counts[case.format][column] += 1
        self.seconds[case.format] += outcome.seconds
        if not outcome.is_failure:
            return
        found = self.failures[case.format, outcome.result]
        found.append((case, file, outcome.detail))
        if self.keep is not None and len(found) <= 3:
            folder = self.keep / case.format
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{case.number}-{file.replace('/', '__')}"
            (folder / name).write_bytes(content)
            (folder / f"{name}.txt").write_text(f"{case} {file}\n{outcome}\n")

    def table(self) -> str:
        lines = [f"{'format':16}{DATA:>8}{TYPED:>14}{'failures':>10}{'cases/CPU s':>13}"]
        totals: Counter = Counter()
        for name, counts in self.counts.items():
            rate = counts.total() / max(self.seconds[name], 1e-9)
            lines.append(f"{name:16}{counts[DATA]:8}{counts[TYPED]:14}{counts['failures']:10}{rate:13.1f}")
            totals += counts
        lines.append(f"{'all':16}{totals[DATA]:8}{totals[TYPED]:14}{totals['failures']:10}")
        return "\n".join(lines)

    def faults(self) -> str:
        lines = []
        for (name, result), found in sorted(self.failures.items(), key=lambda item: (item[0][0], -len(item[1]))):
            case, file, detail = found[0]
            first = (detail.strip().splitlines() or [""])[0]
            lines.append(f"{name} {len(found)}x {result}\n    {case} {file}: {first[:160]}")
        return "\n".join(lines)


def run(
    counts: dict[str, int], seed: int, workers: int, real: Path | None, keep: Path | None = None, only: Case | None = None,
    say=lambda text: None,
) -> Report:  # fmt: skip
    """Reads the cases.

    Args:
        counts: Format → number of cases.
        seed: Of the mutations.
        workers: Processes at a time.
        real: A folder of real files, see `seeds`.
        keep: Where failing files go, three of each fault.
        only: The one case that is read.
        say: Is told how far it is.
    """
    report = Report(keep)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="mutations-", dir=memory if os.access(memory, os.W_OK) else None) as place:
        folder = Path(place)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            made = make_seeds(list(counts), folder / "seeds", real)
            warm_up(made, folder / "warm")
        wanted = [only] if only else cases(counts)
        started = said = time.monotonic()
        tasks = (task_of(case, seed, made[case.format]) for case in wanted)
        try:
            for done, (task, outcome) in enumerate(watched(tasks, workers, folder), start=1):
                case = task.key
                source, content = damaged(case, seed, made[case.format])
                report.add(case, outcome, source.file, content)
                if only:
                    say(f"{case} {source.file}: {outcome}")
                if time.monotonic() - said > 10:
                    said = time.monotonic()
                    failures = sum(counter["failures"] for counter in report.counts.values())
                    say(f"{done} of {len(wanted)}, {failures} failures, {done / (said - started):.1f} a second")
        except KeyboardInterrupt:  # what has been found is told all the same
            report.was_stopped = True
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=10_000, help="mutations of all formats (default 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default 0)")
    parser.add_argument(
        "--formats", nargs="+", choices=FORMATS, default=list(FORMATS), metavar="FORMAT", help=", ".join(FORMATS)
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes at a time (default: one for each core)"
    )
    parser.add_argument("--keep", type=Path, help="folder for the files that fail, three of each fault")
    parser.add_argument("--only", metavar="FORMAT:NUMBER", help="one case, with its traceback")
    options = parser.parse_args(arguments)
    real = os.environ.get("ACTION_LLM_TEST_DATA")
    only = None
    if options.only:
        name, _, number = options.only.partition(":")
        if name not in FORMATS or not number.isdecimal():
            parser.error(f"--only: expected FORMAT:NUMBER, got {options.only!r}")
        only, options.formats = Case(name, int(number)), [name]
    started = time.monotonic()
    counts = shares(options.formats, options.number)
    report = run(
        counts,
        options.seed,
        options.workers,
        Path(real) if real else None,
        options.keep,
        only,
        lambda text: print(text, flush=True),
    )
    print(report.table())
    print(f"{time.monotonic() - started:.0f} s")
    if report.failures:
        print(report.faults())
    return 130 if report.was_stopped else bool(report.failures)


if __name__ == "__main__":
    sys.exit(main())
