"""
Precision of a search: the share of the first 1, 5 and 10 results that show the action.

```bash
action-llm-search index UTD-MHAD/Skeleton/*_s[2468]_*.mat --model runs/utd_mhad/sft/model \\
    --output runs/utd_mhad/index.safetensors
python recipes/evaluate_search.py --index runs/utd_mhad/index.safetensors --sentences runs/utd_mhad/sentences \\
    --output_dir runs/utd_mhad/search
```

The index has whole test recordings, and the sentences, of `encode_actions.py --latents true`, have their classes. A file of the
index is the recording whose name its own begins with. There is a query for each class, its name, and one for each recording, as
an example, which is not a result of its own query. Nearest neighbours by Euclidean distance of latents, resampled to one number
of words, stand beside the search; a class is then the mean of its training recordings. The results are in `metrics.json`.
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
# Latents are compared word by word, after resampling to this number of words.
WORDS = 16


@dataclass
class SearchEvaluationArguments:
    """What is searched, and what the recordings show."""

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
    names = [recording_of(index.files[recording], tested) for recording in index.recording]
    actions = np.array([labels["test", name] for name in names])
    vectors = np.stack([latents["test", name] for name in names])
    trained = [
        [key for key, of_key in labels.items() if key[0] == "train" and of_key == label]
        for label in range(len(class_names))
    ]
    centres = np.stack([np.mean([latents[key] for key in keys], axis=0) for keys in trained])

    def no_language_model(text: str) -> "np.ndarray":
        raise AssertionError(f"{text!r} is a class")

    precisions = {}
    for kind in ("class", "example"):
        queries = range(len(class_names) if kind == "class" else len(names))
        wanted = np.array([query if kind == "class" else actions[query] for query in queries])
        found = {"search": [], "nearest latents": []}
        for query in queries:
            if kind == "class":
                parts = read_text(class_names[query], class_names, no_language_model)
            else:
                parts = [Part(names[query], index.roots[query].astype(np.float64) ** 2, "example")]
            hits = [hit.windows[0] for hit in find(index, parts, max(RESULTS) + 1)]
            distances = np.linalg.norm(vectors - (centres if kind == "class" else vectors)[query], axis=1)
            nearest = np.argsort(distances, kind="stable").tolist()
            for method, results in (("search", hits), ("nearest latents", nearest)):
                others = [window for window in results if kind == "class" or window != query]
                found[method].append(actions[others[: max(RESULTS)]])
        precisions[kind] = {
            "queries": len(wanted),
            "precision": {method: precision(results, wanted) for method, results in found.items()},
        }
    metrics = {"recordings": len(names), "classes": len(class_names), **precisions}
    folder = Path(arguments.output_dir)
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    for kind in ("class", "example"):
        for method, values in metrics[kind]["precision"].items():
            shares = ", ".join(f"{100 * value:.1f} % at {count}" for count, value in values.items())
            logger.info("by %s, %s: %s", kind, method, shares)
    return metrics


def recording_of(file: str, names: set[str]) -> str:
    """
    The recording that a file holds: the longest name that the file name begins with, up to a character that goes on.

    Raises:
        ValueError: if there is none.
    """
    stem = Path(file).stem
    matches = [name for name in names if stem.startswith(name) and not stem[len(name) : len(name) + 1].isalnum()]
    if not matches:
        raise ValueError(f"{file} of the index is no test recording of the sentences: index test recordings only.")
    return max(matches, key=len)


def precision(found: list["np.ndarray"], wanted: "np.ndarray") -> dict[int, float]:
    """
    The mean precision of queries, for each number of results in `RESULTS`.

    Args:
        found: the actions of the results of each query, the best first.
        wanted: the action of each query.
    """
    import numpy as np

    return {
        count: float(
            np.mean([(results[:count] == action).mean() for results, action in zip(found, wanted, strict=True)])
        )
        for count in RESULTS
    }


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
