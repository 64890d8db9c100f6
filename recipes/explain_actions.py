"""
Explain the decisions of a recogniser, and measure how faithful the explanations are.

```bash
python recipes/explain_actions.py --model runs/utd_mhad/sft/model --sentences runs/utd_mhad/sentences \\
    --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --output_dir runs/utd_mhad/explanations
```

`explanations.jsonl` and the illustrated `index.html` explain a few recordings, spread over the split: the recognised class, and
what happened during the tokens that supported it. For skeletons they also narrate what the body did in all; the narrator does
not know the classes. A mistake shows beside it what speaks for the true class. With `--name_tokens true`, the tokens are named.

Faithfulness is measured over more recordings: how far the probability of the recognised class falls when the named tokens are
deleted, compared with deleting as many other tokens. Where the language model was trained to describe recordings, the
statements of its descriptions of skeletons are checked, and those that the joints contradict are counted.

With `--writer smollm2`, a language model rewords the reasons for skeletons; `--writer own` is that of the recogniser, if it was
frozen in training and follows instructions. A text is used if all of its statements were measured. The page shows rejected
texts too, with the statements that they were rejected for, and `metrics.json` counts them (`written`).

As in `evaluate_classifier.py`, the default split is that of the held-out subjects if the recogniser was trained without them,
and uses of the test split are counted beside the model.

For videos, use `--dataset utd-mhad-video`; what moves is measured in the frames, and left and right are the viewer's.

An explanation says that the recogniser is not sure if the probability is below `--unsure_below`, by default the threshold that
`calibrate.py --sure_accuracy` chose.
"""

import html
import json
import logging
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.records import read_written
from action_llm_recipes.common.setting_checks import check_at_least_one
from action_llm_recipes.common.written_folders import check_recogniser, check_written_folder

logger = logging.getLogger(__name__)

# What is measured where no sentence is long enough.
NOT_MEASURED = {"sentences": 0, "whole": None, "without_named": None, "without_others": None, "difference": None}


@dataclass
class ExplanationArguments:
    """Which decisions are explained, and how."""

    model: str = field(metadata={"help": "folder or Hub repository of a recogniser"})
    sentences: str = field(metadata={"help": "folder that encode_actions.py wrote with the same action model"})
    output_dir: str = field(metadata={"help": "folder for explanations.jsonl, index.html, metrics.json and pictures"})
    split: Literal["test", "held_out", "train"] | None = field(
        default=None,
        metadata={
            "help": "test; held_out (held-out training subjects); train (the other training subjects). By default held_out if "
            "the recogniser was trained without these subjects, else test"
        },
    )
    count: int = field(default=10, metadata={"help": "number of recordings to explain, spread over the split"})
    faithfulness_count: int = field(
        default=100, metadata={"help": "number of recordings to measure faithfulness on, spread over the split"}
    )
    lexicon: str | None = field(
        default=None,
        metadata={
            "help": "folder that token_lexicon.py wrote, to tell what named tokens show as a rule; by default the lexicon of "
            "the model",
            "belongs_to": "name_tokens",
        },
    )
    num_reasons: int = field(default=3, metadata={"help": "maximum number of tokens that an explanation names"})
    name_tokens: bool = field(default=False, metadata={"help": "name the tokens in the texts, in brackets"})
    writer: str | None = field(
        default=None,
        metadata={
            "help": "language model that rewords the reasons: a repository, a folder, a GGUF file, smollm2, or own, that of "
            "the recogniser. By default, rules write them"
        },
    )
    unsure_below: float | None = field(
        default=None,
        metadata={
            "help": "probability below which the recogniser counts as not sure; by default that of its calibration, if any"
        },
    )
    seed: int = field(default=0, metadata={"help": "random seed of the other tokens that are deleted"})

    def __post_init__(self):
        check_settings(self)
        check_recogniser(self.model)
        check_written_folder(self.sentences, "encode_actions.py")


ARGUMENTS = (ExplanationArguments, DataArguments)


