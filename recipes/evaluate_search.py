"""
Precision of a search: the share of the first 1, 5 and 10 results that show the action.

```bash
action-llm-search index UTD-MHAD/Skeleton/*_s[2468]_*.mat --model runs/utd_mhad/sft/model \\
    --output runs/utd_mhad/index.safetensors
python recipes/evaluate_search.py --index runs/utd_mhad/index.safetensors --sentences runs/utd_mhad/sentences \\
    --output_dir runs/utd_mhad/search
```

The index has whole test recordings; the sentences, of `encode_actions.py --latents true`, have their classes. Files are matched
to recordings by their names, with or without an ending such as `_skeleton`. There is a query for each class that is in the
index, its name, and one for each recording, as an example, which is not a result of its own query. The baseline is nearest
neighbours by Euclidean distance of latents, resampled to one number of words; a class is then the mean of its training
recordings. The results are in `metrics.json`.
"""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.written_folders import check_written_folder

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

RESULTS = (1, 5, 10)
# Endings of file names that are not part of the names of recordings (UTD-MHAD, NTU RGB+D).
ENDINGS = ("", "_skeleton", "_depth", "_color", "_rgb")
# Latents are compared word by word, after resampling to this number of words.
WORDS = 16


@dataclass
class SearchEvaluationArguments:
    """The index, and the labels of its recordings."""

    index: str = field(metadata={"help": "index of whole test recordings, of action-llm-search index"})
    sentences: str = field(metadata={"help": "folder of action sentences of the data set, with latents"})
    output_dir: str = field(metadata={"help": "folder for metrics.json"})

    def __post_init__(self):
        check_written_folder(self.sentences, "encode_actions.py")


ARGUMENTS = (SearchEvaluationArguments,)


@writes_output_dir
def main(arguments: SearchEvaluationArguments) -> dict:
    """
    Evaluates the search; returns the content of metrics.json.

    Raises:
        ValueError: if the index has windows, other classes, or a file of no test recording, or there are no latents.
    """
    import numpy as np

    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.baselines.models import resample
    from action_llm_recipes.common.action_sentences import load_action_sentences
    from action_llm_recipes.search.queries import Part, find, read_text
    from action_llm_recipes.search.recording_index import read_index

    index = read_index(arguments.index)
    if index.settings["seconds"] is not None:
        raise ValueError(
            f"--index {arguments.index}: expected whole recordings, found windows: index the "
            "recordings without --seconds."
        )
    splits = load_action_sentences(arguments.sentences)
    if "latents" not in splits["test"].column_names:
        raise ValueError(f"{arguments.sentences} contains no latents: run encode_actions.py with --latents true.")
    class_names = splits["test"].features["label"].names
    if class_names != index.class_names:
        raise ValueError(f"{arguments.sentences} has other classes than the index {arguments.index}.")
    latents, labels = {}, {}
    for split in ("train", "test"):
        for row in splits[split].with_format("numpy"):
            if int(row["encoding"]) == 0:
                sequence = row["latents"].reshape(len(row["action_ids"]), -1)
                latents[split, str(row["sample_id"])] = resample(sequence, WORDS).ravel()
                labels[split, str(row["sample_id"])] = int(row["label"])
    tested = {name for split, name in labels if split == "test"}
    names = recordings_of([index.files[recording] for recording in index.recording], tested)
    if len(names) <= max(RESULTS):
        raise ValueError(
            f"--index {arguments.index}: expected more than {max(RESULTS)} recordings, found {len(names)}: index all test "
            "recordings."
        )
    actions = np.array([labels["test", name] for name in names])
    vectors = np.stack([latents["test", name] for name in names])
    classes = np.unique(actions).tolist()
    centres = {}
    for label in classes:
        of_class = [latents[key] for key, action in labels.items() if key[0] == "train" and action == label]
        if not of_class:
            raise ValueError(f"{arguments.sentences} has no training recording of {class_names[label]!r}.")
        centres[label] = np.mean(of_class, axis=0)

    def no_language_model(text: str) -> "np.ndarray":
        raise AssertionError(f"{text!r} is a class")

    # Kind of query → the parts of each query, its latents, its action, and the window that is not a result.
    queries = {
        "class": [
            (read_text(class_names[label], class_names, no_language_model), centres[label], label, None)
            for label in classes
        ],
        "example": [
            (
                [Part(name, index.roots[window].astype(np.float64) ** 2, "example")],
                vectors[window],
                actions[window],
                window,
            )
            for window, name in enumerate(names)
        ],
    }
    metrics = {"recordings": len(names), "classes": len(classes)}
    for kind, of_kind in queries.items():
        actions_of_results = {"search": [], "nearest latents": []}
        for parts, vector, _, left_out in of_kind:
            hits = [hit.windows[0] for hit in find(index, parts, max(RESULTS) + 1)]
            nearest = np.argsort(np.linalg.norm(vectors - vector, axis=1), kind="stable").tolist()
            for method, results in (("search", hits), ("nearest latents", nearest)):
                results = [window for window in results if window != left_out][: max(RESULTS)]
                actions_of_results[method].append(actions[results])
        query_actions = np.array([action for _, _, action, _ in of_kind])
        relevant = [(actions == action).sum() - (left_out is not None) for _, _, action, left_out in of_kind]
        metrics[kind] = {
            "queries": len(of_kind),
            "fewest_relevant": int(min(relevant)),
            "precision": {method: precision(results, query_actions) for method, results in actions_of_results.items()},
        }
    folder = Path(arguments.output_dir)
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    for kind in ("class", "example"):
        for method, values in metrics[kind]["precision"].items():
            shares = ", ".join(f"{100 * value:.1f} % at {count}" for count, value in values.items())
            logger.info("by %s, %s: %s", kind, method, shares)
    return metrics


def recordings_of(files: list[str], names: set[str]) -> list[str]:
    """
    The recording of each file: the one whose name is the end of its path, without suffix and `ENDINGS`.

    Raises:
        ValueError: if a file is none of the recordings, or two files are the same one.
    """
    found = {}
    for file in files:
        path = Path(file).with_suffix("").as_posix()
        stems = [path.removesuffix(ending) for ending in ENDINGS if path.endswith(ending)]
        parts = [stem.split("/") for stem in stems]
        ends = ["/".join(of_stem[-count:]) for of_stem in parts for count in range(len(of_stem), 0, -1)]
        name = next((end for end in ends if end in names), None)
        if name is None:
            raise ValueError(f"{file} of the index is no test recording of the sentences: index test recordings only.")
        if name in found:
            raise ValueError(
                f"{found[name]} and {file} of the index are the same recording, {name}: index one of them."
            )
        found[name] = file
    return list(found)


def precision(results: list["np.ndarray"], query_actions: "np.ndarray") -> dict[int, float]:
    """
    The mean precision of queries at each number of results in `RESULTS`.

    Args:
        results: the actions of the results of each query, the best first.
        query_actions: the action of each query.
    """
    import numpy as np

    return {
        count: float(
            np.mean([(of[:count] == action).sum() / count for of, action in zip(results, query_actions, strict=True)])
        )
        for count in RESULTS
    }


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
