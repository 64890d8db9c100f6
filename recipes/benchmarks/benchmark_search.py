"""
Time of a query of `action-llm-search` over made-up windows, beside a k-d tree (`scipy.spatial.cKDTree`) on the same vectors.

```bash
python recipes/benchmarks/benchmark_search.py --output model_cards/results/search
```

Windows and examples are drawn from a Dirichlet distribution. The score of a window is the square of the inner product of two
unit vectors (`search/recording_index.py`), so the best windows are the nearest ones, and both find the same. The index is in
memory. Times are CPU seconds of this process, so that others do not count. Writes `OUTPUT.json` and `OUTPUT.md`.
"""

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from action_llm_recipes.common.launching import launch

# Windows of a recording, a second each.
WINDOWS_PER_RECORDING = 100


@dataclass
class BenchmarkArguments:
    """Size of the index, and the queries."""

    output: str = field(metadata={"help": "path of the report without its suffix; .json and .md are written"})
    windows: int = field(default=100_000, metadata={"help": "number of windows"})
    classes: int = field(default=60, metadata={"help": "number of classes"})
    concentration: float = field(
        default=0.1,
        metadata={"help": "of the Dirichlet distribution: near 0, each window has a single probable class"},
    )
    count: int = field(default=10, metadata={"help": "number of results of a query"})
    queries: int = field(default=20, metadata={"help": "number of queries of each kind"})


ARGUMENTS = (BenchmarkArguments,)


def main(arguments: BenchmarkArguments) -> dict:
    """Measures, writes and prints the report; returns the content of the JSON file."""
    import numpy as np
    import scipy
    from scipy.spatial import cKDTree

    from action_llm_recipes.benchmarks.results import write_results
    from action_llm_recipes.search.queries import Part, find

    rng = np.random.default_rng(0)
    index = made_up_index(arguments, rng)
    build, tree = timed(lambda: cKDTree(index.roots))
    examples = rng.dirichlet(np.full(arguments.classes, arguments.concentration), arguments.queries)
    classes = np.eye(arguments.classes)[rng.integers(arguments.classes, size=arguments.queries)]
    kinds = {}
    for kind, queries in {"example": examples, "class": classes}.items():
        ours, theirs, difference = [], [], 0.0
        for weights in queries:
            seconds, hits = timed(lambda weights=weights: find(index, [Part("", weights, "name")], arguments.count))
            ours.append(seconds)
            seconds, (distances, _) = timed(lambda weights=weights: tree.query(np.sqrt(weights), arguments.count))
            theirs.append(seconds)
            # |a - b|² = 2 - 2 a·b of unit vectors
            scores = (1 - np.atleast_1d(distances) ** 2 / 2) ** 2
            difference = max(difference, float(np.abs(scores - [hit.score for hit in hits]).max()))
        kinds[kind] = {
            "seconds": statistics.median(ours),
            "tree_seconds": statistics.median(theirs),
            "largest_difference_of_scores": difference,
        }
    in_order = [
        timed(lambda pair=pair: find(index, [Part("", weights, "name") for weights in pair], arguments.count))[0]
        for pair in zip(classes, np.roll(classes, 1, axis=1), strict=True)
    ]
    kinds["two classes in order"] = {"seconds": statistics.median(in_order)}
    record = {
        "machine": f"{platform.machine()}, numpy {np.__version__}, scipy {scipy.__version__}",
        "windows": arguments.windows,
        "classes": arguments.classes,
        "concentration": arguments.concentration,
        "count": arguments.count,
        "queries": arguments.queries,
        "tree_build_seconds": build,
        "kinds": kinds,
    }
    write_results(arguments.output, record, report(record))
    return record


def timed(work: Callable) -> tuple:
    """CPU seconds of a call, and what it returns."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def made_up_index(arguments: BenchmarkArguments, rng):
    """An index of random windows without sentences."""
    import numpy as np

    from action_llm_recipes.search.recording_index import RecordingIndex

    number = np.arange(arguments.windows)
    starts = (number % WINDOWS_PER_RECORDING).astype(np.float64)
    probabilities = rng.dirichlet(np.full(arguments.classes, arguments.concentration), arguments.windows)
    recording = (number // WINDOWS_PER_RECORDING).astype(np.int32)
    return RecordingIndex(
        settings={"class_names": [f"class {place}" for place in range(arguments.classes)], "seconds": 1.0},
        files=[f"recording {place}" for place in range(recording[-1] + 1)],
        recording=recording,
        starts=starts,
        ends=starts + 1,
        roots=np.sqrt(probabilities).astype(np.float32),
        tokens=np.zeros(0, np.int32),
        offsets=np.zeros(len(number) + 1, np.int64),
    )


def report(record: dict) -> str:
    """The results as a page in Markdown."""
    difference = max(of_kind.get("largest_difference_of_scores", 0) for of_kind in record["kinds"].values())
    lines = [
        "# Time of a search",
        "",
        f"{record['windows']:,} made-up windows of {record['classes']} classes (Dirichlet, concentration "
        f"{record['concentration']:g}); the best {record['count']}; median of {record['queries']} queries in CPU time, without "
        f"reading the index ({record['machine']}). The k-d tree is `scipy.spatial.cKDTree` on the same vectors, built in "
        f"{record['tree_build_seconds']:.2g} s; a search builds nothing. The scores that the two find differ by at most "
        f"{difference:.0e}.",
        "",
        "| query | search, ms | k-d tree, ms | k-d tree / search |",
        "|---|---:|---:|---:|",
    ]
    for kind, of_kind in record["kinds"].items():
        tree = of_kind.get("tree_seconds")
        beside = "– | –" if tree is None else f"{1000 * tree:.1f} | {tree / of_kind['seconds']:.1f}"
        lines.append(f"| {kind} | {1000 * of_kind['seconds']:.1f} | {beside} |")
    lines += [
        "",
        "```bash",
        "python recipes/benchmarks/benchmark_search.py --output model_cards/results/search",
        "```",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
