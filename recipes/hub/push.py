"""
A finished run → a repository on the Hub, in one commit.

```bash
python recipes/hub/push.py runs/ntu60 me/llm-ar-ntu60-xsub --dry_run
python recipes/hub/push.py runs/ntu60 me/llm-ar-ntu60-xsub
```

RUN is the folder of a run: of sft (or of a whole line, of which the language model is meant), or of train_tokenizer. What
goes up is the model with its processor and code, the adapter, the lexicon of its tokens where there is one (`RUN/lexicon`),
plots, and a page that is written from the run's record; evaluation results are read by the Hub from `.eval_results`.
Evaluations are found beside the run, or named (`--evaluations`, one for each seed). Nothing else goes up: a file that is none
of these stops the push, so no recordings do.

The repository is private unless `--public`. `--code_repo` keeps the code in a repository of its own, for many models. A
referenced language model stays where it is, unless `--with_llm`.
"""

import argparse
import json
import os
import re
import tempfile
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub.utils import validate_repo_id

from action_llm.model_files import read_json_object
from action_llm.token_lexicon import read_lexicon
from action_llm_recipes.common.launching import CommandParser
from action_llm_recipes.common.split_evidence import LOCAL_FILES
from action_llm_recipes.hub.model_page import (
    PICTURES,
    evaluation_yaml,
    exact_requirements,
    model_page,
    read_evaluation,
    read_run,
    same_line,
)

# What a model is made of, beside its code. Everything else stays here.
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
    "record.json",
)
# What is written anew for every push.
WRITTEN = (
    "README.md",
    "requirements.txt",
    "lexicon.json",
    *(f"pictures/{name}" for name in PICTURES),
    ".eval_results/*",
)
# Words of a tokenizer may look like paths.
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")
TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}")
PLACE = re.compile(r"(?:/[\w.-]+/|~/|[A-Za-z]:[\\/])")


class PushError(ValueError):
    """The run cannot go to the Hub as it is; the message says why."""


def find_model(run: Path) -> Path:
    """The folder of the model of a run, of a line, or that is given itself.

    Raises:
        PushError: there is none.
    """
    if not run.is_dir():
        raise PushError(f"there is no folder {run}.")
    for folder in (run / "model", run / "sft" / "model", run):
        if (folder / "config.json").is_file():
            return folder
    raise PushError(f"{run} holds no model: neither {run / 'model'} nor {run / 'sft' / 'model'} has a config.json.")


def find_evaluations(run: Path, record: dict, named: list[str] | None) -> list[Path]:
    """Folders of evaluations, that of this model first.

    Raises:
        PushError: one that is named is none, or of another line; or none is of this model.
    """
    if named is None:
        beside = [folder / "evaluation" for folder in (run, *list(run.resolve().parents)[:2])]
        around = [*beside, *sorted(run.glob("*/evaluation"))]
        found = {path.resolve(): path for path in around if (path / "record.json").is_file()}
        return [path for path in found.values() if _evaluated(path) == record][:1]
    folders = list(map(Path, named))
    for folder in folders:
        if not (folder / "record.json").is_file():
            raise PushError(f"{folder} is no evaluation: it has no record.json of evaluate_classifier.py.")
        if not same_line(_evaluated(folder), record):
            raise PushError(f"{folder} evaluates a model of another line, or with other settings, than {run}.")
    own = [folder for folder in folders if _evaluated(folder) == record]
    if folders and not own:
        raise PushError(f"none of the evaluations is of the model in {run}: {', '.join(map(str, folders))}.")
    kinds = {json.dumps(_asked(folder)) for folder in folders}
    if len(kinds) > 1:
        raise PushError(
            f"the evaluations are not of the same recordings, or of other versions of them: {' and '.join(sorted(kinds))}."
        )
    seeds = [_evaluated(folder).get("seed") for folder in folders]
    if len(set(seeds)) < len(seeds):
        raise PushError(
            f"the evaluations are not each of another seed, but of the seeds {', '.join(map(str, seeds))}."
        )
    return own + [folder for folder in folders if folder not in own]


def _asked(folder: Path) -> dict:
    """What an evaluation was of."""
    metrics = read_evaluation(folder)["metrics"]
    asked = {name: metrics.get(name) for name in ("dataset", "split", "unseen", "recordings", "classes")}
    return asked | {"encodings": metrics.get("encodings", 1)}  # records of before say nothing of it


