"""Raw recordings → Parquet with a page, on disk or on the Hub.

    python -m action_llm_datasets.prepare ntu60-xsub --source nturgb+d_skeletons --output ntu60-xsub
    python -m action_llm_datasets.prepare ntu60 --protocol xview --source nturgb+d_skeletons --push_to_hub me/ntu60-xview

Rows hold everything that was recorded; `--set clean=true` makes them hold the people (`Cleaning`), and the report says of both
what cleaning does to which recordings.

What comes out is read without any of this code: `load_dataset("ntu60-xsub")`, streaming too. A run that was killed goes on
with the shards that are missing. `preparation.json` counts what was left out and lists every name with its reason;
`report.html` shows it, with pictures of recordings that stand out beside usual ones.

On the Hub the repository is private. `--public` is refused where the terms of a data set forbid that it is passed on.
"""

import html
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields, replace
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from action_llm.escaping import markdown
from action_llm.model_files import read_json_object
from action_llm.skeleton_bodies import NOWHERE, valid_joints
from action_llm.skeleton_layouts import get_layout
from action_llm.skeleton_plausibility import find_symptoms
from action_llm.video_files import open_video

from .atomic_files import write_atomically, written_whole
from .commands import command_parser, parse_arguments
from .doubts import doubt_lines
from .endings import ending_well
from .folder_lock import writing
from .folder_record import read_record
from .names import METRICS, REPORT_NAME, check_protocol, did_you_mean, protocol_names
from .progress import Progress, set_up_output
from .rendering import SheetRow, contact_sheet, titled, write_png
from .worker_processes import in_processes

if TYPE_CHECKING:
    from .building import SkeletonBuilder

logger = logging.getLogger(__name__)

FILES_PER_SHARD = 512
PROGRESS, TERMS = ".preparation", "terms.json"
_READ_KEYPOINTS = """keypoints = rows.with_format("numpy")[0]["keypoints"]
keypoints = keypoints.reshape(rows[0]["shape"])  # (frames, people, joints, 3)"""


class PreparationError(ValueError):
    """The output cannot be written, or must not be published; the message says why."""


@dataclass(frozen=True)
class _Shard:
    """Files that go into one Parquet file, where it and the account of it lie, and which files end their reader's process."""

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
    **overrides,
) -> dict[str, dict]:
    """Writes a data set as Parquet, with `README.md`, `preparation.json` and `report.html`.

    Args:
        name: the protocol, as of `load_action_dataset`.
        source: folder of the raw files.
        output: folder to write into, made where it is missing. What an earlier run has finished in it is kept.
        num_proc: processes; None uses every core. Each holds one table of rows at a time, however many files there are. A file
            that ends the process that reads it (a crash, a lack of memory) is skipped, and the rest goes on; 1 reads in this
            process, which would end with it.
        files_per_shard: files that go into one Parquet file.
        **overrides: fields of the config.

    Returns:
        Config → its account, as in `preparation.json`.

    Raises:
        ValueError: there is no such protocol.
        DataFolderError: the source holds nothing of the data set, or nothing of it can be used.
        PreparationError: the output holds what was made of other files, by other code or with other settings; or processes
            end before they read a file.
        FolderInUseError: another process writes the output.
    """
    check_protocol(name)
    with writing(output, "--output"):
        return _prepare(name, source, Path(output), num_proc, files_per_shard, overrides)


