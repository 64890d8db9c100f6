"""
Load test of `action-llm-serve` on the loopback interface: many clients, good and bad files, beside a single client.

```bash
python recipes/benchmarks/benchmark_serving.py --model runs/quickstart/model \\
    --recordings runs/quickstart/simulated_recordings --output model_cards/results/serving
```

The server is a process of its own, started as a user starts it. After a warm-up, a single client sends one file after another;
then `--clients` clients send files at the same time: recordings, and among them damaged files, files that are too large, files
of another type, and names that are paths. A client that is told that the server is busy waits as long as it is asked to. Each
answer is compared with the pipeline's on the file alone, and each refusal with the status that is due. The memory of the server
process is measured every second. Writes `OUTPUT.json` and `OUTPUT.md`. Needs psutil and the extra `serve`.
"""

import contextlib
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from action_llm_recipes.common.launching import launch

MEGABYTE = 1e6
# Memory rises and falls with each batch. What remains is the lowest value of so many seconds.
MEMORY_SECONDS = 10
# Share of the requests of each kind; all others are good recordings.
BAD = {"damaged": 0.1, "too large": 0.05, "another type": 0.1, "a path as name": 0.05}
# Largest difference of scores from the pipeline: a batch adds in another order.
TOLERANCE = 1e-4


@dataclass
class BenchmarkArguments:
    """The model, the recordings, and the load."""

    output: str = field(metadata={"help": "path of the report without its suffix; .json and .md are written"})
    model: str = field(metadata={"help": "folder or Hub repository of a recogniser"})
    recordings: str = field(metadata={"help": "folder of recordings that it reads"})
    files: int = field(
        default=40, metadata={"help": "number of different recordings, at even distances in the folder"}
    )
    clients: int = field(default=50, metadata={"help": "number of clients at the same time"})
    seconds: float = field(default=60.0, metadata={"help": "time of the many clients, in seconds"})
    warm_up_seconds: float = field(default=10.0, metadata={"help": "time of the clients before measuring, in seconds"})
    single_seconds: float = field(default=20.0, metadata={"help": "time of the single client, in seconds"})
    max_requests: int = field(default=40, metadata={"help": "requests that the server accepts at the same time"})
    max_mib: int = field(default=4, metadata={"help": "largest file that the server accepts, in MiB"})


ARGUMENTS = (BenchmarkArguments,)


class Sent(NamedTuple):
    """A file that clients send, and what is due: the status, and of a recording the pipeline's answer."""

    kind: str
    name: str
    body: bytes
    status: int
    answer: list[dict] | None = None


class Result(NamedTuple):
    """A request: kind of the file, status (0 without an answer), seconds, and what is wrong with the answer."""

    kind: str
    status: int
    seconds: float
    fault: str


def main(arguments: BenchmarkArguments) -> dict:
    """Measures and writes the results; returns the contents of the JSON file."""
    import psutil

    from action_llm_recipes.benchmarks.results import write_results
    from action_llm_recipes.common.run_folder import describe_hardware

    load, files = os.getloadavg()[0], files_to_send(arguments)
    good = files["recording"]
    with tempfile.TemporaryDirectory() as temporary, running_server(arguments, temporary) as (process, port):
        memory = psutil.Process(process.pid).memory_info
        # Libraries allocate memory at their first use, and for the largest batch.
        Clients(port, list(files.values()), arguments.clients).run(arguments.warm_up_seconds)
        single = Clients(port, [good], 1)
        single_seconds = single.run(arguments.single_seconds)
        many, during = Clients(port, list(files.values()), arguments.clients), []
        many_seconds = many.run(arguments.seconds, lambda: during.append(round(memory().rss / MEGABYTE, 1)))
        left = sorted(os.listdir(temporary))
    result = {
        "hardware": describe_hardware(),
        "load_average": round(load, 1),
        "clients": arguments.clients,
        "recordings": len(good),
        "median_kilobytes": statistics.median(len(file.body) for file in good) / 1000,
        "max_requests": arguments.max_requests,
        "single": summary(single.results, single_seconds),
        "many": summary(many.results, many_seconds),
        "memory_mb": {
            "first": min(during[:MEMORY_SECONDS]),
            "last": min(during[-MEMORY_SECONDS:]),
            "most": max(during),
            "each_second": during,
        },
        "files_left": len(left),
    }
    write_results(arguments.output, result, report(result))
    return result