def _evaluated(folder: Path) -> dict:
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
    What a repository holds: path in it → content; and what goes to the repository of the code.

    Args:
        run: as on the command line.
        repository: name on the Hub.
        evaluations: folders of `evaluate_classifier.py`; None: that beside the run.
        benchmark: name of the data set on the Hub; None: the protocol, under the same owner.
        code_repo: repository of the code.
        with_llm: whether the weights of a referenced language model go along.

    Raises:
        PushError: a file is no part of a model, or says where it was made; or there is no model.
        PageError: there is no record to write a page from.
    """
    if code_repo == repository:
        raise PushError(
            f"--code_repo {code_repo}: the code already goes with the model; a repository of its own has another name."
        )
    run = Path(run)
    model = find_model(run)
    record = read_run(model)
    config = read_json_object(model / "config.json")
    if record["stage"] == "sft" and not config.get("custom_pipelines"):
        raise PushError(
            f"{model} was saved by an older version, without the pipeline. Save it again: ActionLLMForClassification."
            "from_pretrained(FOLDER).save_pretrained(FOLDER), and its processor alike."
        )
    found = find_evaluations(run, record, evaluations)
    records = [read_evaluation(folder) for folder in found]
    with tempfile.TemporaryDirectory() as whole:
        files = _model_files(_with_llm(model, Path(whole)) if with_llm else model)
    code = {}
    if code_repo is not None:
        # All of it, for whatever model is pushed next.
        code = _code()
        files = {path: _with_code_of(code_repo, path, content) for path, content in files.items() if path not in code}
    pictures = {name: found[0] / name for name in PICTURES if found and (found[0] / name).is_file()}
    files |= {f"pictures/{name}": path.read_bytes() for name, path in pictures.items()}
    # The model's own names classes; the one that token_lexicon.py wrote also says what a token looks like.
    for folder in (run / "lexicon", run.parent / "lexicon", model):
        if (folder / "lexicon.json").is_file():
            files["lexicon.json"] = _without_names(folder / "lexicon.json")
            break
    files["requirements.txt"] = exact_requirements().encode()
    files["README.md"] = model_page(model, repository, records, list(pictures), code_repo).encode()
    if records and records[0]["metrics"]["split"] == "test":
        dataset = records[0]["metrics"]["dataset"]
        name = benchmark or f"{repository.partition('/')[0]}/{dataset}"
        files[f".eval_results/{dataset}.yaml"] = evaluation_yaml(records, name).encode()
    for path, content in files.items():
        _check_says_nothing(path, content)
    return dict(sorted(files.items())), code


def _is(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path in a repository is one of these; `*` stays within a folder."""
    return any(fnmatch(name, one) and name.count("/") == one.count("/") for one in patterns)


def _code() -> dict[str, bytes]:
    """The code that models are loaded with, as it is now."""
    import action_llm

    folder = Path(action_llm.__file__).parent
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"}


def _model_files(model: Path) -> dict[str, bytes]:
    """The files of a model, read.

    Raises:
        PushError: one of them is none of a model's.
    """
    files, code = {}, _code()
    for path in sorted(model.rglob("*")):
        name = path.relative_to(model).as_posix()
        if not path.is_file() or "__pycache__" in name or _is(name, WRITTEN) or name in LOCAL_FILES:
            continue
        if not (_is(name, MODEL_FILES) or name in code):
            raise PushError(f"{path} is no part of a model: nothing else goes to the Hub. Take it out of {model}.")
        files[name] = path.read_bytes()
    return files


def _with_llm(model: Path, folder: Path) -> Path:
    """A copy of a model with the weights of its language model."""
    from action_llm import ActionLLMForClassification, ActionLLMProcessor

    loaded = ActionLLMForClassification.from_pretrained(model)
    loaded.config.llm_name_or_path = loaded.config.llm_revision = None
    loaded.save_pretrained(folder)
    ActionLLMProcessor.from_pretrained(model).save_pretrained(folder)
    (folder / "record.json").write_bytes((model / "record.json").read_bytes())
    return folder


def _with_code_of(code_repo: str, path: str, content: bytes) -> bytes:
    """A configuration whose classes are those of another repository."""
    if not path.endswith("config.json"):
        return content
    config = json.loads(content)

    def pointed(value):
        if isinstance(value, str):
            return f"{code_repo}--{value.rpartition('--')[2]}"
        return [pointed(one) for one in value] if isinstance(value, list) else value

    def walk(part):
        if isinstance(part, list):
            return [walk(one) for one in part]
        if not isinstance(part, dict):
            return part
        made = {name: walk(value) for name, value in part.items()}
        if isinstance(part.get("auto_map"), dict):
            made["auto_map"] = {name: pointed(value) for name, value in part["auto_map"].items()}
        for task, one in (made.get("custom_pipelines") or {}).items():
            made["custom_pipelines"][task] = one | {"impl": pointed(one["impl"])}
        return made

    return (json.dumps(walk(config), indent=2, ensure_ascii=False) + "\n").encode()


