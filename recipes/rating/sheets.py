"""
Write blinded sheets for human raters: LVLM-VAR, Table 3 and Figure 1 (consistency score); VT-LVLM-AR, Table III.

```bash
python recipes/rating/sheets.py --study explanations --items ours=runs/mine/explanations/explanations.jsonl baseline.jsonl \\
    --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --output_dir runs/mine/rating
```

`sheets/` is for the raters: each rater gets a page that runs in a browser and contains the clips, and a CSV file to fill in by
hand instead. `key.json` maps items to systems: keep it from the raters; `rating/report.py` needs it.

- `explanations`: does the label fit, and is the explanation coherent, accurate and helpful? Each line of a file is a recording
  with `sample_id`, `label` and the explanation, which a baseline may lack. Pass what `explain_actions.py` writes; for a
  baseline, the predictions.csv of `evaluate_classifier.py`, or that of `baselines/run_baselines.py` under the name of its
  column (`graph-0=runs/baselines/predictions.csv`).
- `events`: is the description of the events coherent and meaningful? Pass what `event_texts.py` writes for the events of
  VT-LVLM-AR and for a baseline with uniform pooling. Each line of a file has `sample_id` and the description, with a line of
  text for each event.
- `tokens`: do the moments at which a code occurs show the same? Codes are drawn uniformly from those that occur in enough
  recordings that `encode_actions.py` encoded. Controls mix moments of different codes.

Raters see clips, predicted labels and texts only; names of items are random. Every rater gets every item, in a random order in
which a recording is repeated only after all others were shown. An explanation is shown after the label was judged. Equal
arguments give equal files.
"""

import base64
import csv
import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import launch
from action_llm_recipes.rating.studies import SKELETONS, STUDIES, RatingFileError

logger = logging.getLogger(__name__)

CONTROL = "control"
NOT_ASKED = "n/a"
MAX_PICTURES, MAX_RATE = 300, 30.0  # limits of a clip: long recordings are shown whole, at a lower frame rate
SLOWED = 2  # factor by which moments of tokens are slowed down
QUALITY = 26  # constant rate factor of H.264
MARK, BORDER = (209, 96, 61), 6  # colour and width in pixels of the frame during a token
LETTERS = list("bcdfghjkmnpqrstvwxz")  # they spell no words, and nothing that a spreadsheet reads as a number


@dataclass
class RatingSheetArguments:
    """What is rated, and by how many raters."""

    study: Literal["explanations", "events", "tokens"] = field(metadata={"help": "which questions raters answer"})
    items: list[str] = field(
        metadata={
            "help": "systems to compare, ours first, as NAME=PATH or PATH: files of JSON lines or CSV; for tokens, folders "
            "that encode_actions.py wrote"
        }
    )
    output_dir: str = field(metadata={"help": "folder for key.json and sheets/"})
    raters: int = field(
        default=10, metadata={"help": "number of sheets; with a higher number later, existing sheets stay the same"}
    )
    count: int = field(default=200, metadata={"help": "maximum number of recordings, or of codes from each folder"})
    seed: int = field(default=0, metadata={"help": "seed of the drawn recordings and codes, and of the orders"})
    text: str = field(
        default="text", metadata={"help": "field of a line with the text that is rated: text, description, …"}
    )
    size: int = field(default=256, metadata={"help": "longer side of a clip in pixels"})


@dataclass
class MomentArguments:
    """Moments of the study `tokens`."""

    split: str = field(default="test", metadata={"help": "split of the moments of tokens: test, held_out or train"})
    moments: int = field(default=4, metadata={"help": "moments of each token, from different recordings"})
    context: float = field(default=0.3, metadata={"help": "seconds shown before and after a moment of a token"})
    controls: float = field(
        default=0.2, metadata={"help": "number of control items per code, whose moments come from different codes"}
    )


