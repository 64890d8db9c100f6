"""
Write the lexicon of an action model: what each token looks like, when it occurs, and in which classes it is frequent.

```bash
python recipes/token_lexicon.py --tokenizer runs/utd_mhad/tokenizer/model --sentences runs/utd_mhad/sentences \\
    --output_dir runs/utd_mhad/lexicon
python recipes/token_lexicon.py --tokenizer runs/video/tokenizer/model --sentences runs/video/sentences \\
    --data_dir UTD-MHAD/Depth --output_dir runs/video/lexicon
```

Occurrences are counted in the training sentences, without augmented versions. For skeletons, each code is decoded into motion,
which is drawn and described. For videos, give `--data_dir`: what moves in the occurrences of a token, where and which way, is
measured in the frames, and said as far as at least half of the occurrences agree. The page shows the first and the last frame
of a few occurrences. The recipe writes `lexicon.json` and `index.html`, which shows the most frequent tokens first.
"""

import html
import json
import logging
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.records import read_written
from action_llm_recipes.common.setting_checks import check_at_least_one
from action_llm_recipes.common.written_folders import check_model_folder, check_written_folder

logger = logging.getLogger(__name__)

FRAME_HEIGHT, GAP = 72, 4  # pixels of a frame, and between two frames
CONTEXT = 3  # copies of a code that are decoded in a row; the middle copy is shown


@dataclass
class LexiconArguments:
    """The action model, its sentences, and the folder of the lexicon."""

    tokenizer: str = field(metadata={"help": "folder of a trained action model"})
    sentences: str = field(metadata={"help": "folder that encode_actions.py wrote with it"})
    output_dir: str = field(metadata={"help": "folder for lexicon.json, index.html and its pictures"})
    data_dir: str | None = field(
        default=None, metadata={"help": "folder of the videos, to measure what moves and to show frames"}
    )
    occurrences: int = field(
        default=12,
        metadata={
            "help": "maximum number of occurrences in which the motion of a token is measured, of different videos"
        },
    )
    shown: int = field(default=60, metadata={"help": "number of tokens on the page"})

    def __post_init__(self):
        check_model_folder(self.tokenizer)
        check_written_folder(self.sentences, "encode_actions.py")
        check_at_least_one(self, "occurrences", "shown")


ARGUMENTS = (LexiconArguments,)


@writes_output_dir
def main(arguments: LexiconArguments) -> list:
    """Writes the lexicon; returns its entries (`TokenEntry`)."""
    from transformers import AutoModel

    from action_llm.processing_action_llm import load_feature_extractor
    from action_llm.token_lexicon import build_lexicon
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_recipes.common.action_sentences import first_encodings, load_action_sentences
    from action_llm_recipes.common.fingerprints import weights_fingerprint
    from action_llm_recipes.common.run_folder import RunFolder

    run = RunFolder(arguments.output_dir)
    model = AutoModel.from_pretrained(arguments.tokenizer, trust_remote_code=False).eval()
    extractor = load_feature_extractor(arguments.tokenizer)
    identity = read_written(arguments.sentences, "identity.json", "encode_actions.py", "weights", "dataset")
    if identity["weights"] != weights_fingerprint(model):
        raise ValueError(f"{arguments.sentences} was not written by the action model in {arguments.tokenizer}.")
    rows = first_encodings(load_action_sentences(arguments.sentences)["train"])
    entries = build_lexicon(rows, rows.features["label"].names, model.config.num_action_tokens)
    shown = most_frequent(entries[: model.config.codebook_size], arguments.shown)
    motions_picture = None
    if model.config.model_type == "action_vqvae":
        motions_picture = "tokens.png"
        motions = decoded_motions(model, extractor)
        describe_motions(entries, motions, extractor)
        draw_motions(shown, motions, extractor.skeleton_layout, run.path / motions_picture)
    with_frames = model.main_input_name == "pixel_values" and arguments.data_dir is not None
    if with_frames:
        videos = OccurrenceVideos(DataArguments(dataset=identity["dataset"], data_dir=arguments.data_dir))
        measure_occurrences(entries[: model.config.codebook_size], rows, videos, arguments.occurrences)
        draw_frames(shown, videos, run.path)
    content = [entry.to_dict() for entry in entries]
    write_atomically(run.path / "lexicon.json", json.dumps(content, ensure_ascii=False) + "\n")
    write_atomically(run.path / "index.html", _page(shown, motions_picture, with_frames, len(rows)))
    used = sum(entry.count > 0 for entry in entries)
    run.log_finished("Lexicon", f"{used} of {len(entries)} tokens are used")
    logger.info("  in %s", run.path / "index.html")
    return entries


