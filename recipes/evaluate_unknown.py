"""
Measure how well a recogniser notices that a recording shows none of its classes.

```bash
python recipes/run_line.py --dataset utd-mhad-unseen-0 --data_dir UTD-MHAD/Skeleton --hold_out true --output_dir runs/unseen
python recipes/evaluate_unknown.py --model runs/unseen/sft/model --sentences runs/unseen/sentences \\
    --output_dir runs/unseen/unknown
```

The sentences are of a protocol whose test classes are not trained on. The recogniser reads them, and the held-out recordings of
its own classes, as if all were of its classes. Two scores are compared: the entropy of the class probabilities, which the
pipeline returns, and 1 minus the largest probability, the usual baseline. metrics.json has, for each, the area under the ROC
curve and the share of unknown recordings that pass where 95 % of the known ones do.
"""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.recognisers import load_for_sentences
from action_llm_recipes.common.records import read_written
from action_llm_recipes.common.setting_checks import check_at_least_one
from action_llm_recipes.common.stage_records import check_unseen, training_record
from action_llm_recipes.common.written_folders import check_recogniser, check_written_folder

logger = logging.getLogger(__name__)


@dataclass
class UnknownArguments:
    """Which recogniser is evaluated, and on which recordings."""

    model: str = field(metadata={"help": "folder or Hub repository of a recogniser that held subjects out"})
    sentences: str = field(
        metadata={"help": "folder that encode_actions.py wrote, of a protocol with unseen test classes"}
    )
    output_dir: str = field(metadata={"help": "folder for metrics.json"})
    batch_size: int = field(default=16, metadata={"help": "number of sentences per batch"})

    def __post_init__(self):
        check_at_least_one(self, "batch_size")
        check_recogniser(self.model)
        check_written_folder(self.sentences, "encode_actions.py")


ARGUMENTS = (UnknownArguments,)


@writes_output_dir
def main(arguments: UnknownArguments) -> dict:
    """Measures how well unknown classes are noticed; returns the content of metrics.json."""
    import torch

    from action_llm import ActionLLMProcessor
    from action_llm.label_scoring import normalised_entropy
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.common.action_sentences import load_action_sentences, select_split
    from action_llm_recipes.common.split_evidence import check_evaluated
    from action_llm_recipes.evaluate_classifier import score
    from action_llm_recipes.metrics.novelty import area_under_roc, false_accept_rate

    identity = read_written(arguments.sentences, "identity.json", "encode_actions.py", "weights", "dataset")
    sentences, record = load_action_sentences(arguments.sentences), training_record(arguments.model)
    rows = {"known": select_split(sentences, "held_out"), "unknown": select_split(sentences, "test")}
    check_unseen(record, rows["unknown"].features["label"].names)
    check_evaluated(arguments.model, record, arguments.sentences, rows["known"], "held_out")
    processor = ActionLLMProcessor.from_pretrained(arguments.model)
    model = load_for_sentences(arguments.model, identity, "cuda" if torch.cuda.is_available() else "cpu")
    scores: dict[str, list] = {"entropy": [], "largest_probability": []}
    for part in rows.values():
        log_probabilities = score(model, processor, part, None, arguments.batch_size, processor.class_names)
        probabilities = model.calibrated(torch.from_numpy(log_probabilities))
        scores["entropy"].append(normalised_entropy(probabilities).numpy())
        scores["largest_probability"].append(1 - probabilities.amax(dim=1).numpy())
    metrics = {"dataset": identity["dataset"], **{name: len(part) for name, part in rows.items()}}
    for name, (known, unknown) in scores.items():
        metrics[name] = {
            "area_under_roc": area_under_roc(known, unknown),
            "false_accept_rate": false_accept_rate(known, unknown),
        }
        logger.info(
            "%s: area under the ROC curve %.3f; %.1f %% of the unknown recordings pass where 95 %% of the known ones do",
            name.replace("_", " "),
            metrics[name]["area_under_roc"],
            100 * metrics[name]["false_accept_rate"],
        )
    write_atomically(Path(arguments.output_dir, "metrics.json"), json.dumps(metrics, indent=2) + "\n")
    return metrics


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
