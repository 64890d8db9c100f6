"""The page of a model, written from its run's record and from nothing else; evaluation results as the Hub reads them."""

from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path

import yaml
from huggingface_hub import (
    EvalResult,
    EvalResultEntry,
    ModelCard,
    ModelCardData,
    eval_result_entries_to_yaml,
)
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from action_llm import __version__
from action_llm.escaping import markdown, markdown_code
from action_llm.model_files import ModelFileError, read_field, read_json_object
from action_llm_datasets.names import METRICS
from action_llm_recipes.common.records import read_record, required
from action_llm_recipes.common.split_evidence import count_of_test_evaluations, test_evaluations_text
from action_llm_recipes.common.stage_records import stages_behind

TEMPLATE = Path(__file__).with_suffix(".md")
# What torch brings on machines with a GPU, in versions that torch names.
CUDA = ("nvidia-", "cuda-", "triton")

# Line and paper, by the `model_type` of the action model.
LINES = {
    "action_vqvae": ("LLM-AR", "H. Qu, Y. Cai, J. Liu: LLMs are Good Action Recognizers. CVPR 2024."),
    "vst": (
        "LVLM-VAR",
        "J. Peng, Z. Qiu, B. Jin, S. Siripong: Leveraging Vision-Language Large Models for Interpretable Video Action "
        "Recognition with Semantic Tokenization.",
    ),
    "vtem": (
        "VT-LVLM-AR",
        "K. Li, S. He, Z. Xu: VT-LVLM-AR: A Video-Temporal Large Vision-Language Model Adapter for Fine-Grained Action "
        "Recognition in Long-Term Videos.",
    ),
}
PICTURES = {"confusion.png": "Confusion", "calibration.png": "Calibration", "per_class.png": "Accuracy of each class"}
STAGES = {
    "pretrain_backbone": "visual encoder",
    "extract_features": "features",
    "train_tokenizer": "action model",
    "encode_actions": "sentences",
    "encode_windows": "windows",
    "small_lm": "small language model",
    "pretrain_small_lvlm": "small LVLM",
    "sft": "language model",
}

_USE_CLASSIFIER = """```bash
pip install {needs}
```

These ranges were tested. `requirements.txt` in this repository pins the versions that it was pushed with:
`pip install -r requirements.txt`.

```python
from transformers import pipeline

recognise = pipeline("action-recognition", model="{repository}", trust_remote_code=True)
for answer in recognise("{example}", top_k=3{asked}):
    print(f"{{answer['score']:.1%}}  {{answer['label']}}  {{answer.get('reason', '')}}")
```

`candidate_labels=[…]` chooses from any list of names; `batch_size` reads many recordings at a time. The parts alone:

```python
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("{repository}", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("{repository}", trust_remote_code=True)
outputs = model(**processor("{example}"))
print(model.config.id2label[int(outputs.logits.argmax())], float(outputs.probabilities.max()))
```"""
_USE_ACTION_MODEL = """```bash
pip install {needs}
```

These ranges were tested. `requirements.txt` in this repository pins the versions that it was pushed with:
`pip install -r requirements.txt`.

```python
from transformers import AutoFeatureExtractor, AutoModel

action_model = AutoModel.from_pretrained("{repository}", trust_remote_code=True)
feature_extractor = AutoFeatureExtractor.from_pretrained("{repository}", trust_remote_code=True)
sentence = action_model.encode(**feature_extractor("{example}"))
print(sentence.{shown}, sentence.start_times[0].tolist())
```"""


class PageError(ValueError):
    """There is nothing from which a page could be written truly; the message says what is missing."""


def read_run(model: Path) -> dict:
    """The record beside a model.

    Raises:
        PageError: there is none, or it is not of a model that has a page.
        ModelFileError: it lacks what a page says, or holds something else.
    """
    path = model / "record.json"
    if not path.is_file():
        raise PageError(
            f"{model} has no record.json: a page is written from the record of a finished run, and from nothing else."
        )
    record = read_record(path)
    if record.get("stage") not in ("sft", "train_tokenizer"):
        raise PageError(
            f"{path}: stage is {record.get('stage')!r}; a page has a model of the stage sft or train_tokenizer."
        )
    for field, kind in (("method", str), ("examples", int)) if record["stage"] == "sft" else (("recordings", int),):
        required(path, record, field, kind)
    return record


