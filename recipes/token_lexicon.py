"""
The lexicon of an action model: what each token looks like, when it occurs, which classes it speaks for.

```bash
python recipes/token_lexicon.py --tokenizer runs/utd_mhad/tokenizer/model --sentences runs/utd_mhad/sentences \\
    --output_dir runs/utd_mhad/lexicon
python recipes/token_lexicon.py --tokenizer runs/video/tokenizer/model --sentences runs/video/sentences \\
    --data_dir UTD-MHAD/Depth --output_dir runs/video/lexicon
```

Counted on the training sentences (unaugmented ones). For skeletons, a code is decoded into motion and drawn, and its
description is measured from that; for videos, frames of recordings in which it occurs are shown, out of the middle of its
time. Writes `lexicon.json` and `index.html`, the most used tokens first.
"""

import html
import json
import logging
from dataclasses import dataclass, field

from action_llm_datasets.folder_lock import writes_output_dir
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.records import read_written
from action_llm_recipes.common.written_folders import check_model_folder, check_written_folder

logger = logging.getLogger(__name__)

FRAME_HEIGHT, GAP = 72, 4
CONTEXT = 3  # the same code so often, of which the middle one is looked at


@dataclass
class LexiconArguments:
    """Whose tokens, and where the lexicon goes."""

    tokenizer: str = field(metadata={"help": "folder of a trained action model"})
    sentences: str = field(metadata={"help": "folder that encode_actions.py wrote with it"})
    output_dir: str = field(metadata={"help": "folder for lexicon.json, index.html and its picture"})
    data_dir: str | None = field(default=None, metadata={"help": "folder of the videos, to show frames of them"})
    shown: int = field(default=60, metadata={"help": "tokens on the page"})

    def __post_init__(self):
        check_model_folder(self.tokenizer)
        check_written_folder(self.sentences, "encode_actions.py")


ARGUMENTS = (LexiconArguments,)


@writes_output_dir
def main(arguments: LexiconArguments) -> list:
    """Writes the lexicon; returns its entries."""
    import numpy as np
    from transformers import AutoModel

    from action_llm.processing_action_llm import load_feature_extractor
    from action_llm.token_lexicon import build_lexicon
    from action_llm_datasets.atomic_files import write_atomically
    from action_llm_datasets.rendering import SheetRow, contact_sheet, write_png
    from action_llm_recipes.common.action_sentences import load_action_sentences
    from action_llm_recipes.common.fingerprints import weights_fingerprint
    from action_llm_recipes.common.run_folder import RunFolder

    run = RunFolder(arguments.output_dir)
    model = AutoModel.from_pretrained(arguments.tokenizer, trust_remote_code=False).eval()
    extractor = load_feature_extractor(arguments.tokenizer)
    identity = read_written(arguments.sentences, "identity.json", "encode_actions.py", "weights", "dataset")
    if identity["weights"] != weights_fingerprint(model):
        raise ValueError(f"{arguments.sentences} was not written by the action model in {arguments.tokenizer}.")
    rows = load_action_sentences(arguments.sentences)["train"]
    rows = rows.select([index for index, encoding in enumerate(rows["encoding"]) if encoding == 0])
    names = rows.features["label"].names
    entries = build_lexicon(rows, names, model.config.num_action_tokens)
    # What tokens of further codebooks look like depends on those before them in a word.
    shown = sorted(entries[: model.config.codebook_size], key=lambda entry: -entry.count)[: arguments.shown]
    shown = [entry for entry in shown if entry.count]
    picture = ""
    if model.config.model_type == "action_vqvae":
        motions = _decode(model, extractor)
        _describe(entries, motions, extractor)
        picture = "tokens.png"
        rows_of_picture = [
            SheetRow(
                np.where(motions[entry.action_id] == 0, 1e-9, motions[entry.action_id]), f"<act_{entry.action_id}>"
            )
            for entry in shown
        ]
        sheet = contact_sheet(rows_of_picture, extractor.skeleton_layout, columns=4, size=(110, 110))
        write_png(run.path / picture, sheet)
    with_frames = model.main_input_name == "pixel_values" and arguments.data_dir is not None
    if with_frames:
        strips = _frames(shown, DataArguments(dataset=identity["dataset"], data_dir=arguments.data_dir))
        for entry, strip in zip(shown, strips, strict=True):
            write_png(run.path / f"act_{entry.action_id}.png", strip)
    content = [entry.to_dict() for entry in entries]
    write_atomically(run.path / "lexicon.json", json.dumps(content, ensure_ascii=False) + "\n")
    write_atomically(run.path / "index.html", _page(shown, picture, with_frames, len(rows)))
    used = sum(entry.count > 0 for entry in entries)
    run.log_finished("Lexicon", f"{used} of {len(entries)} tokens are used")
    logger.info("  in %s", run.path / "index.html")
    return entries


