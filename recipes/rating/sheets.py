"""
Blinded sheets for human raters: LVLM-VAR, Table 3 and Figure 1 (the consistency score); VT-LVLM-AR, Table III.

```bash
python recipes/rating/sheets.py --study explanations --items ours=runs/mine/explanations/explanations.jsonl baseline.jsonl \\
    --dataset utd-mhad --data_dir UTD-MHAD/Skeleton --output_dir runs/mine/rating
```

`sheets/` is for the raters: each has a page that needs nothing but a browser, with the clips in it, and the same as CSV to be
filled in by hand. `key.json` says which item is what: it stays with whoever leads the study, for `rating/report.py`.

- `explanations`: does the label fit, and is the explanation coherent, accurate, helpful? A line of a file is a recording:
  `sample_id`, `label` and the explanation, which a baseline may lack. What `explain_actions.py` writes serves as it is; of a
  baseline the predictions.csv of `evaluate_classifier.py`, or of `baselines/run_baselines.py` with the column as its name
  (`graph-0=runs/baselines/predictions.csv`).
- `events`: is the description of what happens coherent and meaningful? Of each line, `sample_id` and the description, an event
  a line of text; beside ours that of the baseline (tokens of features at regular times).
- `tokens`: do the moments at which a code occurs show the same? Codes are drawn evenly from those that occur in enough
  recordings of what `encode_actions.py` wrote. Between them are controls: moments of as many different codes.

A rater sees clips, predicted labels and texts, and nothing else of a file; names of items mean nothing. Every rater gets every
item, in an order of their own, in which a recording comes back only after all others were shown once. An explanation is shown
once the label was judged. Equal arguments give equal files.
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
MAX_PICTURES, MAX_RATE = 300, 30.0  # of a clip: long recordings have fewer pictures a second, and are shown whole
SLOWED = 2  # moments of tokens
QUALITY = 26  # of H.264
MARK, BORDER = (209, 96, 61), 6  # colour and pixels of the frame while a token lasts
LETTERS = list("bcdfghjkmnpqrstvwxz")  # no words, and nothing that a spreadsheet takes for a number


@dataclass
class RatingSheetArguments:
    """What is rated, and by how many."""

    study: Literal["explanations", "events", "tokens"] = field(metadata={"help": "what raters are asked"})
    items: list[str] = field(
        metadata={
            "help": "what is compared, ours first, as NAME=PATH or PATH: files of JSON lines, a recording each; tokens: "
            "folders that encode_actions.py wrote"
        }
    )
    output_dir: str = field(metadata={"help": "folder for key.json and sheets/"})
    raters: int = field(default=10, metadata={"help": "sheets; more can be made later, those that are there stay"})
    count: int = field(default=200, metadata={"help": "recordings, at most, or codes of each folder"})
    seed: int = field(default=0, metadata={"help": "seed of what is drawn, and of the orders"})
    text: str = field(default="text", metadata={"help": "field of a line that is shown: text, description, …"})
    size: int = field(default=256, metadata={"help": "longer side of a clip in pixels"})


@dataclass
class MomentArguments:
    """Moments of tokens."""

    split: str = field(default="test", metadata={"help": "tokens: test, held_out or train"})
    moments: int = field(default=4, metadata={"help": "tokens: moments of an item, all of different recordings"})
    context: float = field(default=0.3, metadata={"help": "tokens: seconds that are shown before and after a moment"})
    controls: float = field(default=0.2, metadata={"help": "tokens: controls for each code"})


@dataclass(frozen=True)
class Moment:
    """A recording, or from `start` to `end` (seconds) of it."""

    sample_id: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Item:
    """What is judged at a time; `subject`, which recording or code it is about, is what systems have in common."""

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
    moments = sorted({one for item in items for one in item.moments}, key=repr)
    names = meaningless_names(len(items) + len(moments), generator)
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
        raise ValueError(f"{output} holds the sheets of other items: choose another --output_dir.")

    recordings = Recordings(data)
    if recordings.kind == "skeletons":
        study = replace(study, instruction=f"{study.instruction} {SKELETONS}")
    clips = {
        clip_names[moment]: base64.b64encode(recordings.clip(moment, arguments.size, tokens.context)).decode()
        for moment in progress(moments, "drawing", "clips")
    }
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    for number, rater in enumerate(raters, start=1):
        order = rater_order(item_names, np.random.default_rng([int(digest, 16), number]))
        shown = sheet_of(study, digest, rater, order, item_names, clip_names, clips)
        # Within a script, "<" could begin a tag.
        page = template.replace("{{study}}", json.dumps(shown, ensure_ascii=False).replace("<", "\\u003c"))
        write_atomically(output / "sheets" / f"{rater}.html", page)
        write_atomically(output / "sheets" / f"{rater}.csv", "\ufeff" + empty_sheet(shown))
    write_atomically(path, json.dumps(key, indent=1, ensure_ascii=False) + "\n")
    logger.info(
        "%d items of %s for %d raters, %.1f MB each, in %s; %s is not for them",
        len(items), " and ".join(key["systems"]), len(raters), len(page) / 1e6, output / "sheets", path,
    )  # fmt: skip
    return key


def named_sources(items: list[str]) -> dict[str, Path]:
    """Name of a system → its file; raises `ValueError` for two of one name."""
    sources = {}
    for one in items:
        name, _, path = one.rpartition("=")
        name = name or Path(path).stem
        if name in sources or name == CONTROL:
            raise ValueError(f"--items {one}: there is already a {name!r}; give it another name, as NAME=PATH.")
        sources[name] = Path(path)
    return sources


def read_predictions(path: Path, system: str) -> dict[str, dict]:
    """Sample id → line, of a table of predictions: those of the column named as the system is, or of `prediction`."""
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
                raise RatingFileError(path, table.line_num, "sample_id", found, "a recording once")
            if not (row[column] or "").strip():
                raise RatingFileError(path, table.line_num, column, "nothing", "the name of a class")
            entries[row["sample_id"]] = {"sample_id": row["sample_id"], "label": row[column]}
    return entries


def read_lines(path: Path, with_label: bool, text: str | None) -> dict[str, dict]:
    """Sample id → line. `RatingFileError` for lines that are none, a recording twice, and fields that are missing."""
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
            raise RatingFileError(path, number, "sample_id", f"{entry['sample_id']!r} again", "a recording once")
        entries[entry["sample_id"]] = entry
    return entries


def text_items(sources: dict[str, Path], arguments: RatingSheetArguments) -> list[Item]:
    """Items of recordings drawn from those that every system has."""
    import numpy as np

    with_label = arguments.study == "explanations"
    lines = {
        name: read_predictions(path, name)
        if with_label and path.suffix == ".csv"
        else read_lines(path, with_label, None if with_label else arguments.text)
        for name, path in sources.items()
    }
    if not any(entry.get(arguments.text) for entries in lines.values() for entry in entries.values()):
        raise ValueError(f"no line of {', '.join(map(str, sources.values()))} has {arguments.text!r}.")
    common = sorted(set.intersection(*(set(entries) for entries in lines.values())))
    if not common:
        raise ValueError(f"{', '.join(map(str, sources.values()))} have no recording in common.")
    chosen = np.random.default_rng(arguments.seed).permutation(common)[: arguments.count].tolist()
    logger.info("%d of the %d recordings that every system has", len(chosen), len(common))
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
    """Items of codes, and controls, whose moments are of as many codes that are drawn from the same ones."""
    import numpy as np

    from action_llm.action_sentence import first_tokens
    from action_llm_recipes.common.action_sentences import load_action_sentences, select_split

    if tokens.moments < 2 or tokens.context < 0 or tokens.controls < 0:
        raise ValueError("moments must be at least 2, context and controls at least 0.")
    generator, items = np.random.default_rng(seed), []
    for name, folder in sources.items():
        places: dict[int, dict[str, list[Moment]]] = {}
        for row in select_split(load_action_sentences(folder), tokens.split):
            codes = first_tokens(row["action_ids"]).tolist()
            for code, start, end in zip(codes, row["start_times"], row["end_times"], strict=True):
                moment = Moment(row["sample_id"], round(start, 4), round(end, 4))
                places.setdefault(code, {}).setdefault(row["sample_id"], []).append(moment)
        codes = sorted(code for code, found in places.items() if len(found) >= tokens.moments)
        if len(codes) < tokens.moments:
            raise ValueError(
                f"{folder}: {len(codes)} codes occur in {tokens.moments} recordings or more of {tokens.split}; expected at "
                f"least {tokens.moments}: choose fewer --moments."
            )
        chosen = generator.permutation(codes)[:count].tolist()
        logger.info(
            "%d of the %d codes of %s that occur in %d recordings", len(chosen), len(codes), name, tokens.moments
        )
        for code in chosen:
            items.append(Item(name, f"{name} {code}", draw_moments([places[code]] * tokens.moments, generator)))
        for number in range(round(tokens.controls * len(chosen))):
            drawn = generator.permutation(codes)[: tokens.moments].tolist()
            moments = draw_moments([places[code] for code in drawn], generator)
            items.append(Item(CONTROL, f"{name} {CONTROL} {number}", moments))
    return items


def draw_moments(places: list[dict[str, list[Moment]]], generator) -> tuple[Moment, ...]:
    """One moment of each code, given by recording, all of different recordings."""
    moments, used = [], set()
    for found in places:
        sample_id = generator.choice(sorted(set(found) - used))
        used.add(sample_id)
        moments.append(found[sample_id][generator.integers(len(found[sample_id]))])
    return tuple(moments)


def asked(study, item: Item) -> list[str]:
    """Names of the scales of an item: those of the text where it has one."""
    return [scale.name for scale in study.scales if item.text or not scale.of_text]


def meaningless_names(count: int, generator) -> list[str]:
    """Different words of seven letters."""
    names: dict[str, None] = {}
    while len(names) < count:
        names["".join(generator.choice(LETTERS, 7))] = None
    return list(names)


def rater_order(items: dict[str, Item], generator) -> list[str]:
    """Names of items, shuffled, in rounds: each shows every subject that has items left, by a system that is drawn."""
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
    """What the page of a rater knows."""
    shown = []
    for name in order:
        item = items[name]
        of_item = {"id": name, "clips": [clip_names[one] for one in item.moments], "asked": asked(study, item)}
        shown.append(of_item | {"label": item.label, "text": item.text})
    return {
        "rater": rater,
        "digest": digest,
        **{name: getattr(study, name) for name in ("title", "instruction", "label_heading", "text_heading")},
        "scales": [asdict(scale) | {"answers": scale.answers} for scale in study.scales],
        "columns": columns(study),
        "not_asked": NOT_ASKED,
        "items": shown,
        "clips": {clip: clips[clip] for of_item in shown for clip in of_item["clips"]},
    }


def columns(study) -> list[str]:
    """Of a sheet."""
    return ["rater", "number", "item", *(scale.name for scale in study.scales), "comment"]


def empty_sheet(shown: dict) -> str:
    """The CSV that is filled in by hand; the number of an item is that on the page."""
    from action_llm_recipes.common.csv_tables import to_csv

    return to_csv(
        {"rater": shown["rater"], "number": number, "item": item["id"]}
        | {scale["name"]: "" if scale["name"] in item["asked"] else NOT_ASKED for scale in shown["scales"]}
        | {"comment": ""}
        for number, item in enumerate(shown["items"], start=1)
    )


class Recordings:
    """The recordings of a data set by their sample ids, as small videos."""

    def __init__(self, data: DataArguments):
        self.kind = "videos" if "video" in data.dataset else "skeletons"
        self._folder = data.data_dir
        self._splits = data.load(self.kind).with_format("numpy")
        self._places = {
            sample_id: (split, index)
            for split, rows in self._splits.items()
            for index, sample_id in enumerate(rows["sample_id"])
        }
        self._dataset = data.dataset

    def clip(self, moment: Moment, size: int, context: float) -> bytes:
        """H.264 in mp4, without sound and without a word of where it is from; of a moment with what is around it, slowed."""
        import tempfile

        import numpy as np

        from action_llm_datasets.rendering import write_video

        if moment.sample_id not in self._places:
            raise ValueError(f"{self._dataset} has no recording {moment.sample_id!r}.")
        split, index = self._places[moment.sample_id]
        row = self._splits[split][index]
        read, fps, seconds = (self._video if self.kind == "videos" else self._skeleton)(row, size)
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
                # H.264 halves the colours: even sides.
                return video.frames_at(times, tuple(max(2, round(side * scale / 2) * 2) for side in (height, width)))

        return read, float(row["video_fps"]), float(row["seconds"])


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
