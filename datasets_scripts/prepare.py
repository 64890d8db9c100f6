"""Converts the raw files of a data set into Parquet with a report and a data set card, on disk or on the Hub.

    python -m action_llm_datasets.prepare ntu60-xsub --source nturgb+d_skeletons --output ntu60-xsub
    python -m action_llm_datasets.prepare ntu60 --protocol xview --source nturgb+d_skeletons --push_to_hub me/ntu60-xview

Rows hold everything that was recorded. With `--set clean=true` they hold people instead of tracked bodies (`Cleaning`). The
report shows in both cases what cleaning does to which recordings.

`load_dataset("ntu60-xsub")` reads the result without this package, also in streaming mode. A run that was killed resumes with
the missing shards, and `action-llm-cluster` shares the shards among machines. `preparation.json` counts the files that were
left out and gives the reason for each; `report.html` shows them, with pictures of unusual recordings beside typical recordings.

The repository on the Hub is private. `--public` is refused if the terms of the data set forbid redistribution.
"""

import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from action_llm.model_files import read_json_object

from .atomic_files import write_atomically, written_whole
from .commands import command_parser, parse_arguments
from .data_set_card import data_set_card
from .doubts import doubt_lines
from .endings import ending_well
from .folder_lock import writing_share
from .folder_record import read_record
from .names import REPORT_NAME, check_protocol, did_you_mean, protocol_names
from .preparation_report import measure, nothing_left_out, write_report
from .progress import Progress, set_up_output
from .task_shares import add_task_options, check_task
from .worker_processes import in_processes

if TYPE_CHECKING:
    from .building import SkeletonBuilder

logger = logging.getLogger(__name__)

FILES_PER_SHARD = 512
PROGRESS, TERMS = ".preparation", "terms.json"


class PreparationError(ValueError):
    """The output cannot be written, or must not be published; the message gives the reason."""


@dataclass(frozen=True)
class _Shard:
    """A Parquet file to write.

    Attributes:
        split: name of the split.
        parquet, account: paths of the file, and of the record of its recordings and skipped files.
        paths: source files.
        lethal: source files that end the process that reads them.
    """

    split: str
    parquet: Path
    account: Path
    paths: tuple[str, ...]
    lethal: tuple[str, ...] = ()


def prepare(
    name: str,
    source: str | os.PathLike,
    output: str | os.PathLike,
    *,
    num_proc: int | None = None,
    files_per_shard: int = FILES_PER_SHARD,
    task: int = 0,
    tasks: int = 1,
    **overrides,
) -> dict[str, dict]:
    """Writes a data set as Parquet, with `README.md`, `preparation.json` and `report.html`.

    Args:
        name: of the protocol, as in `load_action_dataset`.
        source: folder of the raw files.
        output: folder to write to; created if missing. Shards that an earlier run finished are kept.
        num_proc: number of processes; None uses every core. Each holds one table of rows in memory, whatever the number of
            files. A file that ends the process that reads it (by a crash, or for lack of memory) is skipped. With 1, files are
            read in this process, and such a file ends it. For one of several tasks, None is one further process.
        files_per_shard: number of source files per Parquet file.
        task, tasks: which of how many tasks this is. One of several writes its share of the Parquet files only; when all have
            ended, a run with a single task writes the other files.
        **overrides: fields of the config.

    Returns:
        Config → its account, as in `preparation.json`. One of several tasks has none.

    Raises:
        ValueError: if there is no such protocol, or no such task.
        DataFolderError: if the source has no usable recording of the data set.
        PreparationError: if the output was made from other files, by other code or with other settings; or if processes end
            before they read a file.
        FolderInUseError: if another process is writing to the output.
    """
    check_protocol(name)
    check_task(task, tasks)
    with writing_share(output, task, tasks, "--output"):
        return _prepare(name, source, Path(output), num_proc, files_per_shard, (task, tasks), overrides)


def _prepare(
    name: str,
    source,
    output: Path,
    num_proc: int | None,
    files_per_shard: int,
    share: tuple[int, int],
    overrides: dict,
) -> dict[str, dict]:
    from .building import DataFolderError
    from .load import PROTOCOLS

    builder_class, configs = PROTOCOLS[name]
    cache = os.fspath(output / PROGRESS / "cache")
    builders = [builder_class(config_name=config, data_dir=source, cache_dir=cache, **overrides) for config in configs]
    _check_identity(output, name, builders, files_per_shard)
    accounts = {
        builder.config.name: _prepare_config(builder, output, num_proc, files_per_shard, share) for builder in builders
    }
    if share != (0, 1):
        return {}
    if not any(count for account in accounts.values() for count in account["recordings"].values()):
        left_out = [entry["reason"] for account in accounts.values() for entry in account["files"]]
        raise DataFolderError(
            f"no recording under {os.fspath(source)!r} could be used for {name}; for example {left_out[0]}"
        )
    write_atomically(output / REPORT_NAME, json.dumps(accounts, indent=1, ensure_ascii=False) + "\n")
    write_report(output, output / PROGRESS, builders, accounts)
    terms = {"license": builders[0].terms, "may_be_published": builders[0].may_be_published}
    write_atomically(output / PROGRESS / TERMS, json.dumps(terms) + "\n")
    write_atomically(output / "README.md", data_set_card(name, builders, accounts))
    return accounts


