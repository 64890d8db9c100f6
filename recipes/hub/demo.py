"""
A page to try a recogniser: drop a recording, see what it saw, what it decided, and why.

```bash
python recipes/hub/demo.py --model runs/quickstart/model \\
    --examples runs/quickstart/simulated_recordings/S003C001P003R001A0*.skeleton
python recipes/hub/demo.py --model me/llm-ar-simulated --examples walk.skeleton --push_to_space me/llm-ar-demo
```

Skeletons move, and can be turned; of videos, frames are shown, whatever their format. Tokens lie under the recording in time,
and a click on one shows its entry in the lexicon. `--push_to_space` makes a Space of it, private unless `--public`; examples go
along only if they are simulated.

Needs the extra `demo`: `pip install -e '.[demo]'`. A Space is this file, the player, and the package `action_llm`.
"""

import base64
import html
import io
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
PLAYER = HERE / "demo_player.html"
MAX_FRAMES, MAX_PICTURES, PICTURE_HEIGHT = 600, 120, 300
PLAYER_HEIGHT = 540
# What a visitor can ask for: the size of a file, classes and the characters of all of them, and visitors who wait.
MAX_FILE, MAX_CLASSES, MAX_CHARACTERS, MAX_WAITING = "200mb", 200, 10_000, 20


@dataclass
class DemoArguments:
    """Which recogniser, and where the page is."""

    model: str = field(metadata={"help": "folder or Hub repository of an ActionLLM"})
    examples: list[str] = field(default_factory=list, metadata={"help": "recordings to pick from"})
    port: int = field(default=7860, metadata={"help": "port on this machine"})
    push_to_space: str | None = field(default=None, metadata={"help": "Space to make, in place of a page here"})
    public: bool = field(default=False, metadata={"help": "a public Space"})

    def __post_init__(self):
        from action_llm_recipes.common.written_folders import check_recogniser

        check_recogniser(self.model)


ARGUMENTS = (DemoArguments,)


def main(arguments: DemoArguments):
    for path in arguments.examples:
        if not Path(path).is_file():
            raise FileNotFoundError(f"--examples: there is no file {path}.")
    if arguments.push_to_space is not None:
        from action_llm_recipes.hub.push import push

        files = space_files(arguments.model, arguments.examples)
        title = f"A page to try {arguments.model}"
        logger.info(
            "%s\nThe Space reads %s as anybody would: while that is private, give the Space a secret HF_TOKEN.",
            push(files, arguments.push_to_space, public=arguments.public, title=title, kind="space", replace=False),
            arguments.model,
        )
        return
    serve(build(arguments.model, arguments.examples), server_port=arguments.port)


def serve(page, **settings):
    """Launches the page with bounds on what a visitor can send; `settings` are those of `gradio.Blocks.launch`."""
    return page.queue(max_size=MAX_WAITING).launch(max_file_size=MAX_FILE, **settings)