@dataclass(frozen=True)
class Moment:
    """A recording, or the part of it from `start` to `end` in seconds."""

    sample_id: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Item:
    """What a rater judges at a time. `subject` is the recording or code; items of several systems can share it."""

    system: str
    subject: str
    moments: tuple[Moment, ...]
    label: str = ""
    text: tuple[str, ...] = ()


ARGUMENTS = (RatingSheetArguments, MomentArguments, DataArguments)


def main(arguments: RatingSheetArguments, tokens: MomentArguments, data: DataArguments) -> dict:
    """Writes the sheets; returns the key."""
    import numpy as np

    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_datasets.progress import progress

    if arguments.raters < 1 or arguments.count < 1:
        raise ValueError(f"raters and count must be at least 1; got {arguments.raters} and {arguments.count}.")
    study, output = STUDIES[arguments.study], Path(arguments.output_dir)
    sources = named_sources(arguments.items)
    if arguments.study == "tokens":
        items = token_items(sources, arguments.count, tokens, arguments.seed)
    else:
        items = text_items(sources, arguments)
    digest = hashlib.blake2b(repr((arguments.study, arguments.seed, items)).encode(), digest_size=8).hexdigest()
    generator = np.random.default_rng(int(digest, 16))
    moments = sorted({moment for item in items for moment in item.moments}, key=repr)
    names = random_names(len(items) + len(moments), generator)
    item_names, clip_names = (
        dict(zip(names, items, strict=False)),
        dict(zip(moments, names[len(items) :], strict=True)),
    )

    raters = [f"rater_{number:02d}" for number in range(1, arguments.raters + 1)]
    key = {
        "study": arguments.study,
        "digest": digest,
        "seed": arguments.seed,
        "systems": list(dict.fromkeys(item.system for item in items)),
        "raters": raters,
        "items": {name: asdict(item) | {"asked": asked(study, item)} for name, item in sorted(item_names.items())},
    }
    path = output / "key.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8"))["digest"] != digest:
        raise ValueError(f"{output} contains the sheets of other items: choose another --output_dir.")

    recordings = Recordings(data)
    if recordings.modality == "skeletons":
        study = replace(study, instruction=f"{study.instruction} {SKELETONS}")
    clips = {
        clip_names[moment]: base64.b64encode(recordings.clip(moment, arguments.size, tokens.context)).decode()
        for moment in progress(moments, "drawing", "clips")
    }
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    for number, rater in enumerate(raters, start=1):
        order = rater_order(item_names, np.random.default_rng([int(digest, 16), number]))
        sheet = sheet_of(study, digest, rater, order, item_names, clip_names, clips)
        # In a script, "</script>" in a text would end the element.
        page = template.replace("{{study}}", json.dumps(sheet, ensure_ascii=False).replace("<", "\\u003c"))
        write_atomically(output / "sheets" / f"{rater}.html", page)
        write_atomically(output / "sheets" / f"{rater}.csv", "\ufeff" + empty_sheet(sheet))
    write_atomically(path, json.dumps(key, indent=1, ensure_ascii=False) + "\n")
    logger.info(
        "%d items of %s for %d raters, %.1f MB each, in %s; keep %s from the raters",
        len(items), " and ".join(key["systems"]), len(raters), len(page) / 1e6, output / "sheets", path,
    )  # fmt: skip
    return key


def named_sources(items: list[str]) -> dict[str, Path]:
    """Name of a system → its path; raises `ValueError` if two systems have the same name."""
    sources = {}
    for item in items:
        name, _, path = item.rpartition("=")
        name = name or Path(path).stem
        if name in sources or name == CONTROL:
            raise ValueError(f"--items {item}: the name {name!r} is already in use; choose another, as NAME=PATH.")
        sources[name] = Path(path)
    return sources


