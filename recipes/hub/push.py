"""
Push a finished run to the Hub, in one commit.

```bash
python recipes/hub/push.py runs/ntu60 me/llm-ar-ntu60-xsub --dry_run
python recipes/hub/push.py runs/ntu60 me/llm-ar-ntu60-xsub
```

RUN is the folder of an sft run, of a whole pipeline (its recogniser is pushed), or of a train_tokenizer run. The model, its
processor, code and adapter, the lexicon of its tokens (`RUN/lexicon`, if there is one), plots, and a model card written from
the run's record are uploaded, with a recogniser also `handler.py` for Inference Endpoints; the Hub reads the evaluation
results from `.eval_results`, for the benchmark that `splits.py` writes. Evaluations are found beside the run, or named with
`--evaluations`, one for each seed. Any other file stops the push, so recordings are never uploaded.

The repository is private unless you pass `--public`. `--code_repo` puts the code into a repository of its own, which many
models can share. A language model that is referenced by name is not copied, unless you pass `--with_llm`.
"""

import argparse
import json
import os
import re
import tempfile
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub.utils import validate_repo_id

from action_llm.calibration import CALIBRATION
from action_llm.model_files import read_json_object
from action_llm.token_lexicon import read_lexicon
from action_llm_recipes.common.joined_data_sets import titles_in
from action_llm_recipes.common.launching import CommandParser, launch_command
from action_llm_recipes.common.split_evidence import LOCAL_FILES
from action_llm_recipes.common.stage_records import differ_by_seed_alone
from action_llm_recipes.hub.model_page import (
    PICTURES,
    benchmark_of,
    evaluation_yaml,
    exact_requirements,
    model_page,
    read_evaluation,
    read_run,
)

# Files of a model, beside its code. All others stay on this machine.
MODEL_FILES = (
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "*config.json",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    CALIBRATION,
    "record.json",
)
# Files that every push writes anew.
WRITTEN = (
    "README.md",
    "handler.py",
    "requirements.txt",
    "lexicon.json",
    *(f"pictures/{name}" for name in PICTURES),
    ".eval_results/*",
)
# Answers requests on Inference Endpoints, which look for it beside the model: it does not move with `--code_repo`.
HANDLER = Path(__file__).with_name("handler.py")
# Files whose words may look like paths.
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")
ACCESS_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}")
LOCAL_PATH = re.compile(r"(?:/[\w.-]+/|~/|[A-Za-z]:[\\/])")


class PushError(ValueError):
    """The run cannot be pushed as it is; the message says why."""


def find_model(run: Path) -> Path:
    """The folder of a model: that of a run, that of a pipeline's recogniser, or the given folder itself.

    Raises:
        PushError: if there is no model.
    """
    if not run.is_dir():
        raise PushError(f"there is no folder {run}.")
    for folder in (run / "model", run / "sft" / "model", run):
        if (folder / "config.json").is_file():
            return folder
    raise PushError(
        f"{run} contains no model: expected a config.json in {run / 'model'}, {run / 'sft' / 'model'} or the folder itself."
    )


def find_evaluations(run: Path, record: dict, named: list[str] | None) -> list[Path]:
    """Folders of evaluations, that of this model first.

    Args:
        run: folder of the run.
        record: record of its model.
        named: folders of evaluations, one for each seed; None for the evaluation beside the run.

    Raises:
        PushError: if a named folder has no evaluation, or one of a model with other settings or data; if none is of this model;
            if they are not of the same recordings; or if two have the same seed.
    """
    if named is None:
        beside = [folder / "evaluation" for folder in (run, *list(run.resolve().parents)[:2])]
        candidates = [*beside, *sorted(run.glob("*/evaluation"))]
        folders = {path.resolve(): path for path in candidates if (path / "record.json").is_file()}
        return [path for path in folders.values() if _evaluated_model(path) == record][:1]
    folders = list(map(Path, named))
    for folder in folders:
        if not (folder / "record.json").is_file():
            raise PushError(
                f"{folder} contains no evaluation: expected a record.json that evaluate_classifier.py wrote."
            )
        if not differ_by_seed_alone(_evaluated_model(folder), record):
            raise PushError(
                f"{folder} evaluates a model of other data or settings than {run}: only the seed may differ."
            )
    own = [folder for folder in folders if _evaluated_model(folder) == record]
    if folders and not own:
        raise PushError(f"none of the evaluations is of the model in {run}: {', '.join(map(str, folders))}.")
    protocols = {json.dumps(_evaluation_protocol(folder)) for folder in folders}
    if len(protocols) > 1:
        raise PushError(
            "the evaluations are not of the same recordings, or average different numbers of versions: "
            f"{' and '.join(sorted(protocols))}."
        )
    seeds = [_evaluated_model(folder).get("seed") for folder in folders]
    if len(set(seeds)) < len(seeds):
        raise PushError(f"expected evaluations of different seeds, found the seeds {', '.join(map(str, seeds))}.")
    return own + [folder for folder in folders if folder not in own]


