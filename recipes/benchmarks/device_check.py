"""Whether this machine's accelerator computes what the CPU does, and what models of the papers' sizes take on it.

    python recipes/benchmarks/device_check.py --output device_check

Runs for at most ten minutes (`--minutes`), offline; all weights are random. Each check has a process of its own: if it fails or
runs out of memory, a line says so, and the next one starts. Without an accelerator, the checks run on the CPU with tiny sizes,
which shows that they work and measures nothing.

- stage 1 in float32, TF32 and bfloat16 beside the CPU; sdpa, eager and flash attention in label scoring
- resuming of both stages; FSDP, where there is a GPU
- the exact scores of 120 class names beside greedy decoding
- LLaVA-1.5-13B (the size of LLaMA-13B) with LoRA, and LLaVA-1.5-7B with prompts in layers: training, and a clip
- QLoRA, if bitsandbytes is installed
- the time to tokenise NTU RGB+D 120, extrapolated from a part

Writes `OUTPUT.json` and a page, `OUTPUT.md`, and ends with status 1 if a check failed. `benchmark_efficiency.py` and
`benchmark_label_scoring.py` have the options for other sizes and methods.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field


@dataclass
class CheckArguments:
    """Which checks run, and for how long."""

    output: str = field(metadata={"help": "path of the results without a suffix: .json and .md are written"})
    minutes: float = field(
        default=10.0, metadata={"help": "time for all checks; those that are not done by then are stopped"}
    )
    checks: list[str] = field(
        default_factory=list,
        metadata={"help": "words of the names of the checks to run, such as LoRA; by default all"},
    )
    tiny: bool | None = field(
        default=None, metadata={"help": "use tiny sizes; by default only without an accelerator"}
    )

    def __post_init__(self):
        if not self.minutes > 0:
            raise ValueError(f"--minutes must be positive, got {self.minutes}.")


def run_check(check: Callable, argument, seconds: float) -> dict:
    """
    Runs a check in a process of its own.

    Args:
        check: function that can be imported, of one argument, which returns a `Finding`.
        argument: of the check.
        seconds: after which the process is stopped.

    Returns:
        `status` ("passed", "failed" or "not run"), `summary`, `costs` and `facts` as in `Finding`, and `seconds`.
    """
    context, started = multiprocessing.get_context("spawn"), time.monotonic()
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(check, argument, sending))
    process.start()
    sending.close()  # the end of the process ends the pipe
    try:
        if receiving.poll(seconds):
            result = receiving.recv()
            process.join(10)  # ends by itself, unless a library hangs at exit
        else:
            result = _without_finding("failed", f"stopped after {seconds:.0f} s")
    except EOFError:
        process.join()
        result = _without_finding("failed", f"its process ended with status {process.exitcode}")
    finally:
        process.kill()
        process.join()
    return result | {"seconds": round(time.monotonic() - started, 1)}


def _report(check: Callable, argument, sending) -> None:
    """The process of a check: sends its finding, or its error in a line."""
    import torch

    from action_llm_recipes.benchmarks.device_measurements import NotRun

    try:
        finding = check(argument)
        result = {"status": "passed" if finding.passed else "failed", "summary": finding.summary}
        result |= {"costs": finding.costs, "facts": finding.facts}
    except NotRun as reason:
        result = _without_finding("not run", str(reason))
    except (torch.OutOfMemoryError, MemoryError):
        result = _without_finding("failed", "out of memory")
    except Exception as error:
        result = _without_finding("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    sending.send(result)


def _without_finding(status: str, summary: str) -> dict:
    return {"status": status, "summary": summary, "costs": "", "facts": {}}


def chosen_checks(names: list[str], words: list[str]) -> list[str]:
    """The names of checks that contain one of the words, in upper or lower case; all without words.

    Raises:
        ValueError: if no name contains a word.
    """
    for word in words:
        if not any(word.lower() in name.lower() for name in names):
            raise ValueError(f"--checks: no check is called {word!r}; there are: {', '.join(names)}.")
    return [name for name in names if not words or any(word.lower() in name.lower() for word in words)]


ARGUMENTS = (CheckArguments,)


def main(arguments: CheckArguments) -> dict:
    """Runs the checks and writes the results; returns the contents of the JSON file."""
    import importlib.metadata

    import torch

    from action_llm_recipes.benchmarks.device_measurements import CHECKS, TINY, Sizes
    from action_llm_recipes.benchmarks.results import write_results
    from action_llm_recipes.common.run_folder import LIBRARIES, describe_hardware

    names = chosen_checks(list(CHECKS), arguments.checks)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    tiny = accelerator is None if arguments.tiny is None else arguments.tiny
    deadline = time.monotonic() + 60 * arguments.minutes
    checks = {}
    for name in names:
        left = deadline - time.monotonic()
        if left > 0:
            checks[name] = run_check(CHECKS[name], TINY if tiny else Sizes(), left)
        else:
            checks[name] = _without_finding("not run", "no time was left") | {"seconds": 0.0}
        print(f"{name}: {checks[name]['status']}, {checks[name]['seconds']:.0f} s", flush=True)
    record = {
        "hardware": describe_hardware(),
        "accelerator": None if accelerator is None else accelerator.type,
        "tiny": tiny,
        "sizes": asdict(TINY if tiny else Sizes()),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "checks": checks,
    }
    write_results(arguments.output, record, page(record))
    return record


def page(record: dict) -> str:
    """The results as a page in Markdown."""
    checks, libraries, tiny = record["checks"], record["libraries"], record["tiny"]
    statuses = ("passed", "failed", "not run")
    counts = [f"{status} {sum(check['status'] == status for check in checks.values())}" for status in statuses]
    lines = [
        f"# Device check: {record['hardware']}",
        "",
        f"{', '.join(counts).capitalize()}. torch {libraries['torch']}, transformers {libraries['transformers']}, "
        f"accelerate {libraries['accelerate']}. All weights are random.",
        "",
    ]
    if record["accelerator"] is None:
        lines += ["**No accelerator was found: everything ran on the CPU.**", ""]
    if tiny:
        lines += [
            "**The sizes are tiny: this shows that the checks run. Times and memory, which would say nothing about the papers' "
            "models, are left out.**",
            "",
        ]
    lines += ["| check | result | measured |", "|---|---|---|"]
    for name, check in checks.items():
        parts = [check["summary"]]
        if not tiny:
            parts += [text for text in (check["costs"], f"{check['seconds']:.0f} s in all") if text]
        lines.append(f"| {name} | {check['status']} | {'; '.join(parts).replace('|', '/')} |")
    if not tiny:
        lines += beside_the_papers(checks)
    return "\n".join(lines) + "\n"


def beside_the_papers(checks: dict) -> list[str]:
    """Lines of a table: what was measured at the papers' sizes, and what the papers claim."""
    from action_llm_recipes.paper_tables.definitions import read_tables

    lora, prompts = read_tables("lvlm_var")["4"], read_tables("vt_lvlm_ar")["IV"]
    claims = dict(zip(lora.columns, lora.rows["lora"].claims, strict=True))
    of_names = "probabilities of 60 classes"
    rows = [
        ("LVLM-VAR, Table 4: memory, GB", "LoRA, 13B: training", "peak_memory_gb", claims["memory_gb"]),
        ("LVLM-VAR, Table 4: hours per epoch", "LoRA, 13B: training", "hours_per_epoch", claims["hours_per_epoch"]),
        ("LVLM-VAR, Table 4: s per clip", "LoRA, 13B: a clip", of_names, claims["seconds_per_recording"]),
        (
            "VT-LVLM-AR, Table IV: s per clip",
            "prompts in layers, 7B: a clip",
            of_names,
            dict(zip(prompts.columns, prompts.rows["prompts"].claims, strict=True))["seconds_per_recording"],
        ),
    ]
    lines = [
        "",
        "Seconds per clip are those of the language model, without decoding and action tokens. The papers do not say what "
        "theirs include.",
        "",
        "| | measured | the paper claims |",
        "|---|---:|---:|",
    ]
    for title, name, fact, claim in rows:
        value = checks.get(name, {"facts": {}})["facts"].get(fact)
        lines.append(f"| {title} | {'—' if value is None else f'{value:.2f}'} | {claim} |")
    return lines


if __name__ == "__main__":
    from action_llm_recipes.common.launching import launch

    found = launch(main, *ARGUMENTS)
    sys.exit(any(check["status"] == "failed" for check in found["checks"].values()))
