"""Time of a whole answer: from the file of a recording to its label, with and without a reason, alone and in batches.

    python recipes/benchmarks/benchmark_answers.py --model runs/mine/sft/model --recordings UTD-MHAD/Skeleton/*_s2_*.mat \\
        --output answers

The pipeline answers each recording with its label, with its label and reason, and all recordings in batches, which read the
text that their prompts share once. Beside it, for the prompt of the first recording, which every method reads whole: the
recogniser's class scores (by constrained decoding, they need only the tokens that tell names apart), whole names scored by a
trie, by one padded batch and by one forward pass each, and greedy decoding of eight tokens. Probabilities of whole names are
compared before anything is timed.

Times are those of the processor; on a GPU, those of the clock. The methods take turns, and the least time of each counts, since
other work on the machine can only add to it. Writes `OUTPUT.json` and a page, `OUTPUT.md`.
"""

import time
from dataclasses import dataclass, field

GREEDY_TOKENS = 8


@dataclass
class BenchmarkArguments:
    """What is measured, and how often."""

    model: str = field(metadata={"help": "recogniser: a folder or a repository"})
    recordings: list[str] = field(metadata={"help": "files of recordings"})
    output: str = field(metadata={"help": "path of the results without a suffix: .json and .md are written"})
    batch_size: int = field(default=32, metadata={"help": "recordings in a batch"})
    repetitions: int = field(default=3, metadata={"help": "times that each method runs; the least time counts"})
    device: str = field(default="cpu", metadata={"help": "device of the model"})


def answering(recognise, recordings: list[str], batch_size: int) -> dict:
    """Name of each answer of the pipeline → a function that gives it, and the number of recordings that it answers."""
    count = len(recordings)
    return {
        "label": (lambda: [recognise(recording) for recording in recordings], count),
        "label and reason": (lambda: [recognise(recording, explain=True) for recording in recordings], count),
        f"label, batches of {batch_size}": (lambda: recognise(recordings, batch_size=batch_size), count),
    }


def scoring(model, processor, sentence) -> dict:
    """Name of each method that scores the class names after a sentence → a function that does it, and 1, as in `answering`.

    Raises:
        AssertionError: if a probability of whole names differs from that of one forward pass per name by more than 1e-5, or, in
            half precision, by more than rounding explains.
    """
    import torch

    from action_llm.label_scoring import label_trie, score_labels
    from action_llm_recipes.benchmarks.benchmark_label_scoring import score_each_label, score_in_one_batch

    inputs = processor(action_ids=[sentence]).to(model.device)
    prompt, mask, names = inputs["input_ids"], inputs["attention_mask"], processor.label_ids()
    plain = label_trie(tuple(map(tuple, names)), constrained=False)

    def by_trie():
        return score_labels(model.model, model._head, model.config.text_config, prompt, mask, plain)[0]

    def in_one_batch():
        return score_in_one_batch(model, prompt, names)

    def one_by_one():
        return score_each_label(model, prompt, names)

    expected, tolerance = one_by_one().softmax(-1), max(1e-5, 16 * torch.finfo(model.dtype).eps)
    for scores in (by_trie(), in_one_batch()):
        difference = (scores.softmax(-1) - expected).abs().max().item()
        assert difference < tolerance, f"a probability differs by {difference}"
    length = {"max_new_tokens": GREEDY_TOKENS, "min_new_tokens": GREEDY_TOKENS, "do_sample": False}
    return {
        "recogniser's class scores": (lambda: model(**inputs), 1),
        "whole names, trie": (by_trie, 1),
        "whole names, one padded batch": (in_one_batch, 1),
        "whole names, one forward pass each": (one_by_one, 1),
        f"greedy decoding of {GREEDY_TOKENS} tokens": (
            lambda: model.generate(prompt, attention_mask=mask, **length),
            1,
        ),
    }