@writes_output_dir
def main(arguments: ExplanationArguments, data: DataArguments) -> dict:
    """Explains recordings and measures faithfulness; returns the content of metrics.json."""
    import torch

    from action_llm import ActionLLMProcessor
    from action_llm.written_reasons import load_writer
    from action_llm_recipes.common.action_sentences import load_action_sentences, select_split
    from action_llm_recipes.common.recognisers import load_for_sentences
    from action_llm_recipes.common.run_folder import RunFolder
    from action_llm_recipes.common.split_evidence import (
        check_evaluated,
        choose_split,
        count_test_evaluation,
        test_evaluations_text,
    )
    from action_llm_recipes.common.stage_records import training_record

    run = RunFolder(arguments.output_dir)
    identity = read_written(arguments.sentences, "identity.json", "encode_actions.py", "weights", "dataset")
    model = load_for_sentences(arguments.model, identity, "cuda" if torch.cuda.is_available() else "cpu")
    processor = ActionLLMProcessor.from_pretrained(arguments.model)
    writer = None if arguments.writer is None else load_writer(arguments.writer, model, processor)
    sentences, record = load_action_sentences(arguments.sentences), training_record(arguments.model)
    split = choose_split(arguments.split, record)
    rows = select_split(sentences, split)
    evidence = check_evaluated(arguments.model, record, arguments.sentences, rows, split)
    recordings = recordings_of(rows, split, data)
    threshold = arguments.unsure_below
    if threshold is None:
        threshold = (model.calibration and model.calibration.unsure_below()) or 0.0
    metrics = measure_faithfulness(arguments, model, processor, rows)
    metrics |= {"split": split, "num_tokens": arguments.num_reasons, "unsure_below": threshold}
    entries = explain_recordings(arguments, data, model, processor, writer, rows, recordings, threshold, run.path)
    metrics["statements"] = verdicts_of(entry["statements"] for entry in entries)
    if writer is not None:
        metrics["written"] = {"writer": arguments.writer, **count_written(entries)}
    write_explanations(run.path, entries, metrics)
    run.log_finished("Explanations", f"{len(entries)} of {len(rows)} recordings of {split}")
    logger.info("  in %s", run.path / "index.html")
    if split == "test":
        count = count_test_evaluation(arguments.model, identity["dataset"], evidence)
        if count is not None:
            logger.info("%s", test_evaluations_text(count))
    return metrics


def check_settings(arguments: ExplanationArguments) -> None:
    """
    Checks the settings of the recipe.

    Raises:
        ValueError: if a setting is out of range.
    """
    check_at_least_one(arguments, "count", "faithfulness_count")
    if arguments.num_reasons < 0:
        raise ValueError(f"num_reasons must be at least 0, got {arguments.num_reasons}.")
    if arguments.unsure_below is not None and not 0 <= arguments.unsure_below <= 1:
        raise ValueError(f"unsure_below must be from 0 to 1, got {arguments.unsure_below}.")


def recordings_of(rows, split: str, data: DataArguments):
    """
    The recordings of action sentences, in the order of the sentences.

    Args:
        rows: sentences of a split.
        split: "test", "held_out" or "train".
        data: the data set of the recordings.

    Raises:
        ValueError: if the data set lacks a recording.
    """
    recordings = data.load("skeletons", "videos")["test" if split == "test" else "train"].with_format("numpy")
    index_of = {sample_id: index for index, sample_id in enumerate(recordings["sample_id"])}
    if missing := set(rows["sample_id"]) - set(index_of):
        raise ValueError(
            f"{' and '.join(data.folders)} has no recording {min(missing)}. This recipe explains whole recordings; for windows "
            "of long videos, use timeline.py."
        )
    return recordings.select([index_of[sample_id] for sample_id in rows["sample_id"]])


def measure_faithfulness(arguments: ExplanationArguments, model, processor, rows) -> dict:
    """What `faithfulness` measures over recordings spread over the split; `NOT_MEASURED` where all sentences are too short."""
    from action_llm.explanations import faithfulness
    from action_llm_recipes.common.action_sentences import words_of

    words = [words_of(rows[index], processor) for index in spread(len(rows), arguments.faithfulness_count)]
    try:
        return faithfulness(model, processor, words, num_tokens=arguments.num_reasons, seed=arguments.seed)
    except ValueError as error:  # short sentences can still be explained
        logger.warning("faithfulness was not measured: %s", error)
        return dict(NOT_MEASURED)