def _without_names(path: Path) -> bytes:
    """A lexicon without the names of recordings."""
    entries = [entry.to_dict() | {"examples": []} for entry in read_lexicon(path)]
    return (json.dumps(entries, ensure_ascii=False) + "\n").encode()


def _check_says_nothing(path: str, content: bytes):
    """Raises `PushError` for what would tell about the machine, or let somebody in."""
    if path.endswith((".safetensors", ".png", ".model")):
        return
    from huggingface_hub import get_token

    text = content.decode("utf-8")
    if TOKEN.search(text) or (get_token() or "\0") in text:
        raise PushError(f"{path} holds an access token: take it out, and revoke it.")
    if path.endswith((*VOCABULARIES, ".py")):
        return
    for folder in (os.path.expanduser("~"), os.getcwd()):
        if len(folder) > 1 and folder + "/" in text:
            raise PushError(f"{path} names a folder of this machine ({folder}): it was made with a path in it.")
    for value in _texts(json.loads(text)) if path.endswith(".json") else ():
        if PLACE.match(value):
            raise PushError(f"{path} names a place on the machine that made it ({value}).")


def _texts(part):
    """Every text in what a JSON file holds."""
    if isinstance(part, str):
        yield part
    for one in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _texts(one)


def push(
    files: dict[str, bytes], repository: str, *, public: bool, title: str, kind: str = "model", replace: bool = True
) -> str:
    """Makes a repository hold these files, in one commit; returns the commit's address.

    Args:
        files: path in the repository → content.
        repository: its name; it is made where there is none.
        public: whether it is to be public.
        title: of the commit.
        kind: `model` or `space`.
        replace: whether what an earlier push left there, and this one has not, goes. What is not of such a push stays.

    Raises:
        PushError: the repository is public and `public` was not said, or it is private and it was; or nobody is logged in.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(
            repository,
            repo_type=kind,
            private=not public,
            exist_ok=True,
            space_sdk="gradio" if kind == "space" else None,
        )
    except HfHubHTTPError as error:
        if error.response.status_code != 401:
            raise
        raise PushError(f"{repository} cannot be made: log in with `hf auth login`, or set HF_TOKEN.") from error
    if public == api.repo_info(repository, repo_type=kind).private:
        is_now, said = ("private", "without --public") if public else ("public", "with --public")
        raise PushError(f"{repository} is {is_now}: change that on the Hub, name another, or push {said}.")
    ours, there = (
        (*MODEL_FILES, *WRITTEN, *_code()),
        api.list_repo_files(repository, repo_type=kind) if replace else [],
    )
    gone = [name for name in there if name not in files and _is(name, ours)]
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    operations += [CommitOperationDelete(name) for name in gone]
    return str(api.create_commit(repository, operations, repo_type=kind, commit_message=title).commit_url)


def listing(files: dict[str, bytes], repository: str) -> str:
    """The files with their sizes."""
    lines = [f"{len(content):>12,}  {path}" for path, content in files.items()]
    total = sum(map(len, files.values()))
    return "\n".join([f"{repository}:", *lines, f"{total:>12,}  bytes in {len(files)} files"])


def main(arguments: list[str] | None = None) -> None:
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a run of sft or train_tokenizer, or of a line")
    parser.add_argument("repository", help="name on the Hub, as me/model")
    parser.add_argument("--dry_run", action="store_true", help="list the files with their sizes, and push nothing")
    parser.add_argument("--public", action="store_true", help="a public repository")
    parser.add_argument("--evaluations", nargs="+", help="folders of evaluate_classifier.py, one for each seed")
    parser.add_argument(
        "--benchmark", help="the data set on the Hub that results are shown with; default: OWNER/PROTOCOL"
    )
    parser.add_argument("--code_repo", help="repository that the code goes to, in place of each model's")
    parser.add_argument("--with_llm", action="store_true", help="the weights of the language model as well")
    given = parser.parse_args(arguments)
    try:
        for name in filter(None, (given.repository, given.code_repo, given.benchmark)):
            if name.count("/") != 1:
                raise PushError(f"expected OWNER/NAME, found {name!r}.")
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


if __name__ == "__main__":
    main()