def least_seconds(methods: dict, repetitions: int, device) -> dict[str, float]:
    """Seconds of each method for one recording. They take turns."""
    import torch

    seconds: dict[str, list[float]] = {name: [] for name in methods}
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for _ in range(repetitions + 1):
        for name, (method, count) in methods.items():
            start = clock()
            method()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append((clock() - start) / count)
    return {name: min(values[1:]) for name, values in seconds.items()}  # the first reads files and prompts anew


def page(record: dict) -> str:
    """The results as a page in Markdown."""
    settings, seconds, ratios = record["settings"], record["seconds"], record["ratios"]
    lines = [
        "# Time of an answer",
        "",
        f"{settings['language_model']}, {settings['num_classes']} classes, sentences of {settings['words']} words, "
        f"{settings['recordings']} recordings; {'names by constrained decoding; ' * settings['constrained_scoring']}"
        f"{settings['threads']} CPU threads, {settings['device']}. Seconds for one recording, of the processor on a CPU; the "
        f"least of {settings['repetitions']}. Batches, and the shortened sentences of a reason, read what they share once; all "
        "other rows read a whole prompt.",
        "",
        "| | seconds |",
        "|---|---:|",
        *(f"| {name} | {value:.4f} |" for name, value in seconds.items()),
        "",
        "| ratio | |",
        "|---|---:|",
        *(f"| {name} | {value:.2f} |" for name, value in ratios.items()),
    ]
    return "\n".join(lines) + "\n"


ARGUMENTS = (BenchmarkArguments,)


def main(arguments: BenchmarkArguments) -> dict:
    """Measures and writes the results; returns the contents of the JSON file."""
    import torch
    from transformers import pipeline

    from action_llm import ActionLLMForClassification, ActionLLMProcessor
    from action_llm.explanations import sentence_of
    from action_llm_recipes.benchmarks.results import write_results

    model = ActionLLMForClassification.from_pretrained(arguments.model).to(arguments.device)
    processor = ActionLLMProcessor.from_pretrained(arguments.model)
    recognise = pipeline("action-recognition", model=model, processor=processor, device=arguments.device)
    answers = answering(recognise, arguments.recordings, arguments.batch_size)
    with torch.no_grad():
        outputs = model(**processor(arguments.recordings[0]).to(model.device))
        words, _ = sentence_of(outputs, run_lengths=processor.run_lengths)
        methods = answers | scoring(model, processor, words)
        seconds = least_seconds(methods, arguments.repetitions, model.device)
    batched = seconds[f"label, batches of {arguments.batch_size}"]
    text_config = model.config.text_config
    record = {
        "settings": {
            "language_model": f"{text_config.model_type} of width {text_config.hidden_size} and "
            f"{text_config.num_hidden_layers} layers",
            "num_classes": len(processor.class_names),
            "words": len(words),
            "recordings": len(arguments.recordings),
            "constrained_scoring": model.config.constrained_scoring,
            "batch_size": arguments.batch_size,
            "repetitions": arguments.repetitions,
            "threads": torch.get_num_threads(),
            "device": str(model.device),
            "dtype": str(model.dtype),
        },
        "seconds": seconds,
        "ratios": {
            "label and reason ÷ label": seconds["label and reason"] / seconds["label"],
            f"rate in batches of {arguments.batch_size} ÷ rate of single recordings": seconds["label"] / batched,
            **{
                f"{name} ÷ trie": seconds[f"whole names, {name}"] / seconds["whole names, trie"]
                for name in ("one padded batch", "one forward pass each")
            },
            "recogniser's class scores ÷ greedy decoding": seconds["recogniser's class scores"]
            / seconds[f"greedy decoding of {GREEDY_TOKENS} tokens"],
        },
    }
    write_results(arguments.output, record, page(record))
    return record


if __name__ == "__main__":
    from action_llm_recipes.common.launching import launch

    launch(main, *ARGUMENTS)