def files_to_send(arguments: BenchmarkArguments) -> dict[str, list[Sent]]:
    """The files of each kind."""
    from action_llm_recipes.hub.demo import load_pipeline, pose_estimator, readable_suffixes, reads_skeletons

    recognise = load_pipeline(arguments.model)
    estimator = pose_estimator() if reads_skeletons(recognise) else None
    suffixes = readable_suffixes(recognise, estimator)
    paths = sorted(path for path in Path(arguments.recordings).rglob("*") if path.suffix.lower() in suffixes)
    if len(paths) < arguments.files:
        raise ValueError(
            f"--recordings {arguments.recordings}: expected at least {arguments.files} recordings, found {len(paths)}."
        )
    chosen = paths[:: len(paths) // arguments.files][: arguments.files]
    good = [
        Sent("recording", path.name, path.read_bytes(), 200, recognise(str(path), pose=estimator)) for path in chosen
    ]
    damaged = [Sent("damaged", sent.name, sent.body[: len(sent.body) // 100], 422) for sent in good[:10]]
    large = Sent("too large", good[0].name, bytes((arguments.max_mib << 20) + 1), 413)
    other = Sent("another type", "notes.pdf", b"%PDF-1.7\n", 415)
    path = Sent("a path as name", "../../../../etc/passwd", good[0].body, 415)
    return {file.kind: of_kind for of_kind in (good, damaged, [large], [other], [path]) for file in of_kind[:1]}


@contextlib.contextmanager
def running_server(arguments: BenchmarkArguments, temporary: str) -> Iterator[tuple[subprocess.Popen, int]]:
    """A server that answers, and its port; ended as by Ctrl-C. Its temporary files lie in a folder of their own."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    command = [sys.executable, "-m", "action_llm_recipes.hub.serve", arguments.model, "--port", str(port)]
    command += ["--max_requests", str(arguments.max_requests), "--max_mib", str(arguments.max_mib)]
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": temporary})
    try:
        while True:
            with contextlib.suppress(OSError):
                if request(port, "GET", "/health")[0] == 200:
                    break
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with status {process.returncode}; its output tells why.")
            time.sleep(0.2)
        yield process, port
    finally:
        process.terminate()
        process.wait()


def request(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes, float]:
    """Status, body, and the seconds to wait if the server is busy."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read(), float(response.headers.get("Retry-After", 0))
    finally:
        connection.close()


def send(port: int, file: Sent) -> Result:
    """Sends a file; after an answer that the server is busy, waits as long as it asks for."""
    started = time.perf_counter()
    try:
        status, body, wait = request(port, "POST", f"/recognise?name={quote(file.name)}", file.body)
    except OSError as error:
        return Result(file.kind, 0, time.perf_counter() - started, repr(error))
    seconds = time.perf_counter() - started
    if status == 503:
        time.sleep(wait)
    return Result(file.kind, status, seconds, "" if status == 503 else fault_of(file, status, body))


def fault_of(file: Sent, status: int, body: bytes) -> str:
    """What is wrong with an answer; empty if nothing is."""
    if status != file.status:
        return f"status {status} in place of {file.status}: {body[:200]!r}"
    answer = json.loads(body)
    if file.answer is None:
        return "" if isinstance(answer["detail"], str) and "/" not in answer["detail"] else f"error {answer}"
    scores = {entry["label"]: entry["score"] for entry in answer}
    expected = {entry["label"]: entry["score"] for entry in file.answer}
    is_equal = answer[0]["label"] == file.answer[0]["label"] and all(
        abs(scores.get(label, -1.0) - score) <= TOLERANCE for label, score in expected.items()
    )
    return "" if is_equal else f"{scores} in place of {expected}"


class Clients:
    """Clients that send files at the same time, each one after the other.

    Args:
        port: of the server.
        kinds: files of each kind, recordings first.
        count: number of clients.
    """

    def __init__(self, port: int, kinds: list[list[Sent]], count: int):
        self.port, self.kinds, self.count = port, kinds, count
        self.results: list[Result] = []

    def run(self, seconds: float, each_second=lambda: None) -> float:
        """Sends files for so long, and calls `each_second`; returns the seconds until the last answer."""
        started = time.perf_counter()
        until = started + seconds
        threads = [threading.Thread(target=self._send, args=(number, until)) for number in range(self.count)]
        for thread in threads:
            thread.start()
        while time.perf_counter() < until:
            time.sleep(1)
            each_second()
        for thread in threads:
            thread.join()
        return time.perf_counter() - started

    def _send(self, number: int, until: float):
        chance = random.Random(number)
        shares = [1 - sum(BAD.values()), *BAD.values()][: len(self.kinds)]
        while time.perf_counter() < until:
            (of_kind,) = chance.choices(self.kinds, shares)
            self.results.append(send(self.port, chance.choice(of_kind)))


def summary(results: list[Result], seconds: float) -> dict:
    """Counts, rates and times of requests, in seconds."""
    times = sorted(result.seconds for result in results if result.kind == "recording" and result.status == 200)
    faults = [result.fault for result in results if result.fault]
    return {
        "seconds": seconds,
        "statuses": {
            kind: dict(sorted(Counter(result.status for result in results if result.kind == kind).items()))
            for kind in ("recording", *BAD)
        },
        "answers_per_second": len(times) / seconds,
        "latency": {str(percent): times[min(len(times) - 1, len(times) * percent // 100)] for percent in (50, 95, 99)},
        "wrong": len(faults),
        "first_faults": faults[:5],
    }


def report(result: dict) -> str:
    """The results as a page in Markdown."""
    single, many, memory = result["single"], result["many"], result["memory_mb"]
    lines = [
        "# Load test of the server",
        "",
        f"`action-llm-serve` on the loopback interface: {result['hardware']}, shared by server and clients "
        f"(load average before the test: {result['load_average']:g}). {result['recordings']} recordings of "
        f"{result['median_kilobytes']:.0f} kB (median); at most {result['max_requests']} requests at the same time.",
        "",
        "| clients | recordings answered per second | median, s | 95 %, s | 99 %, s | wrong answers |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for clients, measured in ((1, single), (result["clients"], many)):
        latency = " | ".join(f"{seconds:.3f}" for seconds in measured["latency"].values())
        lines.append(f"| {clients} | {measured['answers_per_second']:.1f} | {latency} | {measured['wrong']} |")
    lines += [
        "",
        "An answer is wrong if its status is not the one that is due, its first class is not that of the pipeline on the file "
        f"alone, or a score differs by more than {TOLERANCE:g}. Times are those of answered recordings.",
        "",
        f"Requests of the {result['clients']} clients by status. 503 is a busy server; the client waits a second and goes on.",
        "",
    ]
    statuses = sorted({status for counts in many["statuses"].values() for status in counts})
    lines += [
        f"| file | {' | '.join(map(str, statuses))} |",
        f"|---|{'---:|' * len(statuses)}",
        *(
            f"| {kind} | {' | '.join(f'{counts.get(status, 0):,}' for status in statuses)} |"
            for kind, counts in many["statuses"].items()
        ),
        "",
        f"Memory of the server during {many['seconds']:.0f} s of {result['clients']} clients: lowest value of the first "
        f"{MEMORY_SECONDS} s {memory['first']:.0f} MB, of the last {MEMORY_SECONDS} s {memory['last']:.0f} MB; at most "
        f"{memory['most']:.0f} MB. Files left in its temporary folder: {result['files_left']}.",
        "",
        "```bash",
        "python recipes/benchmarks/benchmark_serving.py --model runs/quickstart/model \\",
        "    --recordings runs/quickstart/simulated_recordings --output model_cards/results/serving",
        "```",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