def _decode(model, extractor):
    """The motion of each code of the first codebook, one person: (codes, frames, joints, coordinates), as the features."""
    import torch

    with torch.no_grad():
        codes = model.codebook[: model.config.codebook_size, None].expand(-1, CONTEXT, -1)
        features = model.decode(action_embeds=codes).numpy()
    frames = model.config.frames_per_token
    middle = features[:, frames * (CONTEXT // 2) : frames * (CONTEXT // 2 + 1)]
    people = middle.reshape(len(middle), frames, extractor.num_persons, -1, extractor.coordinates)
    return people[:, :, 0]


def _describe(entries, motions, extractor):
    """Says what each code looks like, where the features are in torsos."""
    from action_llm.motion_narration import describe_moment

    if extractor.scale != "torso":
        return
    for entry, motion in zip(entries[: len(motions)], motions, strict=True):
        entry.description = describe_moment(motion, extractor.skeleton_layout)


def _frames(entries, data: DataArguments):
    """For each entry its examples beside each other, uint8 (FRAME_HEIGHT, width, 3)."""
    import numpy as np

    from action_llm.video_files import open_video
    from action_llm_datasets.videos import open_row
    from action_llm_recipes.common.video_windows import video_of_window

    if data.dataset == "features":
        raise ValueError(
            "the sentences do not say of which data set they are (an older version wrote them): encode again."
        )
    rows = data.load("videos")["train"]
    places = {name: number for number, name in enumerate(rows["sample_id"])}
    for entry in entries:
        strip = []
        for sample_id, start, end in entry.examples:
            # A window of a long video begins later than the video.
            name, offset = (sample_id, 0.0) if sample_id in places else video_of_window(sample_id)
            with open_row(data.data_dir, rows[places[name]]) as file, open_video(file) as video:
                height, width = video.picture_size()
                size = (FRAME_HEIGHT, round(FRAME_HEIGHT * width / height))
                strip.append(video.frames_at([offset + (start + end) / 2], size)[0])
                # They are of different recordings.
                strip.append(np.full((FRAME_HEIGHT, GAP, 3), 255, np.uint8))
        yield np.concatenate(strip[:-1], axis=1)


def _page(entries, picture: str, with_frames: bool, sentences: int) -> str:
    lines = []
    for entry in entries:
        classes = "<br>".join(f"{html.escape(name)} ({lift:.1f} ×)" for name, lift in entry.classes)
        examples = "<br>".join(
            f"{html.escape(name)}, {start:.1f} to {end:.1f} s" for name, start, end in entry.examples
        )
        looks = html.escape(entry.description)
        if with_frames:
            looks = f'<img src="act_{entry.action_id}.png" alt="frames in which it occurs">'
        lines.append(
            f"<tr><td>&lt;act_{entry.action_id}&gt;</td><td>{entry.count:,}</td><td>{looks}</td>"
            f"<td>{classes}</td><td>{entry.when:.0%}</td><td>{entry.seconds:.2f} s</td><td>{examples}</td></tr>"
        )
    shown = f'<h2>Decoded</h2><img src="{picture}" alt="what the tokens look like">' if picture else ""
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Lexicon of action tokens</title>
<style>
 body {{ font: 14px/1.4 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; color: #23262c; }}
 td, th {{ border-bottom: 1px solid #ddd; padding: 0.3rem 0.8rem 0.3rem 0; text-align: left; vertical-align: top; }}
 table {{ border-collapse: collapse; }}
</style>
<h1>Lexicon of action tokens</h1>
<p>The {len(entries)} most used, counted in {sentences:,} training sentences. A class is named where a token occurs in more of
its sentences than in those of all classes, and how many times as often; the place is the mean one in a sentence.</p>
<table><tr><th>token<th>times<th>what it looks like<th>speaks for<th>place<th>lasts<th>for example</tr>{"".join(lines)}</table>
{shown}
</html>
"""


if __name__ == "__main__":
    launch(main, *ARGUMENTS)