def read_predictions(path: Path, system: str) -> dict[str, dict]:
    """Sample id → entry of a CSV file of predictions, from the column named like the system, or else from `prediction`.

    Raises:
        RatingFileError: if a column or a prediction is missing, or a recording occurs twice.
    """
    entries = {}
    with open(path, encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        column = system if system in (table.fieldnames or ()) else "prediction"
        for name in ("sample_id", column):
            if name not in (table.fieldnames or ()):
                raise RatingFileError(
                    path, 1, "header", ", ".join(table.fieldnames or ()), f"{name!r} among the columns"
                )
        for row in table:
            if row["sample_id"] in entries:
                found = f"{row['sample_id']!r} again"
                raise RatingFileError(path, table.line_num, "sample_id", found, "each recording once")
            if not (row[column] or "").strip():
                raise RatingFileError(path, table.line_num, column, "nothing", "the name of a class")
            entries[row["sample_id"]] = {"sample_id": row["sample_id"], "label": row[column]}
    return entries


def read_lines(path: Path, with_label: bool, text: str | None) -> dict[str, dict]:
    """Sample id → entry of a file of JSON lines.

    Args:
        path: the file.
        with_label: whether entries need a `label`.
        text: name of the text field that entries need, if any.

    Raises:
        RatingFileError: if a line is not JSON, a field is missing, or a recording occurs twice.
    """
    entries = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise RatingFileError(path, number, "line", repr(line[:40]), "JSON") from error
        needed = ["sample_id", *(["label"] if with_label else []), *([text] if text else [])]
        for name in needed:
            value = entry.get(name) if isinstance(entry, dict) else None
            if not isinstance(value, str) or not value.strip():
                raise RatingFileError(path, number, name, json.dumps(value), "text")
        if entry["sample_id"] in entries:
            raise RatingFileError(path, number, "sample_id", f"{entry['sample_id']!r} again", "each recording once")
        entries[entry["sample_id"]] = entry
    return entries


def text_items(sources: dict[str, Path], arguments: RatingSheetArguments) -> list[Item]:
    """Items of recordings that are drawn from those that all systems have in common.

    Raises:
        ValueError: if no entry has the text field, or the systems have no recording in common.
    """
    import numpy as np

    with_label = arguments.study == "explanations"
    lines = {
        name: read_predictions(path, name)
        if with_label and path.suffix == ".csv"
        else read_lines(path, with_label, None if with_label else arguments.text)
        for name, path in sources.items()
    }
    if not any(entry.get(arguments.text) for entries in lines.values() for entry in entries.values()):
        raise ValueError(
            f"no line of {', '.join(map(str, sources.values()))} has the field {arguments.text!r}: set --text."
        )
    common = sorted(set.intersection(*(set(entries) for entries in lines.values())))
    if not common:
        raise ValueError(f"{', '.join(map(str, sources.values()))} have no recording in common.")
    chosen = np.random.default_rng(arguments.seed).permutation(common)[: arguments.count].tolist()
    logger.info("%d of the %d recordings that all systems have in common", len(chosen), len(common))
    return [
        Item(
            name,
            sample_id,
            (Moment(sample_id),),
            entries[sample_id]["label"] if with_label else "",
            tuple(
                line.strip() for line in (entries[sample_id].get(arguments.text) or "").splitlines() if line.strip()
            ),
        )
        for sample_id in chosen
        for name, entries in lines.items()
    ]


def token_items(sources: dict[str, Path], count: int, tokens: MomentArguments, seed: int) -> list[Item]:
    """Items of codes, and controls, whose moments are of different codes.

    Raises:
        ValueError: if too few codes occur in enough recordings, or a setting is out of range.
    """
    import numpy as np

    from action_llm.action_sentence import first_tokens
    from action_llm_recipes.common.action_sentences import load_action_sentences, select_split

    if tokens.moments < 2 or tokens.context < 0 or tokens.controls < 0:
        raise ValueError("moments must be at least 2, context and controls at least 0.")
    generator, items = np.random.default_rng(seed), []
    for name, folder in sources.items():
        moments_of: dict[int, dict[str, list[Moment]]] = {}
        for row in select_split(load_action_sentences(folder), tokens.split):
            codes = first_tokens(row["action_ids"]).tolist()
            for code, start, end in zip(codes, row["start_times"], row["end_times"], strict=True):
                moment = Moment(row["sample_id"], round(start, 4), round(end, 4))
                moments_of.setdefault(code, {}).setdefault(row["sample_id"], []).append(moment)
        codes = sorted(code for code, by_recording in moments_of.items() if len(by_recording) >= tokens.moments)
        if len(codes) < tokens.moments:
            raise ValueError(
                f"{folder}: {len(codes)} codes occur in {tokens.moments} recordings or more of {tokens.split}; expected at "
                f"least {tokens.moments}: choose fewer --moments."
            )
        chosen = generator.permutation(codes)[:count].tolist()
        logger.info(
            "%d of the %d codes of %s that occur in at least %d recordings",
            len(chosen),
            len(codes),
            name,
            tokens.moments,
        )
        for code in chosen:
            items.append(Item(name, f"{name} {code}", draw_moments([moments_of[code]] * tokens.moments, generator)))
        for number in range(round(tokens.controls * len(chosen))):
            drawn = generator.permutation(codes)[: tokens.moments].tolist()
            moments = draw_moments([moments_of[code] for code in drawn], generator)
            items.append(Item(CONTROL, f"{name} {CONTROL} {number}", moments))
    return items


def draw_moments(moments_of: list[dict[str, list[Moment]]], generator) -> tuple[Moment, ...]:
    """Draws a moment of each code, all from different recordings.

    Args:
        moments_of: for each code, its moments by recording.
    """
    moments, used = [], set()
    for by_recording in moments_of:
        sample_id = generator.choice(sorted(set(by_recording) - used))
        used.add(sample_id)
        moments.append(by_recording[sample_id][generator.integers(len(by_recording[sample_id]))])
    return tuple(moments)


def asked(study, item: Item) -> list[str]:
    """Names of the scales that are asked for an item; those about the text only if it has one."""
    return [scale.name for scale in study.scales if item.text or not scale.of_text]


def random_names(count: int, generator) -> list[str]:
    """Different random words of seven letters."""
    names: dict[str, None] = {}
    while len(names) < count:
        names["".join(generator.choice(LETTERS, 7))] = None
    return list(names)


def rater_order(items: dict[str, Item], generator) -> list[str]:
    """Names of items in random order, in rounds: each round shows every subject with items left, by a random system."""
    left: dict[str, list[str]] = {}
    for name in generator.permutation(list(items)).tolist():
        left.setdefault(items[name].subject, []).append(name)
    order: list[str] = []
    while left:
        subjects = generator.permutation(list(left)).tolist()
        if order and len(subjects) > 1 and subjects[0] == items[order[-1]].subject:
            subjects.append(subjects.pop(0))
        order += [left[subject].pop() for subject in subjects]
        left = {subject: names for subject, names in left.items() if names}
    return order


def sheet_of(study, digest: str, rater: str, order: list[str], items, clip_names, clips) -> dict:
    """The data of a rater's page."""
    shown = [
        {
            "id": name,
            "clips": [clip_names[moment] for moment in items[name].moments],
            "asked": asked(study, items[name]),
            "label": items[name].label,
            "text": items[name].text,
        }
        for name in order
    ]
    return {
        "rater": rater,
        "digest": digest,
        **{name: getattr(study, name) for name in ("title", "instruction", "label_heading", "text_heading")},
        "scales": [asdict(scale) | {"answers": scale.answers} for scale in study.scales],
        "columns": columns(study),
        "not_asked": NOT_ASKED,
        "items": shown,
        "clips": {clip: clips[clip] for item in shown for clip in item["clips"]},
    }


def columns(study) -> list[str]:
    """Columns of a sheet."""
    return ["rater", "number", "item", *(scale.name for scale in study.scales), "comment"]


def empty_sheet(sheet: dict) -> str:
    """CSV text to fill in by hand; items have the same numbers as on the page."""
    from action_llm_recipes.common.csv_tables import to_csv

    return to_csv(
        {"rater": sheet["rater"], "number": number, "item": item["id"]}
        | {scale["name"]: "" if scale["name"] in item["asked"] else NOT_ASKED for scale in sheet["scales"]}
        | {"comment": ""}
        for number, item in enumerate(sheet["items"], start=1)
    )


class Recordings:
    """Draws the recordings of a data set as small videos."""

    def __init__(self, data: DataArguments):
        self.modality = "videos" if data.is_video else "skeletons"
        self._folder = data.data_dir
        self._splits = data.load(self.modality).with_format("numpy")
        self._places = {
            sample_id: (split, index)
            for split, rows in self._splits.items()
            for index, sample_id in enumerate(rows["sample_id"])
        }
        self._dataset = data.protocol()

    def clip(self, moment: Moment, size: int, context: float) -> bytes:
        """An MP4 file (H.264) without sound and metadata. A moment is slowed down and has `context` seconds around it.

        Raises:
            ValueError: if the data set has no such recording.
        """
        import tempfile

        import numpy as np

        from action_llm_datasets.rendering import write_video

        if moment.sample_id not in self._places:
            raise ValueError(
                f"{self._dataset} has no recording {moment.sample_id!r}: set --dataset to that of --items."
            )
        split, index = self._places[moment.sample_id]
        row = self._splits[split][index]
        read, fps, seconds = (self._video if self.modality == "videos" else self._skeleton)(row, size)
        begin, end = 0.0, seconds
        if moment.start is not None:
            begin, end = max(0.0, moment.start - context), min(seconds, moment.end + context)
        rate = min(fps, MAX_RATE, MAX_PICTURES / (end - begin))
        times = begin + np.arange(max(1, round((end - begin) * rate))) / rate
        pictures = read(times)
        if moment.start is not None:
            rate /= SLOWED
            during = (times > moment.start - 1e-3) & (times < moment.end - 1e-3)
            for edge in (np.s_[:, :BORDER], np.s_[:, -BORDER:], np.s_[:, :, :BORDER], np.s_[:, :, -BORDER:]):
                pictures[edge] = np.where(during[:, None, None, None], MARK, pictures[edge])
        with tempfile.TemporaryDirectory() as folder:
            write_video(Path(folder, "clip.mp4"), [pictures], rate, quality=QUALITY)
            return Path(folder, "clip.mp4").read_bytes()

    def _skeleton(self, row, size: int):
        import numpy as np

        from action_llm.skeleton_bodies import Cleaning, select_actors, valid_joints
        from action_llm_datasets.rendering import render_frames

        keypoints, fps = np.reshape(row["keypoints"], row["shape"]), float(row["fps"])
        if not row["cleaned"]:
            valid = valid_joints(keypoints, (keypoints != 0).any(axis=(2, 3)))
            actors, _ = select_actors(keypoints, valid, Cleaning())
            people = keypoints[np.arange(len(actors))[:, None], actors]
            keypoints = np.where((actors >= 0)[..., None, None], people, 0)

        def read(times):
            frames = np.floor(times * fps + 1e-3).astype(int).clip(0, len(keypoints) - 1)
            side = size // 2 * 2
            return render_frames(keypoints[frames], str(row["layout"]), size=(side, side)).copy()

        return read, fps, len(keypoints) / fps

    def _video(self, row, size: int):
        from action_llm.video_files import open_video
        from action_llm_datasets.videos import open_row

        def read(times):
            with open_row(self._folder, row) as opened, open_video(opened) as video:
                height, width = video.frames_at([0.0]).shape[1:3]
                scale = min(1.0, size / max(height, width))
                # H.264 with half the colour resolution needs even sides.
                return video.frames_at(times, tuple(max(2, round(side * scale / 2) * 2) for side in (height, width)))

        return read, float(row["video_fps"]), float(row["seconds"])


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