def explain_recordings(
    arguments: ExplanationArguments, data, model, processor, writer, rows, recordings, threshold: float, folder: Path
) -> list[dict]:
    """
    Explains recordings spread over the split, and draws a picture of each.

    Args:
        arguments, data: of the recipe.
        model, processor: the recogniser.
        writer: language model that rewords the reasons of the decisions (`ReasonWriter`), or None.
        rows, recordings: sentences of the split, and their recordings in the same order.
        threshold: probability below which the recogniser counts as not sure.
        folder: for the pictures.

    Returns:
        The lines of explanations.jsonl.
    """
    from action_llm.explanations import explain
    from action_llm.motion_narration import narrate
    from action_llm.statement_checks import check_statements
    from action_llm.token_lexicon import read_lexicon
    from action_llm_datasets.progress import progress
    from action_llm_recipes.common.action_sentences import words_of

    names = rows.features["label"].names
    lexicon = None if arguments.lexicon is None else read_lexicon(Path(arguments.lexicon, "lexicon.json"))
    layout = getattr(processor.feature_extractor, "skeleton_layout", None)
    entries = []
    for index in progress(spread(len(rows), arguments.count), "explaining", "recordings"):
        row, recording = rows[index], recordings[index]
        with opened_video(data.data_dir, recording) as video:
            settings = {
                "recording": recording if video is None else video,
                "times": list(zip(row["start_times"], row["end_times"], strict=True)),
                "unsure_below": threshold,
                "num_reasons": arguments.num_reasons,
                "lexicon": lexicon,
                "name_tokens": arguments.name_tokens,
            }
            words, true_class = words_of(row, processor), names[row["label"]]
            explanation = explain(model, processor, words, writer=writer, **settings)
            is_mistake = explanation.label != true_class
            most_probable = sorted(explanation.probabilities.items(), key=lambda item: -item[1])[:5]
            entry = {
                "sample_id": row["sample_id"],
                "true_class": true_class,
                "text_of_true_class": explain(model, processor, words, label=true_class, **settings).text
                if is_mistake
                else "",
                **asdict(explanation),
                "probabilities": dict(most_probable),
                "narration": "",
                "statements": [],
            }
            if video is None:
                narration = narrate(recording, reading=processor.feature_extractor.to_dict())
                statements = check_statements(explanation.description, narration)
                entry |= {"narration": narration.text, "statements": [asdict(statement) for statement in statements]}
            draw(recording, video, layout, row, explanation, folder / picture_of(entry), title_of(entry))
        entries.append(entry)
    return entries


def verdicts_of(texts: Iterable[list[dict]]) -> dict[str, int]:
    """How many statements of texts are supported and contradicted, and the others."""
    from action_llm.statement_checks import Statement, count_verdicts

    return count_verdicts([Statement(**statement) for statements in texts for statement in statements])


def count_written(entries: list[dict]) -> dict:
    """How many texts of the writer were accepted and rejected, and the verdicts on their statements.

    `not_written` are recordings without a moment to write about: nobody moves, or no token supports the class.
    """
    written = [entry for entry in entries if entry["written"] is not None]
    accepted = sum(entry["reason_by"] == "language model" for entry in written)
    return {
        "accepted": accepted,
        "rejected": len(written) - accepted,
        "not_written": len(entries) - len(written),
        "statements": verdicts_of(entry["written"]["statements"] for entry in written),
    }


def write_explanations(folder: Path, entries: list[dict], metrics: dict):
    """Writes explanations.jsonl, metrics.json and index.html."""
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.common.run_folder import without_nan

    lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
    write_atomically(folder / "explanations.jsonl", "\n".join(lines) + "\n")
    write_atomically(folder / "metrics.json", json.dumps(without_nan(metrics), indent=1) + "\n")
    write_atomically(folder / "index.html", _page(entries, metrics))


def spread(total: int, count: int) -> list[int]:
    """At most `count` different integers from 0 to `total` − 1, evenly spaced."""
    import numpy as np

    return np.unique(np.linspace(0, total - 1, count).round().astype(int)).tolist()


@contextmanager
def opened_video(data_dir: str, recording: dict):
    """The opened video of a recording; None for a skeleton."""
    from action_llm.video_files import open_video
    from action_llm_datasets.videos import open_row

    if "video" not in recording:
        yield None
        return
    with open_row(data_dir, recording) as file, open_video(file) as video:
        yield video


def picture_of(entry: dict) -> str:
    """File name of the picture of an explanation."""
    return f"{entry['sample_id']}.png"


def title_of(entry: dict) -> str:
    return f"{entry['true_class']} (recognised: {entry['label']})"