def read_evaluation(folder: Path) -> dict:
    """The record of an evaluation.

    Raises:
        ModelFileError: it lacks what a page says of it, or holds something else.
    """
    path = folder / "record.json"
    record = read_record(path)
    if record.get("stage") == "evaluate_classifier":
        required(path, record, "model", dict)
        for field, kinds in (
            ("dataset", [str]),
            ("split", [str]),
            ("recordings", [int]),
            ("calibration_error", [int, float]),
        ):
            required(path, record, f"metrics.{field}", *kinds)
        for name in METRICS:
            for part in ("estimate", "low", "high"):
                required(path, record, f"metrics.{name}.{part}", int, float)
    return record


def model_page(
    model: Path, repository: str, evaluations: list[dict], pictures: list[str] = (), code_repo: str | None = None
) -> str:
    """The README.md of a repository.

    Args:
        model: folder of the model, with its record.
        repository: its name on the Hub.
        evaluations: records that `evaluate_classifier.py` wrote: the first of this model, the others of other seeds.
        pictures: names of files in the repository's `pictures`.
        code_repo: repository of the code, where that is another.

    Raises:
        PageError: there is no record; an evaluation is of another kind of run; a name that no repository can have.
        ModelFileError: the settings of the feature extractor are damaged, or its two files differ.
    """
    from action_llm.processing_action_llm import load_feature_extractor

    for name in filter(None, (repository, code_repo)):
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise PageError(f"expected the name of a repository on the Hub, found {name!r}: {error}") from error
    record, extractor = read_run(model), load_feature_extractor(model)
    config_path = model / "config.json"
    config = read_json_object(config_path)
    is_classifier = record["stage"] == "sft"
    action = required(config_path, config, "action_config", dict) if is_classifier else config
    action_type = required(config_path, action, "model_type", str)
    if action_type not in LINES:
        raise ModelFileError(config_path, "model_type", repr(action_type), f"one of {', '.join(LINES)}")
    read_field(config_path, config, "id2label", dict)
    read_field(config_path, config, "llm_name_or_path", str)
    line, paper = LINES[action_type]
    stages = known_stages(record)
    sentences = record.get("sentences") or {}
    dataset = sentences.get("dataset") or record["dataset"]
    # Of what it was trained on last; a visual encoder may have seen other recordings before.
    data = next((part["data"] for part in reversed(stages) if part.get("dataset") == dataset and part.get("data")), {})
    others = {part["dataset"]: part["data"] for part in stages if part.get("data") and part["dataset"] != dataset}
    simulated = is_simulated(record)
    # Weights that were learnt from simulated recordings alone are free; others have the terms of what they were learnt from.
    is_free = simulated and all(one.get("simulated") for one in others.values())
    is_free = is_free and (not is_classifier or bool(record.get("llm_training")))
    reads_videos = action["model_type"] != "action_vqvae"
    has_tokens = action.get("quantize", True)
    what = _what(action)
    if is_classifier:
        llm = config.get("llm_name_or_path") or record["llm"]
        what += " A language model reads them and says which action it was, how sure it is, and why."
        what += f" Language model: {markdown(llm)}."
    else:
        what += " A language model reads them; this repository is the first half."
    unit = "windows" if sentences.get("stage") == "encode_windows" else "recordings"
    rows = [_row(one) for one in evaluations]
    tags = ["action-recognition", "video" if reads_videos else "skeleton", line.lower()] + ["simulated"] * simulated
    card = ModelCardData(
        language="en",
        license="apache-2.0" if is_free else "other",
        library_name="transformers",
        pipeline_tag="video-classification" if is_classifier and reads_videos else None,
        tags=tags,
        base_model=config.get("llm_name_or_path"),
        model_name=repository.split("/")[-1],
        eval_results=_model_index(evaluations, dataset, simulated, reads_videos) or None,
    )
    page = ModelCard.from_template(
        card,
        template_path=str(TEMPLATE),
        title=f"{line}{'' if is_classifier else ': action model'} on {markdown(dataset)}" + " (simulated)" * simulated,
        kind=config["model_type"],
        what=what,
        classes=[markdown(name) for name in (config.get("id2label") or {}).values()],
        usage=(_USE_CLASSIFIER if is_classifier else _USE_ACTION_MODEL).format(
            repository=repository,
            example=_example(extractor),
            needs=" ".join(f"'{one}'" for one in requirements()),
            asked=", explain=True, return_tokens=True" if has_tokens else "",
            shown="action_ids[0].tolist()" if has_tokens else "action_embeds[0]",
        ),
        has_tokens=has_tokens,
        code_repo=code_repo,
        reads=_reads(extractor),
        unit=unit,
        data=_escaped(data),
        others={markdown_code(name): _escaped(other) for name, other in others.items()},
        dataset=markdown_code(dataset),
        simulated=simulated,
        splits=_splits(sentences) if is_classifier else {"train": {"recordings": record["recordings"], "skipped": 0}},
        hold_out=record.get("hold_out"),
        metric_name=METRICS[evaluations[0]["metrics"].get("compared_by", "top_1")].capitalize() if evaluations else "",
        evaluations=rows,
        interval=_interval(evaluations[0]["metrics"], unit) if evaluations else "",
        people=_people(evaluations[0]["metrics"], unit) if evaluations else "",
        spread=_spread(evaluations),
        opened=_opened(model, dataset, evaluations),
        versions=evaluations[0]["metrics"].get("encodings", 1) if evaluations else 1,
        pictures={name: PICTURES[name] for name in PICTURES if name in pictures},
        token_metrics=_token_metrics(record),
        made=_made(record, is_classifier),
        stages=[
            {
                "name": STAGES[part["stage"]],
                "hardware": markdown(part.get("hardware", "not recorded")),
                "time": _time(part.get("seconds")),
            }
            for part in stages
        ],
        seed=markdown(record.get("seed")),
        settings=markdown(_listed(record)),
        version=markdown(record.get("version") or "before 0.2.0"),
        libraries=markdown(", ".join(f"{name} {version}" for name, version in record.get("libraries", {}).items())),
        paper=f"{line}: {paper}",
    )
    return page.content.rstrip() + "\n"