def build(model: str, examples: list[str] = ()):
    """The page, as `gradio.Blocks`.

    Args:
        model: folder or repository of a recogniser.
        examples: paths of recordings to pick from.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise SystemExit("hub/demo.py needs gradio: pip install -e '.[demo]'") from error
    from transformers import pipeline

    from action_llm import ActionLLMForClassification, ActionLLMProcessor
    from action_llm.escaping import markdown
    from action_llm.recording_files import RECORDING_SUFFIXES
    from action_llm.video_files import VIDEO_SUFFIXES

    # By the package's own classes: no code of the repository is run.
    recognise = pipeline(
        "action-recognition",
        model=ActionLLMForClassification.from_pretrained(model),
        processor=ActionLLMProcessor.from_pretrained(model),
    )
    extractor = recognise.processor.feature_extractor
    reads_skeletons = hasattr(extractor, "skeleton_layout")
    names = recognise.processor.class_names
    if recognise.model.config.injection_layer is not None:
        raise ValueError(
            f"{model} reads continuous latents: it has no tokens to show, and no reason that can be checked."
        )

    def answer(path: str | None, others: str):
        if path is None:
            raise gr.Error("Drop a recording, or pick an example.")
        labels = [line.strip() for line in (others or "").splitlines() if line.strip()] or None
        if len(labels or ()) > MAX_CLASSES or len(others or "") > MAX_CHARACTERS:
            raise gr.Error(
                f"Give at most {MAX_CLASSES} classes, in {MAX_CHARACTERS:,} characters: these are {len(labels or ()):,} in "
                f"{len(others):,}."
            )
        try:
            found = recognise(
                path, top_k=len(labels or names), candidate_labels=labels, explain=True, return_tokens=True
            )
            shown = player(path, extractor, found[0]["tokens"], recognise.model.lexicon)
        except (ValueError, OSError) as error:
            # What is wrong with a file is said; where it lies on the server is not. The page would show HTML as such.
            message = str(error).replace(path, os.path.basename(path))
            raise gr.Error(html.escape(message, quote=False)) from error
        except Exception as error:
            logger.exception("%s was not recognised", path)
            raise gr.Error(
                "This recording cannot be recognised; the log of the server says why. Try another."
            ) from error
        scores = {one["label"]: one["score"] for one in found}
        careful = f"**Careful:** {markdown('; '.join(found[0]['warnings']))}\n\n" if "warnings" in found[0] else ""
        description = f"\n\n{markdown(found[0]['description'])}" if "description" in found[0] else ""
        return shown, scores, f"{careful}**Why.** {markdown(found[0]['reason'])}{description}"

    with gr.Blocks(title="Action recognition", analytics_enabled=False) as page:
        gr.Markdown(
            "# Which action is it?\nA recording becomes a sentence of action tokens, and a language model reads it. "
            f"This one knows {len(names)} classes and nothing else. {said_of(model)}"
        )
        with gr.Row():
            with gr.Column(scale=2):
                recording = gr.File(
                    label="A recording of a skeleton" if reads_skeletons else "A video",
                    file_types=list(RECORDING_SUFFIXES if reads_skeletons else VIDEO_SUFFIXES),
                    type="filepath",
                    elem_id="recording",
                )
                others = gr.Textbox(
                    label="Other classes to choose from, one a line",
                    lines=3,
                    max_length=MAX_CHARACTERS,
                    placeholder="\n".join(names[:3]),
                    elem_id="others",
                )
                button = gr.Button("Which action is it?", variant="primary", elem_id="ask")
                if examples:
                    gr.Examples([[path] for path in examples], [recording], label="Examples", elem_id="examples")
                scores = gr.Label(label="Probabilities", num_top_classes=5, elem_id="scores")
            with gr.Column(scale=3):
                shown = gr.HTML(elem_id="player")
                reason = gr.Markdown(label="Why", elem_id="reason")
        asked = {"inputs": [recording, others], "outputs": [shown, scores, reason]}
        gr.on([button.click, others.submit], answer, **asked, api_name="recognise")
        # A file that is taken away leaves nothing behind.
        recording.change(
            lambda path, labels: answer(path, labels) if path else (None, None, None), **asked, api_name=False
        )
    return page


def said_of(model: str) -> str:
    """What the record beside a model says that it was trained on, in a sentence; nothing where there is none."""
    from transformers.utils.hub import cached_file

    from action_llm.escaping import markdown_code
    from action_llm.model_files import read_field, read_json_object

    path = cached_file(model, "record.json", _raise_exceptions_for_missing_entries=False)
    if path is None:
        return ""
    record = read_json_object(path)
    dataset = read_field(path, record, "sentences.dataset", str) or ""
    if dataset.startswith("simulated") or read_field(path, record, "sentences.data.simulated", bool):
        return (
            f"It was trained on **simulated** recordings ({markdown_code(dataset)}), and is no recogniser of people."
        )
    return f"It was trained on {markdown_code(dataset)}." if dataset else ""


def player(path: str, extractor, tokens: list[dict], lexicon) -> str:
    """A recording with its sentence, as a frame of a page.

    Args:
        path: the recording.
        extractor: the feature extractor that read it.
        tokens: as the pipeline returns them.
        lexicon: entries of all tokens, or `None`.
    """
    from action_llm.token_lexicon import token_color

    data = bodies(path, extractor) if hasattr(extractor, "skeleton_layout") else pictures(path)
    used = {token["id"] for token in tokens}
    entries = {} if lexicon is None else {token: lexicon[token].to_dict() for token in used}
    data |= {"tokens": tokens, "lexicon": entries, "colors": {token: token_color(token) for token in used}}
    # A name must not end the element that it stands in.
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    page = PLAYER.read_text(encoding="utf-8").replace("/*DATA*/", text)
    return (
        f'<iframe title="recording and tokens" sandbox="allow-scripts" srcdoc="{html.escape(page, quote=True)}" '
        f'style="width: 100%; height: {PLAYER_HEIGHT}px; border: 0"></iframe>'
    )


def bodies(path: str, extractor) -> dict:
    """Joints of all bodies, at most `MAX_FRAMES` frames of them, with what draws them."""
    from action_llm.skeleton_layouts import get_layout

    recording = extractor.read(path)
    layout = get_layout(recording.layout)
    chosen = (
        np.linspace(0, len(recording.keypoints) - 1, min(len(recording.keypoints), MAX_FRAMES)).round().astype(int)
    )
    joints = np.zeros((len(chosen), *recording.keypoints.shape[1:3], 3))
    joints[..., : recording.keypoints.shape[3]] = recording.keypoints[chosen]
    seen = np.isfinite(joints).all(-1) & (joints != 0).any(-1) & recording.present[chosen][..., None]
    frames = [
        [
            [np.round(joint, 3).tolist() if sure else None for joint, sure in zip(*body, strict=True)]
            for body in zip(*frame, strict=True)
        ]
        for frame in zip(joints, seen, strict=True)
    ]
    # What a single frame that went astray says is not where people are. What can be recognised has a joint.
    low, high = np.percentile(joints[seen], (0.5, 99.5), axis=0)
    return {
        "seconds": len(recording.keypoints) / recording.fps,
        "frames": frames,
        "bones": [[child, parent] for child, parent in enumerate(layout.parents) if parent >= 0],
        "up": layout.up,
        "low": low.tolist(),
        "high": high.tolist(),
    }


def pictures(path: str) -> dict:
    """At most `MAX_PICTURES` frames of a video as JPEG, evenly spread."""
    from PIL import Image

    from action_llm.video_files import open_video

    with open_video(path) as video:
        seconds = video.info.seconds
        count = max(1, min(MAX_PICTURES, round(10 * seconds), video.info.num_frames))
        height, width = video.picture_size()
        size = (min(PICTURE_HEIGHT, height), max(1, round(width * min(PICTURE_HEIGHT, height) / height)))
        frames = video.frames_at((np.arange(count) + 0.5) * (seconds / count), size)
    sources = []
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=80)
        sources.append("data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode())
    return {"seconds": seconds, "pictures": sources}


APP = """from demo import build, serve