def _prepare(
    name: str, source, output: Path, num_proc: int | None, files_per_shard: int, overrides: dict
) -> dict[str, dict]:
    from .building import DataFolderError
    from .load import PROTOCOLS

    builder_class, configs = PROTOCOLS[name]
    cache = os.fspath(output / PROGRESS / "cache")
    builders = [builder_class(config_name=one, data_dir=source, cache_dir=cache, **overrides) for one in configs]
    _check_identity(output, name, builders, files_per_shard)
    accounts = {one.config.name: _prepare_config(one, output, num_proc, files_per_shard) for one in builders}
    if not any(count for account in accounts.values() for count in account["recordings"].values()):
        left_out = [entry["reason"] for account in accounts.values() for entry in account["files"]]
        raise DataFolderError(
            f"no recording under {os.fspath(source)!r} could be used for {name}; for example {left_out[0]}"
        )
    write_atomically(output / REPORT_NAME, json.dumps(accounts, indent=1, ensure_ascii=False) + "\n")
    _write_report(output, builders, accounts)
    terms = {"license": builders[0].terms, "may_be_published": builders[0].may_be_published}
    write_atomically(output / PROGRESS / TERMS, json.dumps(terms) + "\n")
    write_atomically(output / "README.md", dataset_card(name, builders, accounts))
    return accounts


def _check_identity(output: Path, name: str, builders: "list[SkeletonBuilder]", files_per_shard: int) -> None:
    """Refuses an output folder that was made from other files or with other settings; removes half-written files."""
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
    elif output.is_dir() and any(output.rglob("*.parquet")):
        raise PreparationError(f"{os.fspath(output)!r} holds other Parquet files: choose another --output")
    for left_over in output.rglob(".*.parquet.*"):
        left_over.unlink()
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