def _check_identity(output: Path, name: str, builders: "list[SkeletonBuilder]", files_per_shard: int) -> None:
    """Refuses an output folder that was made from other files or with other settings."""
    path = output / PROGRESS / "identity.json"
    settings = {
        key: value
        for key, value in vars(builders[0].config).items()
        if key not in ("name", "data_dir", "part", "accept_doubts")
    }
    identity = {
        "name": name,
        "files": [builder.hash for builder in builders],
        "files_per_shard": files_per_shard,
        "settings": json.loads(json.dumps(settings, default=str)),
    }
    record = read_record(path, PreparationError)
    if record is not None:
        _refuse_other(output, record, identity)
        return
    if output.is_dir() and any(output.rglob("*.parquet")):
        raise PreparationError(f"{os.fspath(output)!r} holds other Parquet files: choose another --output")
    write_atomically(path, json.dumps(identity) + "\n")


def _refuse_other(output: Path, record: dict, identity: dict) -> None:
    """Raises `PreparationError` if the record of an earlier run in `output` differs from the identity of this run."""
    settings = record.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    different = [key for key in identity if key != "settings" and record.get(key) != identity[key]]
    different += [key for key, value in identity["settings"].items() if settings.get(key) != value]
    if different:
        words = {
            "files": "other source files or another version of the code",
            "name": f"the data set {record.get('name')}",
        }
        causes = ", ".join(words.get(key, f"another value of {key}") for key in different)
        raise PreparationError(f"{os.fspath(output)!r} was made with {causes}: choose another --output")


