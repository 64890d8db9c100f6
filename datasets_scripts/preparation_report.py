"""report.html of prepared recordings: counts, what to check, what was left out, and pictures of recordings."""

import html
import json
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from action_llm.skeleton_bodies import NOWHERE, valid_joints
from action_llm.skeleton_layouts import get_layout
from action_llm.skeleton_plausibility import find_symptoms
from action_llm.video_files import open_video

from .atomic_files import write_atomically
from .doubts import doubt_lines
from .names import REPORT_NAME
from .rendering import SheetRow, contact_sheet, titled, write_png

if TYPE_CHECKING:
    from .building import SkeletonBuilder

_FATES = {
    "continues": "a person who is lost and tracked again under another id is joined",
    "short": "a body with {min_body_frames} frames or fewer, beside other bodies, is dropped",
    "flat": "a body that is wider than {max_width_ratio} times its height in {max_flat_share:.1%} of its frames, beside other "
    "bodies, is dropped",
    "surplus": "of more than {num_persons} people, those who move least are dropped",
    "never seen": "a body without a measured joint is dropped",
    "gap": "frames without a person between the person's first and last frame are kept",
}
_STYLE = """
 body { font: 15px/1.5 system-ui, sans-serif; max-width: 78rem; margin: 2rem auto; padding: 0 1rem; color: #23262c; }
 table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; }
 td, th { border-bottom: 1px solid #ddd; padding: 0.2rem 0.9rem 0.2rem 0; text-align: left; vertical-align: top; }
 td.n { text-align: right; font-variant-numeric: tabular-nums; } img { max-width: 100%; } .off { color: #b3261e; }
"""


def cleaning_counts(account: dict) -> list[tuple[str, int]]:
    """What cleaning does, in words, and to how many recordings."""
    cleaning = account["cleaning"]
    return [(_FATES[fate].format(**cleaning["convention"]), count) for fate, count in cleaning["counts"].items()]


def nothing_left_out(account: dict) -> str:
    """The words for an empty list of skipped files. They do not claim that the data set is complete if files are missing."""
    is_incomplete = any(doubt["kind"] == "missing" for doubt in account["doubts"])
    return "none of the files that are there" if is_incomplete else "nothing"


def measure(row: dict) -> dict[str, float]:
    """Numbers by which unusual recordings are found; steps are relative to the size of the body."""
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