def _prepare_config(builder: "SkeletonBuilder", output: Path, num_proc: int | None, files_per_shard: int) -> dict:
    """Writes the shards of one config that are missing; returns its account."""
    from .building import Tally

    paths, skipped = builder.assign()
    builder.check_sample(paths)
    shards: dict[str, list[_Shard]] = {}
    for split, listed in paths.items():
        count = -(-len(listed) // files_per_shard)
        shards[split] = [
            _Shard(
                split,
                output / builder.config.name / f"{split}-{index:05d}-of-{count:05d}.parquet",
                output / PROGRESS / builder.config.name / f"{split}-{index:05d}-of-{count:05d}.json",
                tuple(listed[index * files_per_shard : (index + 1) * files_per_shard]),
            )
            for index in range(count)
        ]
    missing = [shard for part in shards.values() for shard in part if not _is_done(shard)]
    done = sum(len(shard.paths) for part in shards.values() for shard in part) - sum(len(s.paths) for s in missing)
    total = done + sum(len(shard.paths) for shard in missing)
    with Progress(builder.config.name, total, "files", done) as bar:
        _write_shards(builder, missing, num_proc, bar)
    accounts = [json.loads(shard.account.read_text(encoding="utf-8")) for part in shards.values() for shard in part]
    return builder.account([Tally(**account["tally"]) for account in accounts], skipped)


def _write_shards(builder: "SkeletonBuilder", shards: list[_Shard], num_proc: int | None, bar: Progress) -> None:
    """Writes shards. Where a process ends, what it read is read again, one file at a time, and skipped if it ends another."""
    while shards := _unwritten(builder, shards, num_proc, bar):
        in_work = _files_in_work(shards)
        if not in_work:
            raise PreparationError("a process ended while it read no file: choose fewer processes, or one to see why")
        files = ", ".join(sorted(in_work.values()))
        logger.warning("a process ended while these were read: %s. They are read again, one at a time", files)
        shards = [shard for shard in shards if shard not in in_work]
        for shard in in_work:
            while _unwritten(builder, [shard], None, bar):
                path = _files_in_work([shard]).get(shard)
                if path is None:
                    raise PreparationError(
                        f"the process that writes {shard.parquet} ended: is there too little memory?"
                    )
                logger.warning("%s is skipped: the process that reads it ends", path)
                shard = replace(shard, lethal=(*shard.lethal, path))


def _unwritten(builder: "SkeletonBuilder", shards: list[_Shard], num_proc: int | None, bar: Progress) -> list[_Shard]:
    """Writes shards, and returns those that could not be written as a process ended."""
    counted = 0
    try:
        with in_processes(
            _write_in_process, shards, num_proc, apart=num_proc != 1, initializer=_start, initargs=(builder,)
        ) as written:
            for shard, _ in zip(shards, written, strict=True):
                bar.update(len(shard.paths))
                counted += 1
    except BrokenProcessPool:
        rest = [shard for shard in shards[counted:] if not _is_done(shard)]
        bar.update(sum(len(shard.paths) for shard in shards[counted:] if shard not in rest))
        return rest
    return []


def _files_in_work(shards: list[_Shard]) -> dict[_Shard, str]:
    """Shard → the file that was read for it as the process ended; without those for which none was. The notes are removed."""
    files = {}
    for shard in shards:
        for note in shard.parquet.parent.glob(f".{shard.parquet.name}.*.reading"):
            *_, number, _ = ("", *note.read_text(encoding="utf-8").split("\n"))
            note.unlink()
            note.with_suffix("").unlink(missing_ok=True)  # what it had written
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
    """Whether a shard and its account are there and whole."""
    from .building import Tally

    try:
        pq.read_metadata(shard.parquet)
        account = read_json_object(shard.account)
        Tally(**account["tally"])
        return isinstance(account["recordings"], list)
    except (pa.ArrowException, ValueError, OSError, KeyError, TypeError):
        return False


def _write_shard(builder: "SkeletonBuilder", shard: _Shard) -> None:
    """One Parquet file, and before it the account of it; both whole or not at all."""
    from .building import ROWS_PER_TABLE, Tally

    note = shard.parquet.with_name(f".{shard.parquet.name}.{os.getpid()}.reading")
    reason = "{}: the process that read it ended, by a crash or for lack of memory"
    skipped = [{"file": path, "kind": "crash", "reason": reason.format(path)} for path in shard.lethal]
    tally, recordings = Tally(shard.split, skipped=skipped), []
    with written_whole(shard.parquet) as unfinished, written_whole(shard.account) as account:
        try:
            with (
                open(note, "w", encoding="utf-8") as notes,
                pq.ParquetWriter(unfinished, builder.info.features.arrow_schema, compression="zstd") as writer,
            ):
                rows = tally.rows(builder, _noted(shard, notes))
                while batch := list(islice(rows, ROWS_PER_TABLE)):
                    print(file=notes, flush=True)  # nothing is read now
                    recordings += [{"sample_id": row["sample_id"], **_measure(row)} for row in batch]
                    writer.write_table(builder.table(batch))
        finally:
            note.unlink(missing_ok=True)
        content = {"tally": vars(tally), "recordings": recordings}
        account.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def _noted(shard: _Shard, notes: TextIO) -> Iterator[str]:
    """The files that are to be read, the number of each noted before it is."""
    for number, path in enumerate(shard.paths):
        if path not in shard.lethal:
            print(number, file=notes, flush=True)
            yield path


def _measure(row: dict) -> dict[str, float]:
    """What a recording is looked at for; steps in units of its own spread."""
    if "keypoints" not in row:
        return {"frames": row["num_frames"], "seconds": round(row["seconds"], 3), "width": row["width"]}
    joints = np.asarray(row["keypoints"], np.float64).reshape(row["shape"])
    joints = np.where(np.abs(joints) < NOWHERE, joints, 0)
    seen = joints.any((2, 3))
    middle = np.where(seen[..., None], joints.mean(2), np.nan)
    both = seen[1:] & seen[:-1]
    steps = np.linalg.norm(np.diff(middle, axis=0), axis=-1)[both]
    spread = float(joints[seen].std(axis=(0, 1)).max()) if seen.any() else 0.0
    return {
        "frames": int(seen.shape[0]),
        "bodies": int(seen.any(0).sum()),
        "empty_frames": int((~seen.any(1)).sum()),
        "largest_step": round(float(steps.max() / spread), 4) if steps.size and spread > 0 else 0.0,
    }


# ------------------------------------------------------------------------------------------------ the page to look at


def _write_report(output: Path, builders: "list[SkeletonBuilder]", accounts: dict[str, dict]) -> None:
    """`report.html`, and beside it a picture of each recording that stands out and of as many usual ones."""
    sections = []
    for builder in builders:
        config, account = builder.config.name, accounts[builder.config.name]
        tables = [
            table(account) for table in (_counts_table, _doubts_list, _classes_table, _skipped_table, _cleaning_table)
        ]
        sections.append(f"<h2>{html.escape(config)}</h2>{''.join(tables)}")
        chosen_recordings = _chosen(output, config)
        if chosen_recordings and "keypoints" in builder.info.features:
            some = [recording for chosen in reversed(chosen_recordings.values()) for recording in chosen][:2]
            write_png(output / f"report-{config}-joints.png", _draw_joints(builder, output, some))
            sections.append(
                "<h3>How the joints are read</h3><p>In the right layout heads are up, left limbs are warm, right ones cold, "
                f'and limbs hang where they belong.</p><img src="report-{html.escape(config)}-joints.png" alt="Skeletons">'
            )
        for title, chosen in chosen_recordings.items():
            picture = f"report-{config}-{title.split()[0].lower()}.png"
            drawn = _draw_videos if "video" in builder.info.features else _draw_skeletons
            sheet = drawn(builder, output, chosen)
            if sheet is not None:
                write_png(output / picture, sheet)
                sections.append(f'<h3>{title}</h3><img src="{html.escape(picture)}" alt="{title}">')
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{html.escape(builders[0].TITLE)}</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1rem; color: #23262c; }}
 table {{ border-collapse: collapse; margin: 0.5rem 0 1.5rem; }}
 td, th {{ border-bottom: 1px solid #ddd; padding: 0.2rem 0.9rem 0.2rem 0; text-align: left; vertical-align: top; }}
 td.n {{ text-align: right; font-variant-numeric: tabular-nums; }} img {{ max-width: 100%; }} .off {{ color: #b3261e; }}
</style>
<h1>{html.escape(builders[0].TITLE)}</h1>
{"".join(sections)}
</html>
"""
    write_atomically(output / "report.html", page)


def _counts_table(account: dict) -> str:
    lines = []
    for split, count in account["recordings"].items():
        published = account["published"].get(split)
        difference = "" if published is None else f"{count - published:+,}" if count != published else "equal"
        mark = ' class="n off"' if published not in (None, count) else ' class="n"'
        shown = "" if published is None else f"{published:,}"
        lines.append(
            f'<tr><td>{split}</td><td class="n">{count:,}</td><td class="n">{shown}</td><td{mark}>{difference}</td></tr>'
        )
    return f"<table><tr><th>split<th>recordings<th>published<th>difference</tr>{''.join(lines)}</table>"


def _doubts_list(account: dict) -> str:
    lines = [f'<li class="off">{html.escape(line)}</li>' for line in doubt_lines(account["doubts"])]
    return f"<h3>To check</h3><ul>{''.join(lines)}</ul>" if lines else ""


def _skipped_table(account: dict, shown: int = 20) -> str:
    if not account["files"]:
        return f"<p>Left out: {_nothing(account)}.</p>"
    lines = []
    for kind, count in sorted(account["skipped"].items(), key=lambda item: -item[1]):
        reasons = [entry["reason"] for entry in account["files"] if entry["kind"] == kind]
        more = f"<br>… and {count - shown:,} more, in {REPORT_NAME}" if count > shown else ""
        text = "<br>".join(map(html.escape, reasons[:shown]))
        lines.append(f'<tr><td>{html.escape(kind)}</td><td class="n">{count:,}</td><td>{text}{more}</td></tr>')
    return f"<table><tr><th>left out<th>files<th>which and why</tr>{''.join(lines)}</table>"


def _nothing(account: dict) -> str:
    """How to say that no file was left out: where files are missing, that is not to sound as if all were there."""
    missing = any(doubt["kind"] == "missing" for doubt in account["doubts"])
    return "none of the files that are there" if missing else "nothing"


def _classes_table(account: dict) -> str:
    """Recordings of each class and split, with the published number behind it where there is one and it is another."""
    found, published = account["classes"], account["published_classes"]
    columns = [*found, *(["all"] if "all" in published else [])]
    lines = []
    for name in found[next(iter(found))]:
        cells = []
        for column in columns:
            count = sum(split[name] for split in found.values()) if column == "all" else found[column][name]
            expected = published.get(column, {}).get(name)
            off = "" if expected in (None, count) else f' <span class="off">of {expected:,}</span>'
            cells.append(f'<td class="n">{count:,}{off}</td>')
        lines.append(f"<tr><td>{html.escape(name)}</td>{''.join(cells)}</tr>")
    head = "".join(f"<th>{column}" for column in columns)
    return f"<details><summary>{len(lines)} classes</summary><table><tr><th>class{head}</tr>{''.join(lines)}</table></details>"


_FATES = {
    "continues": "a person who was lost and found again under another id: joined",
    "short": "a body seen in {min_body_frames} frames or fewer, among others: dropped",
    "flat": "a body wider than {max_width_ratio} times its height in {max_flat_share} of its frames, among others: dropped",
    "surplus": "people beyond {num_persons}: dropped, the ones who move least",
    "never seen": "a body without a joint that was measured: dropped",
    "gap": "frames without a person between their first and last: kept as they are, in time",
}


def _cleaning_table(account: dict) -> str:
    cleaning = account["cleaning"]
    if not cleaning["counts"]:
        return ""
    lines = [
        f'<tr><td>{html.escape(_FATES[fate].format(**cleaning["convention"]))}</td><td class="n">{count:,}</td></tr>'
        for fate, count in cleaning["counts"].items()
    ]
    done = (
        "Applied: rows hold people."
        if cleaning["applied"]
        else "Not applied: rows hold all bodies. What it does when it is applied, here or before a model reads a row:"
    )
    return (
        f"<h3>Cleaning</h3><p>{done} {REPORT_NAME} says which recordings.</p>"
        f"<table><tr><th>what<th>recordings</tr>{''.join(lines)}</table>"
    )


class _Chosen(NamedTuple):
    """A recording for the page: where it was written, what was measured, and what is odd about it."""

    shard: str
    index: int
    measures: dict
    odd: str

    @property
    def title(self) -> str:
        said = ", ".join(f"{name} {value:g}" for name, value in self.measures.items() if name != "sample_id")
        return f"{self.measures['sample_id']}: {said}" + (f" (odd: {self.odd})" if self.odd else "")


def _chosen(output: Path, config: str, count: int = 6) -> dict[str, list[_Chosen]]:
    """Recordings with an extreme measure, and the most usual ones of the others."""
    found = []
    for account in sorted((output / PROGRESS / config).glob("*.json")):
        rows = json.loads(account.read_text(encoding="utf-8"))["recordings"]
        found += [(account.stem, index, row) for index, row in enumerate(rows)]
    if not found:
        return {}
    names = [name for name in found[0][2] if name != "sample_id"]
    table = np.array([[row[name] for name in names] for _, _, row in found], float)
    middle = np.median(table, axis=0)
    far = np.abs(table - middle) / (np.abs(table - middle).mean(axis=0) + 1e-9)
    odd: dict[int, str] = {}
    # The farthest of each measure in turn, of those that differ at all.
    for rank, column in product(range(count), range(len(names))):
        order = np.argsort(-far[:, column], kind="stable")
        if len(odd) < count and rank < len(order) and far[order[rank], column] > 2:
            odd.setdefault(int(order[rank]), names[column])
    usual = [int(one) for one in np.argsort(far.sum(axis=1), kind="stable") if int(one) not in odd][:count]
    chosen = {"Odd recordings": odd, "Usual recordings": dict.fromkeys(usual, "")}
    return {
        title: [_Chosen(*found[index], why) for index, why in some.items()] for title, some in chosen.items() if some
    }


def _recorded(builder: "SkeletonBuilder", output: Path, recording: _Chosen) -> tuple[np.ndarray, str]:
    """Joints (T, P, J, 3) and layout of a recording that was written."""
    from .building import ROWS_PER_TABLE

    file = pq.ParquetFile(output / builder.config.name / f"{recording.shard}.parquet")
    group, place = divmod(recording.index, ROWS_PER_TABLE)
    row = file.read_row_group(group, ["keypoints", "shape", "layout"]).slice(place, 1).to_pylist()[0]
    return np.reshape(np.array(row["keypoints"], np.float32), row["shape"]), row["layout"]


def _draw_skeletons(builder: "SkeletonBuilder", output: Path, chosen: list[_Chosen]) -> np.ndarray:
    recorded = [_recorded(builder, output, recording) for recording in chosen]
    rows = [SheetRow(joints, recording.title) for (joints, _), recording in zip(recorded, chosen, strict=True)]
    return contact_sheet(rows, recorded[0][1], columns=8)


def _draw_joints(builder: "SkeletonBuilder", output: Path, chosen: list[_Chosen]) -> np.ndarray:
    """Recordings large, from the front and from the side, in their layout and in one that fits better."""
    sheets = []
    for recording in chosen:
        joints, name = _recorded(builder, output, recording)
        layout = get_layout(name)
        symptoms = find_symptoms(joints, valid_joints(joints, np.ones(joints.shape[:2], bool)), layout)
        better = symptoms.get("joint order")
        for shown in [layout] + ([get_layout(better)] if better else []):
            title = f"{recording.measures['sample_id']} as {shown.name}"
            title += ", which fits better" if shown is not layout else ""
            for view, yaw in (("", 0), (", from the side", 90))[: shown.dimensions - 1]:
                sheets.append(
                    contact_sheet([SheetRow(joints, title + view)], shown, columns=5, size=(240, 240), yaw=yaw)
                )
    return np.concatenate(sheets)


def _draw_videos(builder: "SkeletonBuilder", output: Path, chosen: list[_Chosen]) -> np.ndarray | None:
    """Eight pictures of each; None where none of them can be decoded."""
    from .building import ROWS_PER_TABLE, UNREADABLE
    from .videos import open_row

    strips = []
    for one in chosen:
        file = pq.ParquetFile(output / builder.config.name / f"{one.shard}.parquet")
        group, place = divmod(one.index, ROWS_PER_TABLE)
        row = file.read_row_group(group, ["video", "video_fps"]).slice(place, 1).to_pylist()[0]
        try:
            with open_row(builder.config.data_dir, row) as opened, open_video(opened) as video:
                height, width = video.picture_size()
                height = max(2, round(150 * height / width))
                frames = video.frames_at((np.arange(8) + 0.5) * video.info.seconds / 8, (height, 150))
        except (ValueError, *UNREADABLE):
            continue  # the head of the file was all that was looked at before
        strips.append(titled(frames.transpose(1, 0, 2, 3).reshape(frames.shape[1], -1, 3), one.title))
    if not strips:
        return None
    width = max(strip.shape[1] for strip in strips)
    return np.concatenate([np.pad(one, ((0, 0), (0, width - one.shape[1]), (0, 0))) for one in strips])


# ---------------------------------------------------------------------------------------------------- the data set page


def dataset_card(name: str, builders: "list[SkeletonBuilder]", accounts: dict[str, dict]) -> str:
    """The page of the data set: what `load_dataset` needs to know, terms, protocol, counts, and what was left out."""
    first = builders[0]
    simulated = name.startswith("simulated")
    has_skeletons = "keypoints" in first.info.features
    configs = []
    for builder in builders:
        splits = [split for split, count in accounts[builder.config.name]["recordings"].items() if count]
        files = [{"split": split, "path": f"{builder.config.name}/{split}-*.parquet"} for split in splits]
        configs.append({"config_name": builder.config.name, "data_files": files})
    counts = []
    for config, account in accounts.items():
        for split, count in account["recordings"].items():
            published = account["published"].get(split)
            counts.append(f"| {config} | {split} | {count:,} | {'' if published is None else f'{published:,}'} |")
    left_out = [
        f"- {config}: "
        + (
            ", ".join(f"{count:,} ({markdown(kind)})" for kind, count in account["skipped"].items())
            or _nothing(account)
        )
        for config, account in accounts.items()
    ]
    doubts = [
        f"- {config}: {markdown(line)}"
        for config, account in accounts.items()
        for line in doubt_lines(account["doubts"])
    ]
    classes = [(one.config.name, len(one.info.features["label"].names)) for one in builders]
    classes = ", ".join(f"{count}" + f" ({config})" * (len(builders) > 1) for config, count in classes)
    config, split = next(
        (config, split)
        for config, account in accounts.items()
        for split, count in account["recordings"].items()
        if count
    )
    title = "Simulated recordings with NTU names" if simulated else first.TITLE
    terms = markdown(first.terms or "Those of whoever made the recordings.")
    tags = ["action-recognition"] + ["skeleton"] * has_skeletons + ["simulated"] * simulated
    card = {"pretty_name": f"{title} ({name})", "license": "other", "task_categories": ["video-classification"]}
    card |= {"tags": tags, "configs": configs}
    lines = [
        "---",
        yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=1000) + "---",
        "",
        f"# {title}: {name}",
        "",
    ]
    if simulated:
        lines += ["**Simulated.** Nobody was recorded: a kinematic simulator of people computed these skeletons.", ""]
    videos = "video" in first.info.features
    if videos:
        said = "Paths of the videos below the folder that they were prepared from, a row a recording"
        said += ", with their skeletons." if has_skeletons else "."
    elif first.config.clean:
        said = "The people of each recording, a row a recording (see Cleaning): nothing is resampled, padded or normalised."
    else:
        said = "Skeletons as they were recorded, a row a recording: nothing is resampled, padded or normalised."
    lines += [
        said,
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        f'rows = load_dataset("path or repository", "{config}")["{split}"]',
        "path = rows[0]['video']" if videos else _READ_KEYPOINTS,
        "```",
        "",
        "| config | split | recordings | published |",
        "|---|---|---:|---:|",
        *counts,
        "",
        *([f"Protocol: {first.protocol_rule()}", ""] if first.protocol_rule() else []),
        f"Classes: {classes}. Recognisers are compared by {METRICS[first.METRIC]}.",
        "`held_out` marks the training recordings that are for choosing settings.",
        "",
        *(["## To check", "", *doubts, ""] if doubts else []),
        "## Left out",
        "",
        *left_out,
        "",
        f"`{REPORT_NAME}` lists every name with its reason; `report.html` shows recordings that stand out beside usual ones.",
        "",
        *_cleaning_lines(first.config.clean, accounts),
        "## Terms",
        "",
        terms,
    ]
    if first.HOMEPAGE and not simulated:
        lines += ["", f"Home page: {first.HOMEPAGE}"]
    if not first.may_be_published:
        lines += ["", "This copy is for those who have the right to the recordings: keep the repository private."]
    if first.CITATION and not simulated:
        lines += ["", "## Citation", "", first.CITATION]
    return "\n".join(lines) + "\n"


def _cleaning_lines(applied: bool, accounts: dict[str, dict]) -> list[str]:
    """The section of the page about bodies and people; none where every recording is plain."""
    lines = []
    for config, account in accounts.items():
        convention = account["cleaning"]["convention"]
        lines += [
            f"- {config}: {_FATES[fate].format(**convention)}: {count:,} recordings"
            for fate, count in account["cleaning"]["counts"].items()
        ]
    if not lines:
        return []
    said = (
        "Rows hold people in place of tracked bodies:"
        if applied
        else "Rows hold all tracked bodies. Cleaning would find:"
    )
    return ["## Cleaning", "", said, "", *lines, "", f"`{REPORT_NAME}` says which recordings.", ""]


def push(folder: str | os.PathLike, repository: str, *, public: bool = False) -> str:
    """Uploads what `prepare` wrote as a data set repository, private unless `public`; returns its address.

    Raises:
        PreparationError: `public`, but the terms forbid to pass the recordings on; or not `public`, but the repository is.
    """
    from huggingface_hub import HfApi

    terms = json.loads(Path(folder, PROGRESS, TERMS).read_text(encoding="utf-8"))
    if public and not terms["may_be_published"]:
        raise PreparationError(
            f"--public: these recordings must not be passed on ({terms['license'] or 'terms unknown'})"
        )
    api = HfApi()
    address = api.create_repo(repository, repo_type="dataset", private=not public, exist_ok=True)
    # A repository that was there keeps its visibility, whatever was asked for.
    if not public and not api.repo_info(repository, repo_type="dataset").private:
        raise PreparationError(
            f"{repository} is public: make it private, name another, or say --public where it may be"
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
    """`ntu60` and `xview` → `ntu60-xview`; a full name stays as it is."""
    full = name if protocol is None else f"{name}-{protocol}"
    of_name = [known for known in protocol_names() if known.startswith(f"{name}-")]
    if of_name and full not in protocol_names():
        listed = f"; there are {', '.join(of_name)}"
        near = did_you_mean(full, of_name) if protocol else ""
        raise ValueError(f"there is no protocol {full!r}{near or listed}")
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
            raise ValueError(f"--set: {name} has {', '.join(known)}; found {argument!r}{did_you_mean(field, known)}")
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


def main() -> None:
    parser = command_parser("Converts the raw files of a data set into Parquet, with a report and a data set card.")
    parser.add_argument("name", help=f"data set, or data set and protocol: {', '.join(protocol_names())}")
    parser.add_argument("--source", required=True, help="folder of the raw files")
    parser.add_argument("--protocol", help="protocol, where NAME is the data set alone")
    parser.add_argument("--output", help="folder to write into; default: prepared/NAME")
    parser.add_argument("--push_to_hub", "--push-to-hub", metavar="REPO", help="upload it to this data set repository")
    parser.add_argument("--public", action="store_true", help="a public repository, where the terms allow it")
    parser.add_argument("--num_proc", type=int, help="processes; default: every core")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="FIELD=VALUE", dest="settings",
        help="fields of the config, as clean=true (rows hold people in place of all bodies), min_body_frames=20, "
        'keep=["tracking_state"], skip_missing=false (NTU RGB+D), held_out_subject=5 (UTD-MHAD)',
    )  # fmt: skip
    arguments = parse_arguments(parser)
    set_up_output()
    with ending_well(parser.prog, resumes=True):
        name = _protocol(arguments.name, arguments.protocol)
        output = Path(arguments.output or Path("prepared", name))
        settings = _settings(name, arguments.settings)
        if arguments.public and not arguments.push_to_hub:
            raise ValueError("--public is for --push_to_hub")
        accounts = prepare(name, arguments.source, output, num_proc=arguments.num_proc, **settings)
        for config, account in accounts.items():
            counts = ", ".join(f"{count:,} {split}" for split, count in account["recordings"].items())
            published = ", ".join(f"{count:,} {split}" for split, count in account["published"].items())
            left_out = ", ".join(f"{count:,} {kind}" for kind, count in account["skipped"].items()) or _nothing(
                account
            )
            print(f"{config}: {counts}{f' (published: {published})' if published else ''}; left out: {left_out}")
            for line in doubt_lines(account["doubts"]):
                print(f"{config}: {line}")
        print(f"in {output}; look at {output / 'report.html'}")
        if arguments.push_to_hub:
            print(push(output, arguments.push_to_hub, public=arguments.public))


if __name__ == "__main__":
    main()