def _prepare_config(
    builder: "SkeletonBuilder", output: Path, num_proc: int | None, files_per_shard: int, share: tuple[int, int]
) -> dict | None:
    """Writes the missing shards of a config; returns its account, or None for one of several tasks, which logs its share."""
    from .building import Tally

    paths, skipped = builder.assign()
    builder.check_sample(paths)
    shards: list[_Shard] = []
    for split, listed in paths.items():
        count = -(-len(listed) // files_per_shard)
        shards += [
            _Shard(
                split,
                output / builder.config.name / f"{split}-{index:05d}-of-{count:05d}.parquet",
                output / PROGRESS / builder.config.name / f"{split}-{index:05d}-of-{count:05d}.json",
                tuple(listed[index * files_per_shard : (index + 1) * files_per_shard]),
            )
            for index in range(count)
        ]
    task, tasks = share
    shards = shards[task::tasks]
    missing = [shard for shard in shards if not _is_done(shard)]
    for shard in missing:
        for left_over in shard.parquet.parent.glob(f".{shard.parquet.name}.*"):  # of a run that was killed
            left_over.unlink()
    total = sum(len(shard.paths) for shard in shards)
    with Progress(builder.config.name, total, "files", total - sum(len(shard.paths) for shard in missing)) as bar:
        _write_shards(builder, missing, num_proc, tasks > 1, bar)
    accounts = [json.loads(shard.account.read_text(encoding="utf-8")) for shard in shards]
    tallies = [Tally(**account["tally"]) for account in accounts]
    if tasks == 1:
        return builder.account(tallies, skipped)
    skipped = [entry for tally in tallies for entry in tally.skipped]
    for entry in skipped:
        logger.warning("skipped (%s): %s", entry["kind"], entry["reason"])
    counts = f"{len(shards)} shards of {total:,} files, {len(skipped)} files skipped"
    logger.info("%s, task %d of %d: %s", builder.config.name, task, tasks, counts)
    return None


def _write_shards(
    builder: "SkeletonBuilder", shards: list[_Shard], num_proc: int | None, is_task: bool, bar: Progress
) -> None:
    """Writes shards. If a process ends, its files are read again one shard at a time, and the file that ends it is skipped."""
    apart = is_task or num_proc != 1
    num_proc = 1 if is_task and num_proc is None else num_proc
    while shards := _unwritten(builder, shards, num_proc, apart, bar):
        in_work = _files_in_work(shards)
        if not in_work:
            raise PreparationError(
                "a process ended before it read a file: set a smaller --num_proc, or --num_proc 1 to see the error"
            )
        files = ", ".join(sorted(in_work.values()))
        logger.warning("a process ended while it was reading %s: these files are read again, one at a time", files)
        shards = [shard for shard in shards if shard not in in_work]
        for shard in in_work:
            while _unwritten(builder, [shard], 1, True, bar):
                path = _files_in_work([shard]).get(shard)
                if path is None:
                    raise PreparationError(
                        f"the process that writes {shard.parquet} ended, perhaps for lack of memory: set a smaller --num_proc"
                    )
                logger.warning("%s is skipped: it ends the process that reads it", path)
                shard = replace(shard, lethal=(*shard.lethal, path))


def _unwritten(
    builder: "SkeletonBuilder", shards: list[_Shard], num_proc: int | None, apart: bool, bar: Progress
) -> list[_Shard]:
    """Writes shards; returns the shards that were not written because a process ended."""
    count = 0
    try:
        with in_processes(
            _write_in_process, shards, num_proc, apart=apart, initializer=_start, initargs=(builder,)
        ) as written:
            for shard, _ in zip(shards, written, strict=True):
                bar.update(len(shard.paths))
                count += 1
    except BrokenProcessPool:
        unwritten = [shard for shard in shards[count:] if not _is_done(shard)]
        bar.update(sum(len(shard.paths) for shard in shards[count:] if shard not in unwritten))
        return unwritten
    return []


def _files_in_work(shards: list[_Shard]) -> dict[_Shard, str]:
    """Shard → the file that was being read when its process ended, without shards that were reading none. Removes the notes."""
    files = {}
    for shard in shards:
        for note in shard.parquet.parent.glob(f".{shard.parquet.name}.*.reading"):
            *_, number, _ = ("", *note.read_text(encoding="utf-8").split("\n"))
            note.unlink()
            note.with_suffix("").unlink(missing_ok=True)  # the unfinished Parquet file
            if number:
                files[shard] = shard.paths[int(number)]
    return files


_builder: "SkeletonBuilder | None" = None


def _start(builder: "SkeletonBuilder") -> None:
    global _builder
    _builder = builder


def _write_in_process(shard: _Shard) -> None:
    _write_shard(_builder, shard)


def _is_done(shard: _Shard) -> bool:
    """Whether a shard and its account exist and are complete."""
    from .building import Tally

    try:
        pq.read_metadata(shard.parquet)
        account = read_json_object(shard.account)
        Tally(**account["tally"])
        return isinstance(account["recordings"], list)
    except (pa.ArrowException, ValueError, OSError, KeyError, TypeError):
        return False


def _write_shard(builder: "SkeletonBuilder", shard: _Shard) -> None:
    """Writes a Parquet file and its account, both whole or not at all."""
    from .building import ROWS_PER_TABLE, Tally

    reason = "{}: the process that read it ended, because of a crash or for lack of memory"
    skipped = [{"file": path, "kind": "crash", "reason": reason.format(path)} for path in shard.lethal]
    tally, recordings = Tally(shard.split, skipped=skipped), []
    with written_whole(shard.parquet) as unfinished, written_whole(shard.account) as account:
        note = unfinished.with_name(f"{unfinished.name}.reading")
        try:
            with (
                open(note, "w", encoding="utf-8") as notes,
                pq.ParquetWriter(unfinished, builder.info.features.arrow_schema, compression="zstd") as writer,
            ):
                rows = tally.rows(builder, _noted(shard, notes))
                while batch := list(islice(rows, ROWS_PER_TABLE)):
                    print(file=notes, flush=True)  # no file is being read
                    recordings += [{"sample_id": row["sample_id"], **measure(row)} for row in batch]
                    writer.write_table(builder.table(batch))
        finally:
            note.unlink(missing_ok=True)
        content = {"tally": vars(tally), "recordings": recordings}
        account.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def _noted(shard: _Shard, notes: TextIO) -> Iterator[str]:
    """The files of a shard; the number of each is written to `notes` before it is read."""
    for number, path in enumerate(shard.paths):
        if path not in shard.lethal:
            print(number, file=notes, flush=True)
            yield path


def push(folder: str | os.PathLike, repository: str, *, public: bool = False) -> str:
    """Uploads the output of `prepare` as a data set repository; returns its address.

    Args:
        folder: the output of `prepare`.
        repository: name on the Hub.
        public: whether a new repository is public.

    Raises:
        PreparationError: if `public` is set and the terms forbid redistribution; or if it is not set and the repository exists
            and is public.
    """
    from huggingface_hub import HfApi

    terms = json.loads(Path(folder, PROGRESS, TERMS).read_text(encoding="utf-8"))
    if public and not terms["may_be_published"]:
        raise PreparationError(
            f"--public: the terms forbid redistribution ({terms['license'] or 'terms unknown'}); leave the option out"
        )
    api = HfApi()
    address = api.create_repo(repository, repo_type="dataset", private=not public, exist_ok=True)
    # A repository that already existed keeps its visibility.
    if not public and not api.repo_info(repository, repo_type="dataset").private:
        raise PreparationError(
            f"{repository} is public: make it private, choose another name, or set --public if the terms allow it"
        )
    api.upload_folder(
        folder_path=os.fspath(folder),
        repo_id=repository,
        repo_type="dataset",
        ignore_patterns=[f"{PROGRESS}/*", f"{PROGRESS}/**", ".*", "**/.*"],
        delete_patterns=["*.parquet", "*/*.parquet", "report-*.png"],
        commit_message="Prepared recordings",
    )
    return str(address)


def _protocol(name: str, protocol: str | None) -> str:
    """`ntu60` and `xview` → `ntu60-xview`; a full name is returned unchanged."""
    full = name if protocol is None else f"{name}-{protocol}"
    of_name = [known for known in protocol_names() if known.startswith(f"{name}-")]
    if of_name and protocol is not None and full not in of_name:
        listed = f"; the protocols of {name} are {', '.join(of_name)}"
        raise ValueError(f"there is no protocol {full!r}{did_you_mean(full, of_name) or listed}")
    check_protocol(full)
    return full


def _settings(name: str, arguments: list[str]) -> dict:
    """`["clean=true"]` → `{"clean": True}`, checked against the fields of the config."""
    from .load import PROTOCOLS

    config = PROTOCOLS[name][0].BUILDER_CONFIGS[0]
    known = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if field.name not in ("name", "version", "data_dir", "data_files", "description", "protocol", "part")
    }
    settings = {}
    for argument in arguments:
        field, equals, text = argument.partition("=")
        if field not in known or not equals:
            raise ValueError(
                f"--set: expected FIELD=VALUE with a field of {name} ({', '.join(known)}), "
                f"found {argument!r}{did_you_mean(field, known)}"
            )
        default = known[field]
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        value = tuple(value) if isinstance(default, tuple) and isinstance(value, list) else value
        value = float(value) if type(default) is float and type(value) is int else value
        if type(value) is not type(default):
            like = {(): '["tracking_state"]', "": "a word"}.get(default, json.dumps(default))
            raise ValueError(f"--set {field}: expected a value like {like}, found {text!r}")
        settings[field] = value
    return settings