def draw(recording: dict, video, layout, row: dict, explanation, path: Path, title: str):
    """
    Draws a recording above its sentence, with the contribution of each token to the decision.

    Args:
        recording: the row of a skeleton; not read for a video.
        video: opened, or None for a skeleton.
        layout: joint layout of the skeleton.
        row: the sentence.
        explanation: of the decision.
        path: of the picture.
        title: above the picture.
    """
    import numpy as np

    from action_llm_recipes.metrics.plots import plot_action_sentence, plot_video_sentence

    contributions = np.zeros(len(row["action_ids"]))
    for token in explanation.evidence:
        contributions[token.place] = token.contribution
    names = ("action_ids", "start_times", "end_times")
    sentence = {**{name: np.asarray(row[name]) for name in names}, "contributions": contributions}
    if video is None:
        keypoints = np.reshape(recording["keypoints"], recording["shape"])
        plot_action_sentence(keypoints, layout, float(recording["fps"]), path=path, title=title, **sentence)
        return
    plot_video_sentence(video.frames_at, video.info.seconds, path=path, title=title, **sentence)


def _page(entries: list[dict], metrics: dict) -> str:
    faithfulness = "Faithfulness was not measured: no sentence was long enough."
    if metrics["sentences"]:
        faithfulness = (
            f"Over {metrics['sentences']} recordings, the recognised class has a mean probability of {metrics['whole']:.0%}. "
            f"It falls to {metrics['without_named']:.0%} when the named tokens (at most {metrics['num_tokens']}) are deleted, "
            f"and to {metrics['without_others']:.0%} when as many other tokens are deleted."
        )
    counts = metrics["statements"]
    statements = ""
    if total := sum(counts.values()):
        statements = (
            f"<p>Of {total} statements in the descriptions by the language model, the joints support {counts['supported']} and "
            f"contradict {counts['contradicted']}; {counts['not checkable']} cannot be checked.</p>"
        )
    if written := metrics.get("written"):
        counts = written["statements"]
        statements += (
            f"<p>Of {written['accepted'] + written['rejected']} reasons by the language model "
            f"{html.escape(written['writer'])}, {written['accepted']} passed the check; the others are by rules. Of their "
            f"statements, {counts['supported']} were measured, {counts['contradicted']} contradict what was measured, and "
            f"{counts['not checkable']} were not measured.</p>"
        )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Explanations</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #23262c; }}
 img {{ max-width: 100%; }} .wrong {{ color: #b3261e; }}
</style>
<h1>What was recognised, and why</h1>
<p>{faithfulness}</p>{statements}
{"".join(map(_section, entries))}
</html>
"""


def _section(entry: dict) -> str:
    is_correct = entry["label"] == entry["true_class"]
    is_written = entry["reason_by"] == "language model"
    heading = f"{entry['sample_id']}: {entry['true_class']}"
    if not is_correct:
        heading += f", recognised as {entry['label']}"
    paragraphs = {
        f"Reason{', worded by the language model' if is_written else ''}": entry["text"],
        "What speaks for the true class": entry["text_of_true_class"],
        "Description by the language model": entry["description"],
        "What the body did": entry["narration"],
    }
    if entry["written"] is not None and not is_written:
        paragraphs |= _rejected(entry["written"])
    false = [statement["text"] for statement in entry["statements"] if statement["verdict"] == "contradicted"]
    if false:
        paragraphs["The joints contradict"] = "; ".join(false) + "."
    return (
        f'<section><h2 class="{"" if is_correct else "wrong"}">{html.escape(heading)}</h2>'
        f'<img src="{html.escape(picture_of(entry))}" alt="">'
        + "".join(f"<p><b>{title}.</b> {html.escape(text)}</p>" for title, text in paragraphs.items() if text)
        + "</section>"
    )


def _rejected(written: dict) -> dict[str, str]:
    """Paragraphs about a rejected text of the writer: the text, and the statements that it was rejected for."""
    if not written["text"]:
        return {"Rejected text of the language model": "it has no complete sentence."}
    why = {"contradicted": "contradicts what was measured", "not checkable": "not measured"}
    reasons = [
        f"“{statement['text']}” ({why[statement['verdict']]})"
        for statement in written["statements"]
        if statement["verdict"] in why
    ]
    return {
        "Rejected text of the language model": written["text"],
        "Rejected for": f"{'; '.join(reasons) or 'it says nothing about the body'}.",
    }


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