def evaluation_yaml(evaluations: list[dict], benchmark: str) -> str:
    """`.eval_results/*.yaml`: what the Hub shows and compares.

    Args:
        evaluations: as in `model_page`.
        benchmark: name of the data set on the Hub.
    """
    metrics = evaluations[0]["metrics"]
    compared_by = metrics.get("compared_by", "top_1")
    notes = f"{METRICS[compared_by]}, {metrics['split']} split, {metrics['recordings']} recordings"
    notes += ", simulated recordings" * is_simulated(evaluations[0]["model"])
    notes += ", classes that were not trained" * bool(metrics.get("unseen")) + _averaged(metrics)
    if len(evaluations) > 1:
        notes += f"; over {len(evaluations)} seeds: {_spread(evaluations)}"
    # What these weights score; what other seeds do is said beside it.
    entry = EvalResultEntry(benchmark, compared_by, round(100 * metrics[compared_by]["estimate"], 2), notes=notes)
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True, width=1000)


def _escaped(data: dict) -> dict:
    """What a record says of a data set, for a page in Markdown."""
    return {name: markdown(value) if isinstance(value, str) else value for name, value in data.items()}


def _example(extractor) -> str:
    """A name of a file as the model reads them."""
    if not hasattr(extractor, "skeleton_layout"):
        return "clip.mp4"
    return "recording.skeleton" if extractor.layout == "kinect25" else "recording.npy"


def _reads(extractor) -> str:
    """What kind of recordings a model reads, in sentences."""
    from action_llm.recording_files import RECORDING_SUFFIXES
    from action_llm.video_files import VIDEO_SUFFIXES

    if not hasattr(extractor, "skeleton_layout"):
        suffixes = ", ".join(f"`{suffix}`" for suffix in VIDEO_SUFFIXES)
        kinds = f"Files ({suffixes}), folders of numbered pictures, or arrays (frames, height, width, 3)"
        seconds = extractor.segment_seconds
        parts = (
            f"a picture is read for every {seconds:g} s" if seconds else f"{extractor.num_segments} segments are read"
        )
        return f"{kinds}; {parts}."
    layout = extractor.skeleton_layout
    joints = f"{layout.num_joints} joints in {layout.dimensions} dimensions ({markdown_code(layout.name)})"
    rate = f", resampled to {extractor.fps:g} frames a second" if extractor.fps else ""
    kinds = ", ".join(f"`{one}`" for one in RECORDING_SUFFIXES)
    return f"Skeletons of {joints}{rate}: {kinds}, or arrays (frames, people, joints, coordinates)."


# What the code of a repository imports, by itself or through transformers.
NEEDED = (
    "accelerate",
    "av",
    "huggingface-hub",
    "numpy",
    "peft",
    "pillow",
    "pyarrow",
    "safetensors",
    "torch",
    "transformers",
)


def requirements() -> list[str]:
    """What a repository's code needs, in the ranges that were tested."""
    found = [requirement for name, requirement in _required_by("action-llm") if name in NEEDED]
    return [one.name + ",".join(sorted(map(str, one.specifier), reverse=True)) for one in found]