serve(build({model!r}, {examples!r}))
"""
SPACE = """---
title: Action recognition
sdk: gradio
sdk_version: {gradio}
app_file: app.py
python_version: "3.11"
models:
- {model}
---

Drop a recording and see what the recogniser `{model}` saw, what it decided, and why.{simulated}
"""


def space_files(model: str, examples: list[str]) -> dict[str, bytes]:
    """What a Space holds: path in it → content.

    Raises:
        ValueError: the model is a folder of this machine, or an example is not simulated.
    """
    from importlib.metadata import version

    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    import action_llm
    from action_llm_datasets.building import SIMULATION_RECORD
    from action_llm_recipes.hub.model_page import exact_requirements

    try:
        validate_repo_id(model)
        is_on_the_hub = "/" in model and not Path(model).exists()
    except HFValidationError:
        is_on_the_hub = False
    if not is_on_the_hub:
        raise ValueError(f"--model {model}: a Space needs a model that is on the Hub (hub/push.py).")
    for path in examples:
        if not Path(path).with_name(SIMULATION_RECORD).is_file():
            raise ValueError(f"{path} is not known to be simulated: recordings of people are not pushed.")
    files = {
        "app.py": APP.format(model=model, examples=[f"examples/{Path(path).name}" for path in examples]).encode(),
        "demo.py": Path(__file__).read_bytes(),
        PLAYER.name: PLAYER.read_bytes(),
        "requirements.txt": exact_requirements().encode(),
        "README.md": SPACE.format(
            model=model, gradio=version("gradio"), simulated=" The examples are simulated." if examples else ""
        ).encode(),
    }
    for path in sorted(Path(action_llm.__file__).parent.glob("*.py")):
        files[f"action_llm/{path.name}"] = path.read_bytes()
    return files | {f"examples/{Path(path).name}": Path(path).read_bytes() for path in examples}


def cli():
    """The command `action-llm-demo`."""
    from action_llm_recipes.common.launching import launch  # a Space has no recipes

    launch(main, *ARGUMENTS)


if __name__ == "__main__":
    cli()
