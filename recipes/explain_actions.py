"""
Reasons for a recogniser's decisions, and whether they can be believed.

```bash
python recipes/explain_actions.py --model runs/utd_mhad/sft/model --sentences runs/utd_mhad/sentences \\
    --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --output_dir runs/utd_mhad/explanations
```

For some recordings, spread over the split, what was recognised and the tokens that spoke for it with their times; of
skeletons also what the body did then, and what it did in all (the narrator knows no actions): `explanations.jsonl`, and
`index.html` with pictures. Over many more, faithfulness: how much of the probability goes when the named tokens are deleted,
against as many others. Videos: `--dataset utd-mhad-video`, and `--lexicon` for what their tokens mean.

The probability below which it says that it is not sure is `--unsure_below`, or chosen on the held-out training subjects with
`--sure_accuracy`, which needs a recogniser that was trained without them (`--hold_out true`).
"""

import html
import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.records import read_written
from action_llm_recipes.common.written_folders import check_recogniser, check_written_folder

logger = logging.getLogger(__name__)


@dataclass
class ExplanationArguments:
    """Which decisions are explained."""

    model: str = field(metadata={"help": "folder or Hub repository of an ActionLLM"})
    sentences: str = field(metadata={"help": "folder that encode_actions.py wrote with the same action model"})
    output_dir: str = field(metadata={"help": "folder for explanations.jsonl, index.html and pictures"})
    split: Literal["test", "held_out", "train"] = field(
        default="test", metadata={"help": "test, held_out, or train without the held-out subjects"}
    )
    count: int = field(default=10, metadata={"help": "recordings that are explained, spread over the split"})
    faithfulness_count: int = field(default=100, metadata={"help": "recordings over which faithfulness is measured"})
    lexicon: str | None = field(
        default=None,
        metadata={"help": "folder that token_lexicon.py wrote: tokens of videos are named with their classes"},
    )
    num_reasons: int = field(default=3, metadata={"help": "tokens that a reason names"})
    unsure_below: float | None = field(
        default=None, metadata={"help": "probability below which it is not sure; by default it always is"}
    )
    sure_accuracy: float | None = field(
        default=None,
        metadata={"help": "choose that probability on held-out subjects: share of its answers to be right"},
    )
    seed: int = field(default=0, metadata={"help": "seed of the tokens that are deleted at random"})

    def __post_init__(self):
        check_settings(self)
        check_recogniser(self.model)
        check_written_folder(self.sentences, "encode_actions.py")


ARGUMENTS = (ExplanationArguments, DataArguments)


@writes_output_dir
def main(arguments: ExplanationArguments, data: DataArguments) -> dict:
    """Explains and measures; returns what is written to metrics.json."""
    import torch

    from action_llm import ActionLLMProcessor
    from action_llm.explanations import abstention_threshold, class_log_probabilities, explain, faithfulness
    from action_llm.motion_narration import narrate
    from action_llm.token_lexicon import read_lexicon
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_datasets.progress import progress
    from action_llm_recipes.common.action_sentences import load_action_sentences, select_split, words_of
    from action_llm_recipes.common.recognisers import load_recogniser
    from action_llm_recipes.common.run_folder import RunFolder, without_nan
    from action_llm_recipes.common.split_evidence import check_evaluated
    from action_llm_recipes.common.stage_records import training_record

    run = RunFolder(arguments.output_dir)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    identity = read_written(arguments.sentences, "identity.json", "encode_actions.py", "weights", "dataset")
    model = load_recogniser(arguments.model, identity, device)
    processor = ActionLLMProcessor.from_pretrained(arguments.model)
    sentences = load_action_sentences(arguments.sentences)
    rows = select_split(sentences, arguments.split)
    names = rows.features["label"].names
    record = training_record(arguments.model)
    check_evaluated(arguments.model, record, arguments.sentences, rows, arguments.split)

    threshold = arguments.unsure_below or 0.0
    if arguments.sure_accuracy is not None:
        held_out = select_split(sentences, "held_out")
        check_evaluated(arguments.model, record, arguments.sentences, held_out, "held_out")
        scores = class_log_probabilities(model, processor, [words_of(row, processor) for row in held_out])
        best = scores.max(dim=1)
        right = (best.indices == torch.tensor(held_out["label"])).tolist()
        threshold = abstention_threshold(best.values.exp().tolist(), right, arguments.sure_accuracy)
        logger.info("Sure from a probability of %.3f on, chosen on %d held-out recordings", threshold, len(held_out))

    words = [words_of(rows[index], processor) for index in spread(len(rows), arguments.faithfulness_count)]
    metrics = {"sentences": 0, "whole": None, "without_named": None, "without_others": None, "difference": None}
    try:
        metrics = faithfulness(model, processor, words, num_tokens=arguments.num_reasons, seed=arguments.seed)
    except ValueError as error:  # short sentences are no reason not to explain
        logger.warning("faithfulness was not measured: %s", error)

    lexicon = None
    if arguments.lexicon is not None:
        lexicon = read_lexicon(Path(arguments.lexicon, "lexicon.json"))
    recordings = data.load("skeletons", "videos")["test" if arguments.split == "test" else "train"].with_format(
        "numpy"
    )
    places = {name: index for index, name in enumerate(recordings["sample_id"])}
    if missing := set(rows["sample_id"]) - set(places):
        raise ValueError(
            f"{min(missing)} is no recording of {data.data_dir}: explained are whole recordings; of windows, timeline.py tells."
        )
    found, sections = [], []
    for index in progress(spread(len(rows), arguments.count), "explaining", "recordings"):
        row = rows[index]
        recording = recordings[places[row["sample_id"]]]
        with source(data.data_dir, recording) as video:
            one = explain(
                model,
                processor,
                words_of(row, processor),
                recording=recording if video is None else None,
                times=list(zip(row["start_times"], row["end_times"], strict=True)),
                unsure_below=threshold,
                num_reasons=arguments.num_reasons,
                lexicon=lexicon,
            )
            title = f"{names[row['label']]} (recognised: {one.label})"
            picture = f"{row['sample_id']}.png"
            layout = getattr(processor.feature_extractor, "skeleton_layout", None)
            draw(recording, video, layout, row, one, run.path / picture, title)
        told = narrate(recording).text if video is None else ""
        entry = {"sample_id": row["sample_id"], "true_class": names[row["label"]], **asdict(one), "narration": told}
        entry["probabilities"] = dict(sorted(one.probabilities.items(), key=lambda item: -item[1])[:5])
        found.append(entry)
        sections.append(_section(entry, picture))
    lines = [json.dumps(entry, ensure_ascii=False) for entry in found]
    write_atomically(run.path / "explanations.jsonl", "\n".join(lines) + "\n")
    metrics |= {"split": arguments.split, "num_tokens": arguments.num_reasons, "unsure_below": threshold}
    write_atomically(run.path / "metrics.json", json.dumps(without_nan(metrics), indent=1) + "\n")
    write_atomically(run.path / "index.html", _page(sections, metrics))
    run.log_finished("Explanations", f"{len(found)} of {len(rows)} recordings of {arguments.split}")
    logger.info("  in %s", run.path / "index.html")
    return metrics