def exact_requirements() -> str:
    """The same and what it requires, in the versions that are installed here: a `requirements.txt`."""
    names, pins = list(NEEDED), {}
    while names:
        name = names.pop()
        if name in pins or name.startswith(CUDA):
            continue
        try:
            # Without the label of a build, such as +cpu.
            pins[name] = f"{distribution(name).name}=={version(name).partition('+')[0]}"
        except PackageNotFoundError:  # of another platform, or left out when it was installed
            continue
        names += [name for name, _ in _required_by(name)]
    header = f"# The versions that ActionLLM {__version__} pushed this with, direct and indirect."
    return "\n".join([header, *sorted(pins.values(), key=str.lower)]) + "\n"


def _required_by(name: str) -> list[tuple[str, Requirement]]:
    """Name and requirement of each thing that an installed package requires here, without extras."""
    found = map(Requirement, requires(name) or ())
    return sorted(
        (canonicalize_name(one.name), one) for one in found if one.marker is None or one.marker.evaluate({"extra": ""})
    )


def _what(action: dict) -> str:
    """What an action model does, by its configuration."""
    if action["model_type"] == "action_vqvae":
        if not action.get("quantize", True):
            return "Skeletons become sequences of continuous latents (the encoder of a VQ-VAE that has no codebook)."
        kind = "hyperbolic" if action.get("geometry", "poincare") == "poincare" else "Euclidean"
        several, size = action.get("num_codebooks", 1), action["codebook_size"]
        if several > 1:
            return (
                f"Skeletons become sentences of words of {several} action tokens (a VQ-VAE with {several} {kind} codebooks of "
                f"{size}, each for what those before it left over)."
            )
        return f"Skeletons become sentences of action tokens (a VQ-VAE with a {kind} codebook of {size})."
    quantize = action.get("quantize", True)
    into = f"a codebook of {action['codebook_size']}" if quantize else "no codebook: latents stay continuous"
    if action["model_type"] == "vst":
        seen = "a visual encoder alone" if action.get("direct") else "a visual encoder, attention over time"
        return f"Videos become sentences of semantic action tokens ({seen}, {into})."
    pooling = action.get("pooling", "adaptive")
    return f"Videos become sentences of visual events ({pooling} pooling, features of the vision tower, {into})."


def known_stages(record: dict) -> list[dict]:
    """The records of the stages behind a run that a page names, each once."""
    stages = []
    for _, part in stages_behind(record):
        if part.get("stage") in STAGES and part not in stages:
            stages.append(part)
    return stages


def is_simulated(record: dict) -> bool:
    """Whether the recordings that a run was trained on last were simulated: its protocol says so, or their folder did."""
    sentences = record.get("sentences") or record
    return sentences.get("dataset", "").startswith("simulated") or bool((sentences.get("data") or {}).get("simulated"))


def same_line(one: dict, other: dict) -> bool:
    """Whether two runs are the same but for what chance makes of them."""
    return _without_chance(one) == _without_chance(other)


_CHANCE = {
    "seed",
    "seconds",
    "cost",
    "final_loss",
    "metrics",
    "hardware",
    "libraries",
    "splits",
    "held_out_perplexity",
    "samples",
    "version",
}


def _without_chance(part):
    if isinstance(part, dict):
        return {name: _without_chance(value) for name, value in part.items() if name not in _CHANCE}
    return part


def _row(evaluation: dict) -> dict:
    metrics = evaluation["metrics"]
    return {
        "seed": markdown(evaluation["model"].get("seed", "?")),
        "split": markdown(metrics["split"]) + " (unseen classes)" * bool(metrics.get("unseen")) + _averaged(metrics),
        "recordings": f"{metrics['recordings']:,}",
        **{name: f"{100 * metrics[name]['estimate']:.1f}" for name in METRICS},
        **{
            f"{name}_interval": f"{100 * metrics[name]['low']:.1f}–{100 * metrics[name]['high']:.1f}"
            for name in METRICS
        },
        "calibration": f"{100 * metrics['calibration_error']:.1f}",
    }


def _interval(metrics: dict, unit: str) -> str:
    """Which intervals an evaluation has, in a sentence."""
    if "interval" not in metrics:  # records of before intervals were right for few recordings
        return f"the intervals are 95 % bootstrap intervals over {unit}."
    over = f"the intervals are 95 % Wilson score intervals over {metrics['recordings']:,} {unit}"
    people = metrics["people"]
    if people is None:
        return f"{over}; who was recorded is not known."
    if metrics["interval"] == "people":
        return f"{over}, widened where {len(people)} people, drawn anew with all of their {unit}, vary more."
    known = "one person" if len(people) == 1 else f"{len(people)} people"
    return f"{over} of {known}, too few to say how much other people would differ."