def write_report(
    output: Path, shard_records: Path, builders: "list[SkeletonBuilder]", accounts: dict[str, dict]
) -> None:
    """Writes report.html, and beside it pictures of unusual and of typical recordings.

    Args:
        output: folder of the prepared data.
        shard_records: folder with the records of the shards, each with the measures of its recordings.
        builders: of the configs.
        accounts: config → its account, as in `preparation.json`.
    """
    sections = []
    for builder in builders:
        config, account = builder.config.name, accounts[builder.config.name]
        tables = (_counts_table, _doubts_list, _classes_table, _skipped_table, _cleaning_table)
        sections.append(f"<h2>{html.escape(config)}</h2>{''.join(table(account) for table in tables)}")
        sections += _pictures(builder, output, choose_recordings(shard_records / config))
    title = html.escape(builders[0].TITLE)
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>{_STYLE}</style>
<h1>{title}</h1>
{"".join(sections)}
</html>
"""
    write_atomically(output / "report.html", page)


# --------------------------------------------------------------------------------------------------------- tables


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


def _classes_table(account: dict) -> str:
    """Recordings of each class and split; a published number that differs is shown behind them."""
    actual, published = account["classes"], account["published_classes"]
    columns = [*actual, *(["all"] if "all" in published else [])]
    lines = []
    for name in actual[next(iter(actual))]:
        cells = []
        for column in columns:
            count = sum(split[name] for split in actual.values()) if column == "all" else actual[column][name]
            expected = published.get(column, {}).get(name)
            off = "" if expected in (None, count) else f' <span class="off">of {expected:,}</span>'
            cells.append(f'<td class="n">{count:,}{off}</td>')
        lines.append(f"<tr><td>{html.escape(name)}</td>{''.join(cells)}</tr>")
    head = "".join(f"<th>{column}" for column in columns)
    return f"<details><summary>{len(lines)} classes</summary><table><tr><th>class{head}</tr>{''.join(lines)}</table></details>"


def _skipped_table(account: dict, shown: int = 20) -> str:
    if not account["files"]:
        return f"<p>Left out: {nothing_left_out(account)}.</p>"
    lines = []
    for category, count in sorted(account["skipped"].items(), key=lambda item: -item[1]):
        reasons = [entry["reason"] for entry in account["files"] if entry["kind"] == category]
        more = f"<br>… and {count - shown:,} more, in {REPORT_NAME}" if count > shown else ""
        text = "<br>".join(map(html.escape, reasons[:shown]))
        lines.append(f'<tr><td>{html.escape(category)}</td><td class="n">{count:,}</td><td>{text}{more}</td></tr>')
    return f"<table><tr><th>left out<th>files<th>reasons</tr>{''.join(lines)}</table>"


def _cleaning_table(account: dict) -> str:
    counts = cleaning_counts(account)
    if not counts:
        return ""
    lines = [f'<tr><td>{html.escape(text)}</td><td class="n">{count:,}</td></tr>' for text, count in counts]
    state = (
        "Applied: rows hold people."
        if account["cleaning"]["applied"]
        else "Not applied: rows hold all bodies. When it is applied, here or before a model reads a row, it does this:"
    )
    return (
        f"<h3>Cleaning</h3><p>{state} {REPORT_NAME} names the recordings.</p>"
        f"<table><tr><th>change<th>recordings</tr>{''.join(lines)}</table>"
    )


# ------------------------------------------------------------------------------------------------------- pictures


class ChosenRecording(NamedTuple):
    """A recording that is shown: its shard and its index in it, its measures, and the name of the unusual measure, if any."""

    shard: str
    index: int
    measures: dict
    odd: str

    @property
    def title(self) -> str:
        measures = ", ".join(f"{name} {value:g}" for name, value in self.measures.items() if name != "sample_id")
        return f"{self.measures['sample_id']}: {measures}" + (f" (unusual: {self.odd})" if self.odd else "")


def choose_recordings(shard_records: Path, count: int = 6) -> dict[str, list[ChosenRecording]]:
    """Up to `count` recordings with an extreme measure, and as many of the most typical others, under their headings."""
    entries = []
    for record in sorted(shard_records.glob("*.json")):
        rows = json.loads(record.read_text(encoding="utf-8"))["recordings"]
        entries += [(record.stem, index, row) for index, row in enumerate(rows)]
    if not entries:
        return {}
    names = [name for name in entries[0][2] if name != "sample_id"]
    table = np.array([[row[name] for name in names] for _, _, row in entries], float)
    middle = np.median(table, axis=0)
    distance = np.abs(table - middle) / (np.abs(table - middle).mean(axis=0) + 1e-9)
    odd: dict[int, str] = {}
    # The most distant recording of each measure in turn.
    for rank, column in product(range(count), range(len(names))):
        order = np.argsort(-distance[:, column], kind="stable")
        if len(odd) < count and rank < len(order) and distance[order[rank], column] > 2:
            odd.setdefault(int(order[rank]), names[column])
    nearest = np.argsort(distance.sum(axis=1), kind="stable").tolist()
    usual = [index for index in nearest if index not in odd][:count]
    headings = {"Unusual recordings": odd, "Typical recordings": dict.fromkeys(usual, "")}
    return {
        heading: [ChosenRecording(*entries[index], measure) for index, measure in chosen.items()]
        for heading, chosen in headings.items()
        if chosen
    }


def _pictures(builder: "SkeletonBuilder", output: Path, chosen: dict[str, list[ChosenRecording]]) -> list[str]:
    """Draws the chosen recordings into PNG files; returns the sections that show them."""
    config, sections = builder.config.name, []
    if chosen and "keypoints" in builder.info.features:
        examples = [recording for recordings in reversed(chosen.values()) for recording in recordings][:2]
        write_png(output / f"report-{config}-joints.png", _draw_joints(builder, output, examples))
        sections.append(
            "<h3>How the joints are read</h3><p>If the layout is right, heads are up, left limbs have warm colours, right "
            "limbs have cool colours, and no limb is displaced.</p>"
            f'<img src="report-{html.escape(config)}-joints.png" alt="Skeletons">'
        )
    for heading, recordings in chosen.items():
        picture = f"report-{config}-{heading.split()[0].lower()}.png"
        draw = _draw_videos if "video" in builder.info.features else _draw_skeletons
        sheet = draw(builder, output, recordings)
        if sheet is not None:
            write_png(output / picture, sheet)
            sections.append(f'<h3>{heading}</h3><img src="{html.escape(picture)}" alt="{heading}">')
    return sections


def _read_row(builder: "SkeletonBuilder", output: Path, recording: ChosenRecording, columns: list[str]) -> dict:
    """Some columns of a prepared recording."""
    from .building import ROWS_PER_TABLE

    file = pq.ParquetFile(output / builder.config.name / f"{recording.shard}.parquet")
    group, index = divmod(recording.index, ROWS_PER_TABLE)
    return file.read_row_group(group, columns).slice(index, 1).to_pylist()[0]


def _read_joints(builder: "SkeletonBuilder", output: Path, recording: ChosenRecording) -> tuple[np.ndarray, str]:
    """Joints (T, P, J, 3) of a prepared recording, and the name of their layout."""
    row = _read_row(builder, output, recording, ["keypoints", "shape", "layout"])
    return np.reshape(np.array(row["keypoints"], np.float32), row["shape"]), row["layout"]


def _draw_skeletons(builder: "SkeletonBuilder", output: Path, chosen: list[ChosenRecording]) -> np.ndarray:
    joints = [_read_joints(builder, output, recording) for recording in chosen]
    rows = [SheetRow(keypoints, recording.title) for (keypoints, _), recording in zip(joints, chosen, strict=True)]
    return contact_sheet(rows, joints[0][1], columns=8)


def _draw_joints(builder: "SkeletonBuilder", output: Path, chosen: list[ChosenRecording]) -> np.ndarray:
    """Large pictures from the front and from the side, in the layout of the recordings, and in a layout that fits better."""
    sheets = []
    for recording in chosen:
        joints, name = _read_joints(builder, output, recording)
        layout = get_layout(name)
        symptoms = find_symptoms(joints, valid_joints(joints, np.ones(joints.shape[:2], bool)), layout)
        better = symptoms.get("joint order")
        for shown in [layout] + ([get_layout(better)] if better else []):
            title = f"{recording.measures['sample_id']} as {shown.name}"
            title += ", which fits better" if shown is not layout else ""
            for view, yaw in (("", 0), (", from the side", 90))[: shown.dimensions - 1]:
                row = SheetRow(joints, title + view)
                sheets.append(contact_sheet([row], shown, columns=5, size=(240, 240), yaw=yaw))
    return np.concatenate(sheets)


def _draw_videos(builder: "SkeletonBuilder", output: Path, chosen: list[ChosenRecording]) -> np.ndarray | None:
    """Eight frames of each video; None if no video can be decoded."""
    from .building import UNREADABLE
    from .videos import open_row

    strips = []
    for recording in chosen:
        row = _read_row(builder, output, recording, ["video", "video_fps"])
        try:
            with open_row(builder.config.data_dir, row) as opened, open_video(opened) as video:
                height, width = video.picture_size()
                height = max(2, round(150 * height / width))
                frames = video.frames_at((np.arange(8) + 0.5) * video.info.seconds / 8, (height, 150))
        except (ValueError, *UNREADABLE):
            continue  # preparing the video read only its head
        strips.append(titled(frames.transpose(1, 0, 2, 3).reshape(frames.shape[1], -1, 3), recording.title))
    if not strips:
        return None
    width = max(strip.shape[1] for strip in strips)
    return np.concatenate([np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0))) for strip in strips])
