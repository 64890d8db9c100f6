"""
Threads that share a recogniser of skeletons and one of videos, over sound and damaged files: nothing grows, nothing differs.

```bash
python tests/mutations/soak.py --minutes 10 --threads 8
```

Each round, every thread reads every file, in an order of its own, with `on_error="return"`. An answer must equal that of a
single thread bit for bit. Between rounds, when all threads are idle, open files, threads and memory are counted: at the end
there may be no more files and threads than after the first tenth of the time (a minute at most), and `GROWTH` more memory.
The exit status is 1 otherwise, and where a round takes longer than `ROUND_SECONDS`.
"""

import argparse
import faulthandler
import gc
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from random import Random
from typing import NamedTuple

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
TESTS = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[:1] = [str(TESTS)]

import psutil  # noqa: E402
from mutations.formats import recogniser  # noqa: E402
from mutations.read_mutations import Case, damaged, make_seeds  # noqa: E402

# Format → what reads it.
READ_BY = {"skeleton": "skeletons", "npy": "skeletons", "npz": "skeletons", "mat": "skeletons"} | {
    "rows": "skeletons",
    "video": "videos",
}
# Damaged files have numbers from here on: those before may be seeds as they are.
FIRST_DAMAGED = 100
# Allocators keep some of what was freed, and more where threads share the work.
GROWTH = 32 << 20
ROUND_SECONDS = 300


class Usage(NamedTuple):
    """What a process holds: open files, threads, bytes."""

    files: int
    threads: int
    memory: int

    @classmethod
    def now(cls) -> "Usage":
        gc.collect()
        process = psutil.Process()
        return cls(process.num_fds(), process.num_threads(), process.memory_info().rss)

    def __str__(self) -> str:
        return f"{self.files} open files, {self.threads} threads, {self.memory >> 20} MiB"


def write_files(folder: Path, files: int, seed: int, real: Path | None = None) -> list[tuple[str, str]]:
    """Of each format, so many sound files at most and so many damaged ones: (the kind of recogniser, path)."""
    made = make_seeds(list(READ_BY), folder / "seeds", real)
    recordings = []
    for name, reads in READ_BY.items():
        sound = range(min(files, len(made[name])))
        for number in (*sound, *range(FIRST_DAMAGED, FIRST_DAMAGED + files)):
            source, content = damaged(Case(name, number), seed, made[name])
            path = folder / name / str(number) / source.file
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
            recordings.append((reads, str(path)))
    return recordings


def answer(recording: tuple[str, str]) -> str:
    """What a recogniser says, as text: equal for equal bits, also of NaN."""
    reads, path = recording
    return repr(recogniser(reads)(path, on_error="return"))


def soak(
    seconds: float, threads: int, folder: Path, files: int, seed: int = 0, real: Path | None = None, say=lambda text: None
) -> list[str]:  # fmt: skip
    """Complaints; empty where all is well.

    Args:
        seconds: How long, at least two rounds.
        threads: Number of them.
        folder: Where files are written.
        files: Of each format, sound and damaged ones each.
        seed: Of the damage.
        real: A folder of real files, see `seeds`.
        say: Is told what is held after each round.
    """
    recordings = write_files(folder, files, seed, real)
    expected = {recording: answer(recording) for recording in recordings}
    errors = sum("'error'" in text for text in expected.values())
    say(f"{len(recordings)} files, {errors} of them cannot be read")

    def read_all(number: int, round_: int) -> list[str]:
        order = Random(f"{seed} {round_} {number}").sample(recordings, len(recordings))
        return [
            f"{path}: {text}, alone {expected[reads, path]}"
            for reads, path in order
            if (text := answer((reads, path))) != expected[reads, path]
        ]

    started, round_, first = time.monotonic(), 0, None
    with ThreadPoolExecutor(threads) as pool:
        while first is None or time.monotonic() - started < seconds:
            running = [pool.submit(read_all, number, round_) for number in range(threads)]
            if wait(running, ROUND_SECONDS).not_done:
                faulthandler.dump_traceback()
                os._exit(1)  # a thread that waits for ever cannot be ended
            different = [text for future in running for text in future.result()]
            if different:
                return [
                    f"{len(different)} answers differ from those of a single thread, the first: {different[0][:1000]}"
                ]
            round_, usage = round_ + 1, Usage.now()
            say(f"round {round_}, {time.monotonic() - started:.0f} s: {usage}")
            if first is None and time.monotonic() - started >= min(60, seconds / 10):
                first = usage
        last = Usage.now()
    complaints = [
        f"{name}: {getattr(first, name)} after the first rounds, {getattr(last, name)} at the end"
        for name, allowed in (("files", 0), ("threads", 0), ("memory", GROWTH))
        if getattr(last, name) > getattr(first, name) + allowed
    ]
    say(f"{round_} rounds of {threads * len(recordings)} answers; first {first}; last {last}")
    return complaints


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="how long (default 10)")
    parser.add_argument("--threads", type=int, default=8, help="number of threads (default 8)")
    parser.add_argument("--files", type=int, default=6, help="of each format, sound and damaged ones each (default 6)")
    parser.add_argument("--seed", type=int, default=0, help="of the damage (default 0)")
    options = parser.parse_args(arguments)
    real = os.environ.get("ACTION_LLM_TEST_DATA")
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        complaints = soak(
            60 * options.minutes, options.threads, Path(folder), options.files, options.seed, Path(real) if real else None,
            lambda text: print(text, flush=True),
        )  # fmt: skip
    for complaint in complaints:
        print(complaint)
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())