def check_settings(arguments: ExplanationArguments) -> None:
    """Raises `ValueError` for settings that cannot be, or that another one leaves without effect."""
    for name, least in (("count", 1), ("faithfulness_count", 1), ("num_reasons", 0)):
        if (value := getattr(arguments, name)) < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")
    for name in ("unsure_below", "sure_accuracy"):
        if (value := getattr(arguments, name)) is not None and not 0 <= value <= 1:
            raise ValueError(f"{name} must be from 0 to 1, got {value}.")
    if None not in (arguments.unsure_below, arguments.sure_accuracy):
        raise ValueError(
            f"sure_accuracy {arguments.sure_accuracy} chooses the probability that unsure_below {arguments.unsure_below} sets: "
            "leave one of them out."
        )


def spread(total: int, count: int) -> list[int]:
    """At most `count` of the places 0 to `total` − 1, each once, at equal distances."""
    import numpy as np

    return np.unique(np.linspace(0, total - 1, count).round().astype(int)).tolist()


def source(data_dir: str, recording: dict):
    """A context: the video of a row, open for reading, or None for one with joints."""
    from contextlib import nullcontext

    from action_llm_datasets.videos import open_row

    return open_row(data_dir, recording) if "video" in recording else nullcontext()


def draw(recording: dict, video, layout, row: dict, explanation, path, title: str):
    """Writes a picture: the recording over its sentence, and what each token did to the decision.

    Args:
        recording: a row with joints, or `video`, open for reading.
        layout: of the joints.
        row: its sentence.
    """
    import numpy as np

    from action_llm.video_files import open_video
    from action_llm_recipes.metrics.plots import plot_action_sentence, plot_video_sentence

    contributions = np.zeros(len(row["action_ids"]))
    for one in explanation.evidence:
        contributions[one.place] = one.contribution
    names = ("action_ids", "start_times", "end_times")
    sentence = {**{name: np.asarray(row[name]) for name in names}, "contributions": contributions}
    if video is None:
        keypoints = np.reshape(recording["keypoints"], recording["shape"])
        plot_action_sentence(keypoints, layout, float(recording["fps"]), path=path, title=title, **sentence)
        return
    with open_video(video) as frames:
        plot_video_sentence(frames.frames_at, frames.info.seconds, path=path, title=title, **sentence)


def _section(entry: dict, picture: str) -> str:
    right = entry["label"] == entry["true_class"]
    head = f"{entry['sample_id']}: {entry['true_class']}" + ("" if right else f", taken for {entry['label']}")
    shown = f'<img src="{html.escape(picture)}" alt="">'
    said = f"<p><b>In its own words.</b> {html.escape(entry['description'])}</p>" if entry["description"] else ""
    told = f"<p><b>What the body did.</b> {html.escape(entry['narration'])}</p>" if entry["narration"] else ""
    return (
        f'<section><h2 class="{"" if right else "wrong"}">{html.escape(head)}</h2>{shown}'
        f"<p><b>Reason.</b> {html.escape(entry['text'])}</p>{said}{told}</section>"
    )


def _page(sections: list[str], metrics: dict) -> str:
    measured = "Whether the reasons can be believed was not measured: no sentence was long enough."
    if metrics["sentences"]:
        measured = (
            f"Over {metrics['sentences']} recordings, the recognised class has a probability of {metrics['whole']:.0%} on "
            f"average, {metrics['without_named']:.0%} after the tokens that are named (at most {metrics['num_tokens']}) are "
            f"deleted, and {metrics['without_others']:.0%} after as many others are."
        )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Explanations</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #23262c; }}
 img {{ max-width: 100%; }} .wrong {{ color: #b3261e; }}
</style>
<h1>What was recognised, and why</h1>
<p>{measured}</p>
{"".join(sections)}
</html>
"""


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