def _summary(account: dict) -> list[str]:
    """Lines about a config: its counts, and what to check."""
    counts, published = (
        ", ".join(f"{count:,} {split}" for split, count in account[key].items()) for key in ("recordings", "published")
    )
    skipped = ", ".join(f"{count:,} {category}" for category, count in account["skipped"].items())
    published = f" (published: {published})" if published else ""
    return [f"{counts}{published}; left out: {skipped or nothing_left_out(account)}", *doubt_lines(account["doubts"])]


def main() -> None:
    parser = command_parser("Converts the raw files of a data set into Parquet, with a report and a data set card.")
    parser.add_argument(
        "name",
        help="protocol, such as ntu60-xsub, utd-mhad, smarthome-cs, uav-human-csv1 or folder (-video for videos; "
        "model_cards/datasets lists all), or a data set with --protocol",
    )
    parser.add_argument("--source", required=True, help="folder of the raw files")
    parser.add_argument("--protocol", help="protocol, if NAME is only the data set: ntu60 --protocol xview")
    parser.add_argument("--output", help="folder to write to (default: prepared/NAME)")
    parser.add_argument(
        "--push_to_hub", "--push-to-hub", metavar="REPO", help="upload the result to this data set repository"
    )
    parser.add_argument("--public", action="store_true", help="make a new repository public, if the terms allow it")
    parser.add_argument("--num_proc", type=int, help="number of processes (default: one per core)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", dest="settings",
        help="fields of the config: clean=true (rows hold people instead of tracked bodies), min_body_frames=20, "
        'keep=["tracking_state"], skip_missing=false (NTU RGB+D), held_out_subject=5 (UTD-MHAD), …',
    )  # fmt: skip
    add_task_options(parser)
    arguments = parse_arguments(parser)
    set_up_output()
    with ending_well(parser.prog, resumes=True):
        name = _protocol(arguments.name, arguments.protocol)
        output = Path(arguments.output or Path("prepared", name))
        settings = _settings(name, arguments.settings)
        if arguments.public and not arguments.push_to_hub:
            raise ValueError("--public needs --push_to_hub REPO")
        share = {"task": arguments.task, "tasks": arguments.tasks}
        accounts = prepare(name, arguments.source, output, num_proc=arguments.num_proc, **share, **settings)
        if arguments.tasks > 1:
            return
        for config, account in accounts.items():
            print("\n".join(f"{config}: {line}" for line in _summary(account)))
        print(f"Written to {output}. Look at {output / 'report.html'}.")
        if arguments.push_to_hub:
            print(push(output, arguments.push_to_hub, public=arguments.public))


if __name__ == "__main__":
    main()