def _evaluation_protocol(folder: Path) -> dict:
    """The recordings of an evaluation, its classes, and the number of versions that it averages."""
    metrics = read_evaluation(folder)["metrics"]
    protocol = {name: metrics.get(name) for name in ("dataset", "split", "unseen", "recordings", "classes")}
    return protocol | {"encodings": metrics.get("encodings", 1)}  # evaluations of older versions lack it


def _evaluated_model(folder: Path) -> dict:
    """The record of the model that was evaluated, empty for other records."""
    record = read_evaluation(folder)
    return record.get("model") or {} if record.get("stage") == "evaluate_classifier" else {}


def repository_files(
    run: str | os.PathLike,
    repository: str,
    *,
    evaluations: list[str] | None = None,
    benchmark: str | None = None,
    code_repo: str | None = None,
    with_llm: bool = False,
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """
    The files of a repository, path → content, and those of the repository of the code, which is empty without `code_repo`.

    Args:
        run: folder of a run, a pipeline or a model.
        repository: name of the repository on the Hub.
        evaluations: folders that `evaluate_classifier.py` wrote; None for the evaluation beside the run.
        benchmark: name of the data set on the Hub with the splits and the leaderboard; None for `benchmark_of`.
        code_repo: name of the repository of the code; None to upload the code with the model.
        with_llm: whether the weights of a language model that is referenced by name are uploaded too.

    Raises:
        PushError: if there is no model, a file is not part of one, or a file contains an access token or a local path.
        PageError: if there is no record to write a model card from.
    """
    if code_repo == repository:
        raise PushError(
            f"--code_repo {code_repo} is the repository of the model, which contains the code by default: give it another name."
        )
    run = Path(run)
    model = find_model(run)
    record = read_run(model)
    config = read_json_object(model / "config.json")
    if record["stage"] == "sft" and not config.get("custom_pipelines"):
        raise PushError(
            f"{model} was saved by an older version, without the pipeline. Save model and processor again: "
            "ActionLLMForClassification.from_pretrained(FOLDER).save_pretrained(FOLDER), and the same with ActionLLMProcessor."
        )
    evaluated = find_evaluations(run, record, evaluations)
    records = [read_evaluation(folder) for folder in evaluated]
    with tempfile.TemporaryDirectory() as folder:
        files = _model_files(_with_llm(model, Path(folder)) if with_llm else model)
    code = {}
    if code_repo is not None:
        # All of the code, since models that are pushed later share it.
        code = _code()
        files = {path: _with_code_of(code_repo, path, content) for path, content in files.items() if path not in code}
    pictures = {name: evaluated[0] / name for name in PICTURES if evaluated and (evaluated[0] / name).is_file()}
    files |= {f"pictures/{name}": path.read_bytes() for name, path in pictures.items()}
    # The lexicon that token_lexicon.py wrote also describes each token; the model's own has classes alone.
    for folder in (run / "lexicon", run.parent / "lexicon", model):
        if (folder / "lexicon.json").is_file():
            files["lexicon.json"] = _without_names(folder / "lexicon.json")
            break
    files["requirements.txt"] = exact_requirements().encode()
    if record["stage"] == "sft":
        files["handler.py"] = HANDLER.read_bytes()
    benchmark = benchmark or benchmark_of(model, repository)
    files["README.md"] = model_page(model, repository, records, list(pictures), code_repo, benchmark).encode()
    metrics = records[0]["metrics"] if records else {}
    # Several data sets in one run are no task of a benchmark: its tasks are protocols.
    if benchmark and metrics.get("split") == "test" and len(titles_in(metrics["dataset"])) == 1:
        dataset = metrics["dataset"]
        files[f".eval_results/{dataset}.yaml"] = evaluation_yaml(records, benchmark).encode()
    for path, content in files.items():
        _check_private(path, content)
    return dict(sorted(files.items())), code


def _is(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path in a repository matches a pattern; `*` does not match a `/`."""
    return any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)


def _code() -> dict[str, bytes]:
    """The files of the code that models are loaded with."""
    import action_llm

    folder = Path(action_llm.__file__).parent
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"}


def _model_files(model: Path) -> dict[str, bytes]:
    """The contents of a model's files, by their paths.

    Raises:
        PushError: if there is a file that is not part of a model.
    """
    files, code = {}, _code()
    for path in sorted(model.rglob("*")):
        name = path.relative_to(model).as_posix()
        if not path.is_file() or "__pycache__" in name or _is(name, WRITTEN) or name in LOCAL_FILES:
            continue
        if not (_is(name, MODEL_FILES) or name in code):
            raise PushError(f"{path} is not part of a model, and only models are pushed: move it out of {model}.")
        files[name] = path.read_bytes()
    return files


def _with_llm(model: Path, folder: Path) -> Path:
    """Saves a copy of a model in `folder`, with the weights of its language model; returns `folder`."""
    from action_llm import ActionLLMForClassification, ActionLLMProcessor

    loaded = ActionLLMForClassification.from_pretrained(model)
    loaded.config.llm_name_or_path = loaded.config.llm_revision = loaded.config.llm_sha256 = None
    loaded.save_pretrained(folder)
    ActionLLMProcessor.from_pretrained(model).save_pretrained(folder)
    (folder / "record.json").write_bytes((model / "record.json").read_bytes())
    return folder


def _with_code_of(code_repo: str, path: str, content: bytes) -> bytes:
    """The content of a file, in which a configuration names the classes of another repository."""
    if not path.endswith("config.json"):
        return content
    config = json.loads(content)

    def in_code_repo(reference):
        if isinstance(reference, str):
            return f"{code_repo}--{reference.rpartition('--')[2]}"
        return [in_code_repo(part) for part in reference] if isinstance(reference, list) else reference

    def redirect(part):
        if isinstance(part, list):
            return [redirect(item) for item in part]
        if not isinstance(part, dict):
            return part
        redirected = {name: redirect(value) for name, value in part.items()}
        if isinstance(part.get("auto_map"), dict):
            redirected["auto_map"] = {name: in_code_repo(value) for name, value in part["auto_map"].items()}
        for task, pipeline in (redirected.get("custom_pipelines") or {}).items():
            redirected["custom_pipelines"][task] = pipeline | {"impl": in_code_repo(pipeline["impl"])}
        return redirected

    return (json.dumps(redirect(config), indent=2, ensure_ascii=False) + "\n").encode()


def _without_names(path: Path) -> bytes:
    """The content of a lexicon without the names of recordings."""
    entries = [entry.to_dict() | {"examples": []} for entry in read_lexicon(path)]
    return (json.dumps(entries, ensure_ascii=False) + "\n").encode()


def _check_private(path: str, content: bytes):
    """Raises `PushError` if a file contains an access token or a path on this machine."""
    if path.endswith((".safetensors", ".png", ".model")):
        return
    from huggingface_hub import get_token

    text = content.decode("utf-8")
    if ACCESS_TOKEN.search(text) or (get_token() or "\0") in text:
        raise PushError(f"{path} contains an access token: remove it from the file, and revoke it.")
    if path.endswith((*VOCABULARIES, ".py")):
        return
    for folder in (os.path.expanduser("~"), os.getcwd()):
        if len(folder) > 1 and folder + "/" in text:
            raise PushError(
                f"{path} contains the path of a folder on this machine ({folder}): remove it from the file."
            )
    for value in _texts(json.loads(text)) if path.endswith(".json") else ():
        if LOCAL_PATH.match(value):
            raise PushError(f"{path} contains a path on the machine that wrote it ({value}): remove it from the file.")


def _texts(part):
    """Every string in the value of a JSON file, names of fields excepted."""
    if isinstance(part, str):
        yield part
    for item in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _texts(item)


def push(
    files: dict[str, bytes],
    repository: str,
    *,
    public: bool,
    title: str,
    repo_type: str = "model",
    replace: bool = True,
) -> str:
    """Uploads files to a repository in one commit; returns the URL of the commit.

    Args:
        files: path in the repository → content.
        repository: name of the repository, which is created if it does not exist.
        public: whether the repository is public.
        title: title of the commit.
        repo_type: `model` or `space`.
        replace: whether to delete files of an earlier push that are not among `files`. Other files are never deleted.

    Raises:
        PushError: if the repository exists and is not as `public` says, or nobody is logged in.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(
            repository,
            repo_type=repo_type,
            private=not public,
            exist_ok=True,
            space_sdk="gradio" if repo_type == "space" else None,
        )
    except HfHubHTTPError as error:
        if error.response.status_code != 401:
            raise
        raise PushError(f"{repository} cannot be created: log in with `hf auth login`, or set HF_TOKEN.") from error
    if public == api.repo_info(repository, repo_type=repo_type).private:
        visibility, option = ("private", "without --public") if public else ("public", "with --public")
        raise PushError(
            f"{repository} is {visibility}: change that on the Hub, choose another name, or push {option}."
        )
    existing = api.list_repo_files(repository, repo_type=repo_type) if replace else []
    pushed = (*MODEL_FILES, *WRITTEN, *_code())
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    operations += [CommitOperationDelete(name) for name in existing if name not in files and _is(name, pushed)]
    return str(api.create_commit(repository, operations, repo_type=repo_type, commit_message=title).commit_url)


def listing(files: dict[str, bytes], repository: str) -> str:
    """A list of the files with their sizes in bytes."""
    lines = [f"{len(content):>12,}  {path}" for path, content in files.items()]
    total = sum(map(len, files.values()))
    return "\n".join([f"{repository}:", *lines, f"{total:>12,}  bytes in {len(files)} files"])


def main(arguments: list[str] | None = None) -> None:
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of an sft or train_tokenizer run, or of a pipeline")
    parser.add_argument("repository", help="name of the repository on the Hub, such as me/model")
    parser.add_argument("--dry_run", action="store_true", help="list the files with their sizes, and push nothing")
    parser.add_argument("--public", action="store_true", help="make the repository public")
    parser.add_argument(
        "--evaluations", nargs="+", help="folders that evaluate_classifier.py wrote, one for each seed"
    )
    parser.add_argument(
        "--benchmark",
        help="data set on the Hub with the splits, which shows the results (splits.py writes it); by default "
        "OWNER/skeleton-action-recognition, and none for recognisers of videos",
    )
    parser.add_argument("--code_repo", help="repository to put the code into, in place of the model's")
    parser.add_argument("--with_llm", action="store_true", help="push the weights of the language model too")
    given = parser.parse_args(arguments)
    try:
        for name in filter(None, (given.repository, given.code_repo, given.benchmark)):
            if name.count("/") != 1:
                raise PushError(f"expected a repository as OWNER/NAME, found {name!r}.")
            validate_repo_id(name)
        files, code = repository_files(
            given.run,
            given.repository,
            evaluations=given.evaluations,
            benchmark=given.benchmark,
            code_repo=given.code_repo,
            with_llm=given.with_llm,
        )
        print(listing(files, given.repository))
        if code:
            print(listing(code, given.code_repo))
        if given.dry_run:
            print("nothing was pushed (--dry_run)")
            return
        if code:
            print(push(code, given.code_repo, public=given.public, title="Code of ActionLLM", replace=False))
        print(push(files, given.repository, public=given.public, title="Model, page and results"))
    except (ValueError, OSError) as error:
        parser.error(str(error))


def cli():
    """The command `action-llm-push`."""
    launch_command(main)


if __name__ == "__main__":
    cli()