def _people(metrics: dict, unit: str) -> str:
    """The accuracy of each person, in a sentence. Without their names, which may be real ones."""
    people = sorted((metrics.get("people") or {}).values(), key=lambda person: person["top_1"])
    if len(people) < 2:
        return ""
    listed = ", ".join(f"{100 * person['top_1']:.1f} ({person['recordings']:,})" for person in people)
    return f"Top-1 of each person, the lowest first (number of {unit}): {listed}."


def _averaged(metrics: dict) -> str:
    """What is added to a number that is of the mean of several versions of each recording."""
    versions = metrics.get("encodings", 1)  # of records of before there was one
    return f", {versions} versions averaged" if versions > 1 else ""


def _spread(evaluations: list[dict]) -> str:
    if len(evaluations) < 2:
        return ""
    compared_by = evaluations[0]["metrics"].get("compared_by", "top_1")
    values = [100 * one["metrics"][compared_by]["estimate"] for one in evaluations]
    return f"{METRICS[compared_by]} {sum(values) / len(values):.1f} ({min(values):.1f}–{max(values):.1f})"


def _opened(model: Path, dataset: str, evaluations: list[dict]) -> str:
    """How often the test split was evaluated, in a sentence behind others; empty where nothing counted it."""
    counts = [record.get("test_evaluations") or 0 for record in evaluations[:1]]
    count = max([count_of_test_evaluations(model, dataset), *counts])
    return f" {test_evaluations_text(count)}" if count else ""


def _model_index(evaluations: list[dict], dataset: str, simulated: bool, reads_videos: bool) -> list[EvalResult]:
    results = []
    for one in evaluations[:1]:
        for name, label in METRICS.items():
            results.append(
                EvalResult(
                    task_type="video-classification" if reads_videos else "other",
                    task_name="Action recognition",
                    dataset_type=dataset,
                    dataset_name=dataset + " (simulated)" * simulated,
                    dataset_split=one["metrics"]["split"],
                    metric_type="accuracy" if name == "top_1" else "balanced_accuracy",
                    metric_name=label + " (%)" + _averaged(one["metrics"]),
                    metric_value=round(100 * one["metrics"][name]["estimate"], 2),
                )
            )
    return results


def _splits(sentences: dict) -> dict:
    return {
        split: {"recordings": one["recordings"], "skipped": one.get("skipped", 0)}
        for split, one in (sentences.get("splits") or {}).items()
    }


def _token_metrics(record: dict) -> str:
    metrics = record.get("metrics") or {}
    if not metrics:
        return "Not measured."
    rows = [
        f"| {markdown(name)} | {'not measured' if value is None else f'{value:.4g}'} |"
        for name, value in (
            (name.removeprefix("codebook/").replace("_", " "), value) for name, value in metrics.items()
        )
    ]
    return "\n".join(
        [f"On {markdown(record.get('evaluated_on', 'training recordings'))}:", "", "| | |", "|---|---:|", *rows]
    )


def _made(record: dict, is_classifier: bool) -> str:
    if not is_classifier:
        return f"Trained on {record['recordings']:,} recordings, seed {markdown(record.get('seed'))}."
    method = {
        "lora": "LoRA on the frozen language model",
        "qlora": "LoRA on the frozen language model in 4 bit",
        "full": "all weights of the language model",
        "prefix": "P-Tuning v2: prompts in layers of the frozen language model",
        "prompt": "soft prompts at the input of the frozen language model",
        "none": "nothing: the language model reads tokens that it has never seen",
    }[record["method"]]
    cost = record.get("cost") or {}
    said = (
        f"What was trained in stage 2: {method}; {record['examples']:,} sentences, seed {markdown(record.get('seed'))}"
    )
    if cost:
        said += f"; {cost['trainable_parameters']:,} of {cost['parameters']:,} parameters of the action model, the language "
        said += "model and what was added to it"
        said += f", {cost['peak_memory_gb']:.2f} GB at the peak"
    return said + "."


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "not recorded"
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _listed(record: dict) -> str:
    """Settings, without those of methods that were not used."""
    unused = {"lora": ("prefix_",), "qlora": ("prefix_",), "prefix": ("lora_",), "prompt": ("lora_",)}
    unused = unused.get(record.get("method"), () if record["stage"] != "sft" else ("lora_", "prefix_"))
    shown = {
        name: value
        for name, value in record.get("settings", {}).items()
        if value is not None and value != [] and not name.startswith(tuple(unused))
    }
    return ", ".join(f"{name} {value}" for name, value in shown.items()) or "defaults"