def most_frequent(entries: list, count: int) -> list:
    """
    The most frequent tokens, without those that never occur.

    Args:
        entries: of the first codebook. What a token of a further codebook looks like depends on the tokens before it in a word.
        count: maximum number of tokens.
    """
    return [entry for entry in sorted(entries, key=lambda entry: -entry.count)[:count] if entry.count]


def decoded_motions(model, extractor):
    """The motion of the first person for each code of the first codebook: (codes, frames, joints, coordinates), in the units of
    the features."""
    import torch

    with torch.no_grad():
        codes = model.codebook[: model.config.codebook_size, None].expand(-1, CONTEXT, -1)
        features = model.decode(action_embeds=codes).numpy()
    frames = model.config.frames_per_token
    middle = features[:, frames * (CONTEXT // 2) : frames * (CONTEXT // 2 + 1)]
    people = middle.reshape(len(middle), frames, extractor.num_persons, -1, extractor.coordinates)
    return people[:, :, 0]


def describe_motions(entries, motions, extractor):
    """Sets the description of each code, from its motion. Only features that are scaled by the torso can be described."""
    from action_llm.motion_narration import describe_moment

    if extractor.scale != "torso":
        return
    for entry, motion in zip(entries[: len(motions)], motions, strict=True):
        entry.description = describe_moment(motion, extractor.skeleton_layout)


def draw_motions(entries, motions, layout, path: Path):
    """Draws the motions of tokens as a contact sheet of skeletons, a row per token."""
    import numpy as np

    from action_llm_datasets.rendering import SheetRow, contact_sheet, write_png

    rows = [
        # Joints at 0 would count as missing.
        SheetRow(np.where(motions[entry.action_id] == 0, 1e-9, motions[entry.action_id]), f"<act_{entry.action_id}>")
        for entry in entries
    ]
    write_png(path, contact_sheet(rows, layout, columns=4, size=(110, 110)))


class OccurrenceVideos:
    """The training videos of a data set, opened by the names of recordings or of windows of long videos."""

    def __init__(self, data: DataArguments):
        if data.dataset == "features":
            raise ValueError(
                "the sentences do not name their data set, as an older version wrote them: run encode_actions.py again."
            )
        self.data_dir, self.rows = data.data_dir, data.load("videos")["train"]
        self.index_of = {sample_id: index for index, sample_id in enumerate(self.rows["sample_id"])}

    @contextmanager
    def opened(self, sample_id: str):
        """The video of a recording, and the second at which the recording starts in it."""
        from action_llm.video_files import open_video
        from action_llm_datasets.videos import open_row
        from action_llm_recipes.common.video_windows import video_of_window

        # The times of a window of a long video are relative to its start.
        name, offset = (sample_id, 0.0) if sample_id in self.index_of else video_of_window(sample_id)
        with open_row(self.data_dir, self.rows[self.index_of[name]]) as file, open_video(file) as video:
            yield video, offset


def measure_occurrences(entries, rows, videos: OccurrenceVideos, count: int):
    """
    Describes each token of videos by what moves in its occurrences, as far as they agree.

    Args:
        entries: of the first codebook; `description`, `measured` and `agreement` are set.
        rows: training sentences.
        videos: of the recordings.
        count: maximum number of occurrences of a token, of different recordings, evenly spread over them.
    """
    import numpy as np

    from action_llm.video_motion import describe_motions, measure_motion
    from action_llm_datasets.progress import progress

    first_in = [{} for _ in entries]  # token → recording → its first occurrence there
    for row in rows:
        words = np.asarray(row["action_ids"])
        tokens = words if words.ndim == 1 else words[:, 0]
        for token, start, end in zip(tokens.tolist(), row["start_times"], row["end_times"], strict=True):
            first_in[token].setdefault(row["sample_id"], (start, end))
    # By recording, so that each video is opened once.
    chosen: dict[str, list] = defaultdict(list)
    for token, places in enumerate(first_in):
        recordings = list(places)
        for index in np.unique(np.linspace(0, len(recordings) - 1, min(count, len(recordings))).round().astype(int)):
            chosen[recordings[index]].append((token, *places[recordings[index]]))
    motions = [[] for _ in entries]
    for sample_id, occurrences in progress(chosen.items(), "measuring", "recordings"):
        with videos.opened(sample_id) as (video, offset):
            for token, start, end in occurrences:
                motions[token].append(measure_motion(video, offset + start, offset + end))
    for entry, measured in zip(entries, motions, strict=True):
        if measured:
            entry.measured = len(measured)
            entry.description, entry.agreement = describe_motions(measured)


def draw_frames(entries, videos: OccurrenceVideos, folder: Path):
    """Writes act_<id>.png for each token: the first and the last frame of each example, side by side."""
    import numpy as np

    from action_llm_datasets.rendering import write_png

    for entry in entries:
        strip = []
        for sample_id, start, end in entry.examples:
            with videos.opened(sample_id) as (video, offset):
                height, width = video.picture_size()
                size = (FRAME_HEIGHT, round(FRAME_HEIGHT * width / height))
                last = offset + max(start, end - 0.5 / video.info.fps)
                strip.extend(video.frames_at([offset + start, last], size))
                # Between frames of different recordings is a gap.
                strip.append(np.full((FRAME_HEIGHT, GAP, 3), 255, np.uint8))
        write_png(folder / f"act_{entry.action_id}.png", np.concatenate(strip[:-1], axis=1))


def _page(entries, motions_picture: str | None, with_frames: bool, num_sentences: int) -> str:
    lines = []
    for entry in entries:
        classes = "<br>".join(f"{html.escape(name)} ({lift:.1f} ×)" for name, lift in entry.classes)
        examples = "<br>".join(
            f"{html.escape(name)}, {start:.1f} to {end:.1f} s" for name, start, end in entry.examples
        )
        looks = html.escape(entry.description)
        if with_frames:
            said = f"the {entry.measured} measured occurrences differ"
            if entry.description:
                said = f"{looks} ({round(entry.agreement * entry.measured)} of {entry.measured})"
            looks = f'{said}<br><img src="act_{entry.action_id}.png" alt="first and last frames of occurrences">'
        lines.append(
            f"<tr><td>&lt;act_{entry.action_id}&gt;</td><td>{entry.count:,}</td><td>{looks}</td>"
            f"<td>{classes}</td><td>{entry.when:.0%}</td><td>{entry.seconds:.2f} s</td><td>{examples}</td></tr>"
        )
    measured = ""
    if with_frames:
        measured = (
            "<p>What moves is measured in the frames; in brackets, how many of the measured occurrences agree. Left and right "
            "are the viewer's. The pictures show the first and the last frame of up to four occurrences.</p>"
        )
    motions = ""
    if motions_picture is not None:
        motions = f'<h2>Decoded motions</h2><img src="{motions_picture}" alt="motions of the tokens">'
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Lexicon of action tokens</title>
<style>
 body {{ font: 14px/1.4 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; color: #23262c; }}
 td, th {{ border-bottom: 1px solid #ddd; padding: 0.3rem 0.8rem 0.3rem 0; text-align: left; vertical-align: top; }}
 table {{ border-collapse: collapse; }}
</style>
<h1>Lexicon of action tokens</h1>
<p>The {len(entries)} most frequent tokens in {num_sentences:,} training sentences. A token is typical of a class if more of the
sentences of the class contain it than of all sentences; the factor says how many times more. The position in a sentence is a
mean, from the start (0%) to the end (100%).</p>{measured}
<table>
<tr><th>token<th>count<th>what it looks like<th>typical of<th>position<th>duration<th>examples</tr>
{"".join(lines)}
</table>
{motions}
</html>
"""


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
