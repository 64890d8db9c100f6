"""
A web page to try a recogniser: upload a recording, and see its action tokens, the predicted action, and why.

```bash
python recipes/hub/demo.py --model runs/quickstart/model \\
    --examples runs/quickstart/simulated_recordings/S003C001P003R001A0*.skeleton
python recipes/hub/demo.py --model me/llm-ar-simulated --examples walk.skeleton --push_to_space me/llm-ar-demo
```

Skeletons are animated and can be rotated; videos are shown as a series of frames, whatever their format. A recogniser of
skeletons takes videos, too, if the weights of a pose estimator are on this machine; the people are drawn over the frames, with
the numbers of their tracks. The tokens lie on a timeline under the recording, and a click on a token shows its entry in the
lexicon. Long recordings also have a timeline of actions. `--push_to_space` creates a Space, which is private unless you pass
`--public`. Only simulated examples are uploaded; a Space has no pose estimator.

With `--writer smollm2`, a language model rewords the reasons; `--writer own` is that of the recogniser, if it was frozen in
training and follows instructions. A text is shown if all of its statements were measured. A Space takes a repository or `own`.

Needs the extra `demo`: `pip install -e '.[demo]'`. A Space contains this file, the player, and the package `action_llm`.
"""

import base64
import html
import io
import json
import logging
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
PLAYER = HERE / "demo_player.html"
MAX_FRAMES, MAX_PICTURES, PICTURE_HEIGHT = 600, 120, 300
PLAYER_HEIGHT = 540
# Limits for visitors: size of a file, number of classes, characters of all their names together, and visitors in the queue.
MAX_FILE, MAX_CLASSES, MAX_CHARACTERS, MAX_WAITING = "200mb", 200, 10_000, 20
# The verdicts on the statements of a language model.
VERDICTS = ("supported", "contradicted", "not checkable")
# Seconds from which a recording has a timeline of actions, and the window and stride of it.
LONG, WINDOW, STRIDE = 8.0, 4.0, 1.0


@dataclass
class DemoArguments:
    """Which recogniser is shown, and where."""

    model: str = field(metadata={"help": "folder or Hub repository of an ActionLLM"})
    examples: list[str] = field(default_factory=list, metadata={"help": "example recordings on the page"})
    writer: str | None = field(
        default=None,
        metadata={
            "help": "language model that rewords the reasons: a repository, a folder, a GGUF file, smollm2, or own, that of "
            "the recogniser. By default, rules write them"
        },
    )
    port: int = field(default=7860, metadata={"help": "port of the local web server"})
    push_to_space: str | None = field(default=None, metadata={"help": "Space to create, instead of a local page"})
    public: bool = field(default=False, metadata={"help": "make the Space public"})

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

        files = space_files(arguments.model, arguments.examples, arguments.writer)
        title = f"Demo of {arguments.model}"
        logger.info(
            "%s\nThe Space downloads %s: if that repository is private, add a secret HF_TOKEN to the Space.",
            push(
                files, arguments.push_to_space, public=arguments.public, title=title, repo_type="space", replace=False
            ),
            arguments.model,
        )
        return
    serve(build(arguments.model, arguments.examples, arguments.writer), server_port=arguments.port)


def serve(page, **settings):
    """Launches the page with limits on uploads and on the queue; `settings` are passed to `gradio.Blocks.launch`."""
    return page.queue(max_size=MAX_WAITING).launch(max_file_size=MAX_FILE, **settings)


def build(model: str, examples: list[str] = (), writer: str | None = None):
    """The page, as `gradio.Blocks`.

    Args:
        model: folder or repository of a recogniser.
        examples: paths of example recordings.
        writer: name of the language model that rewords the reasons (`load_writer`); by default, rules write them.

    Raises:
        ValueError: if the recogniser reads continuous latents, or the writer cannot write.
        SystemExit: if gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise SystemExit("hub/demo.py needs gradio: pip install -e '.[demo]'") from error
    from action_llm.written_reasons import load_writer

    recognise = load_pipeline(model)
    if recognise.model.config.injection_layer is not None:
        raise ValueError(f"{model} reads continuous latents: it has no tokens to show, and no explanations.")
    names = recognise.processor.class_names
    estimator = pose_estimator() if reads_skeletons(recognise) else None
    what = "A video" if estimator is not None or not reads_skeletons(recognise) else "A recording of skeletons"
    if estimator is not None:
        what += ", or a recording of skeletons"
    if writer is not None:
        writer = load_writer(writer, recognise.model, recognise.processor)
    answer_to = partial(answer, recognise, estimator, writer)
    with gr.Blocks(title="Action recognition", analytics_enabled=False) as page:
        gr.Markdown(
            "# Which action is it?\nA recording becomes a sentence of action tokens, and a language model reads it. "
            f"This model knows {len(names)} classes. {describe_training(model)}"
        )
        with gr.Row():
            with gr.Column(scale=2):
                recording = gr.File(
                    label=what,
                    file_types=list(readable_suffixes(recognise, estimator)),
                    type="filepath",
                    elem_id="recording",
                )
                classes = gr.Textbox(
                    label="Other classes to choose from, one per line",
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
                animation = gr.HTML(elem_id="player")
                reason = gr.Markdown(label="Why", elem_id="reason")
        fields = {"inputs": [recording, classes], "outputs": [animation, scores, reason]}
        fields |= {"concurrency_id": "recognise"}  # one visitor at a time, whatever they press
        gr.on([button.click, classes.submit], answer_to, **fields, api_name="recognise")
        # When the file is removed, its results are removed too.
        recording.change(
            lambda path, classes: answer_to(path, classes) if path else (None, None, None),
            **fields,
            api_name=False,
        )
    return page


def load_pipeline(model: str):
    """The pipeline of a recogniser, by the classes of the installed package: no code of its repository is run."""
    from transformers import pipeline

    from action_llm import ActionLLMForClassification, ActionLLMProcessor

    return pipeline(
        "action-recognition",
        model=ActionLLMForClassification.from_pretrained(model),
        processor=ActionLLMProcessor.from_pretrained(model),
    )


def reads_skeletons(recognise) -> bool:
    """Whether a pipeline's recogniser reads skeletons, and not videos."""
    return hasattr(recognise.processor.feature_extractor, "skeleton_layout")


def readable_suffixes(recognise, estimator) -> tuple[str, ...]:
    """The suffixes of the files that a recogniser reads.

    Args:
        recognise: pipeline of the recogniser.
        estimator: the pose estimator of a recogniser of skeletons; None for one of videos, and without weights.
    """
    from action_llm.recording_files import RECORDING_SUFFIXES
    from action_llm.video_files import VIDEO_SUFFIXES

    if not reads_skeletons(recognise):
        return VIDEO_SUFFIXES
    return RECORDING_SUFFIXES if estimator is None else (*VIDEO_SUFFIXES, *RECORDING_SUFFIXES)


def pose_estimator():
    """The pose estimator whose weights are on this machine; None if there is none."""
    from action_llm.pose_estimators import PoseError, load_pose_estimator

    try:
        return load_pose_estimator()
    except (PoseError, ImportError):
        return None


def answer(recognise, estimator, writer, path: str | None, classes: str | None):
    """The answer to a visitor.

    Args:
        recognise: pipeline of the recogniser.
        estimator: the pose estimator with which a recogniser of skeletons reads videos; None for one of videos, and without
            weights.
        writer: the `ReasonWriter` that rewords the reasons, or None.
        path: the uploaded file.
        classes: names of classes to choose from, one per line; empty for the classes of the model.

    Returns:
        HTML of the player, class → probability, and the explanation in Markdown.

    Raises:
        gradio.Error: if there is no file, the file cannot be recognised, or there are too many classes.
    """
    import gradio as gr

    from action_llm.escaping import markdown
    from action_llm.video_files import is_video

    if path is None:
        raise gr.Error("Upload a recording, or choose an example.")
    classes = classes or ""
    labels = [line.strip() for line in classes.splitlines() if line.strip()] or None
    if len(labels or ()) > MAX_CLASSES or len(classes) > MAX_CHARACTERS:
        raise gr.Error(
            f"Enter at most {MAX_CLASSES} classes with {MAX_CHARACTERS:,} characters in all; these are {len(labels or ()):,} "
            f"classes with {len(classes):,} characters."
        )
    count = len(labels or recognise.processor.class_names)
    try:
        recording = estimator(path) if estimator is not None and is_video(path) else path
        answers = recognise(
            recording, top_k=count, candidate_labels=labels, explain=True, writer=writer, return_tokens=True
        )
        best = answers[0]
        extractor = recognise.processor.feature_extractor
        if recording is not path:
            shown = pictures(path) | poses(path, recording)
        else:
            shown = bodies(path, extractor) if reads_skeletons(recognise) else pictures(path)
        shown["spans"] = spans(recognise, recording, shown["seconds"], labels)
        animation = player(shown, best["tokens"], recognise.model.lexicon)
    except (ValueError, OSError) as error:
        # The message names the file, but not its folder on the server. The page would render HTML in it.
        message = str(error).replace(path, os.path.basename(path))
        raise gr.Error(html.escape(message, quote=False)) from error
    except Exception as error:
        logger.exception("%s was not recognised", path)
        raise gr.Error(
            "This recording cannot be recognised; see the log of the server. Try another recording."
        ) from error
    scores = {entry["label"]: entry["score"] for entry in answers}
    warning = f"**Warning:** {markdown('; '.join(best['warnings']))}\n\n" if "warnings" in best else ""
    description = f"\n\n{markdown(best['description'])}" if "description" in best else ""
    return animation, scores, f"{warning}**Why.** {markdown(best['reason'])}{worded_by(best)}{description}"


def worded_by(best: dict) -> str:
    """Who worded a reason, in Markdown; empty without a writer.

    Args:
        best: the first class of an answer of the pipeline.
    """
    if "reason_by" not in best:
        return ""
    supported, contradicted, others = (best["statements"][verdict] for verdict in VERDICTS)
    if best["reason_by"] == "language model":
        return f"\n\n*Worded by a language model (statements measured: {supported} of {supported}).*"
    if contradicted + others == 0:
        return "\n\n*Worded by rules.*"
    return (
        "\n\n*Worded by rules. The text of a language model was rejected "
        f"(statements measured: {supported}, contradicted: {contradicted}, not measured: {others}).*"
    )


def describe_training(model: str) -> str:
    """The data set that a model was trained on, in a sentence; empty for a model without a record.

    Raises:
        ModelFileError: if the record is damaged.
    """
    from transformers.utils.hub import cached_file

    from action_llm.escaping import markdown_code
    from action_llm.model_files import read_field, read_json_object

    path = cached_file(model, "record.json", _raise_exceptions_for_missing_entries=False)
    if path is None:
        return ""
    record = read_json_object(path)
    dataset = read_field(path, record, "sentences.dataset", str) or ""
    by_name = all(title.startswith("simulated") for title in dataset.split("+"))  # of several data sets
    if by_name or read_field(path, record, "sentences.data.simulated", bool):
        return f"It was trained on **simulated** recordings ({markdown_code(dataset)}), not on recordings of people."
    return f"It was trained on {markdown_code(dataset)}." if dataset else ""


def player(data: dict, tokens: list[dict], lexicon) -> str:
    """A recording and its action sentence as an HTML iframe.

    Args:
        data: of the recording: `bodies` or `pictures`, perhaps with `poses`, and its `spans`.
        tokens: the pipeline's `tokens`.
        lexicon: entries of all tokens, or None.
    """
    from action_llm.token_lexicon import token_color

    used = {token["id"] for token in tokens}
    entries = {} if lexicon is None else {token: lexicon[token].to_dict() for token in used}
    data |= {"tokens": tokens, "lexicon": entries, "colors": {token: token_color(token) for token in used}}
    # In a script, "</script>" in a name would end the element.
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    page = PLAYER.read_text(encoding="utf-8").replace("/*DATA*/", text)
    return (
        f'<iframe title="recording and tokens" sandbox="allow-scripts" srcdoc="{html.escape(page, quote=True)}" '
        f'style="width: 100%; height: {PLAYER_HEIGHT}px; border: 0"></iframe>'
    )


def spans(recognise, recording, seconds: float, labels: list[str] | None) -> list[dict]:
    """The timeline of a long recording, as `start`, `end` and `label` of its spans; empty for short ones, and for recognisers
    without timelines."""
    from action_llm.timelines import check_reads_timelines

    try:
        check_reads_timelines(recognise.model.config)
    except ValueError:
        return []
    if seconds < LONG:
        return []
    timeline = recognise.model.timeline(
        recognise.processor, recording, seconds=WINDOW, stride=STRIDE, class_names=labels
    )
    return [{"start": span.start, "end": span.end, "label": span.label} for span in timeline.spans()]


def poses(path: str, recording) -> dict:
    """The people in each frame of `pictures`: the number of their track, and the place of each joint in the frame, from 0 to 1;
    and the bones between joints.

    Args:
        path: of the video.
        recording ([`~skeleton_files.SkeletonRecording`]): of the pose estimator.
    """
    from action_llm.skeleton_layouts import get_layout
    from action_llm.video_files import open_video

    with open_video(path) as video:
        seconds, count = video.info.seconds, number_of_pictures(video)
        height, width = video.picture_size()
    layout = get_layout(recording.layout)
    frames = []
    for place in range(count):
        frame = min(int((place + 0.5) * seconds / count * recording.fps), len(recording.present) - 1)
        people = []
        for body in np.flatnonzero(recording.present[frame]).tolist():
            joints, pixels = recording.keypoints[frame, body], recording.color_pixels[frame, body]
            is_seen = np.isfinite(joints).all(-1) & np.isfinite(pixels).all(-1)
            places = np.where(is_seen[:, None], pixels / (width, height), 0).round(4).tolist()
            people.append(
                [int(recording.body_ids[body]) + 1, [p if s else None for p, s in zip(places, is_seen, strict=True)]]
            )
        frames.append(people)
    return {"poses": frames, "bones": [[child, parent] for child, parent in enumerate(layout.parents) if parent >= 0]}


def bodies(path: str, extractor) -> dict:
    """Joints of all bodies in at most `MAX_FRAMES` frames, and what the player needs to draw them."""
    from action_llm.skeleton_layouts import get_layout

    recording = extractor.read(path)
    layout = get_layout(recording.layout)
    count = len(recording.keypoints)
    chosen = np.linspace(0, count - 1, min(count, MAX_FRAMES)).round().astype(int)
    joints = np.zeros((len(chosen), *recording.keypoints.shape[1:3], 3))
    joints[..., : recording.keypoints.shape[3]] = recording.keypoints[chosen]
    seen = np.isfinite(joints).all(-1) & (joints != 0).any(-1) & recording.present[chosen][..., None]
    frames = [
        [
            [np.round(joint, 3).tolist() if is_seen else None for joint, is_seen in zip(*body, strict=True)]
            for body in zip(*frame, strict=True)
        ]
        for frame in zip(joints, seen, strict=True)
    ]
    # Percentiles, since a single wrong frame must not set the scale. A recording that was recognised has a joint.
    low, high = np.percentile(joints[seen], (0.5, 99.5), axis=0)
    return {
        "seconds": count / recording.fps,
        "frames": frames,
        "bones": [[child, parent] for child, parent in enumerate(layout.parents) if parent >= 0],
        "up": layout.up,
        "low": low.tolist(),
        "high": high.tolist(),
    }


def pictures(path: str) -> dict:
    """At most `MAX_PICTURES` evenly spaced frames of a video, as JPEG."""
    from PIL import Image

    from action_llm.video_files import open_video

    with open_video(path) as video:
        seconds, count = video.info.seconds, number_of_pictures(video)
        height, width = video.picture_size()
        size = (min(PICTURE_HEIGHT, height), max(1, round(width * min(PICTURE_HEIGHT, height) / height)))
        frames = video.frames_at((np.arange(count) + 0.5) * (seconds / count), size)
    sources = []
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=80)
        sources.append("data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode())
    return {"seconds": seconds, "pictures": sources}


def number_of_pictures(video) -> int:
    return max(1, min(MAX_PICTURES, round(10 * video.info.seconds), video.info.num_frames))


APP = """from demo import build, serve

serve(build({model!r}, {examples!r}, {writer!r}))
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

Upload a recording, and see its action tokens, the action that `{model}` predicts, and why.{simulated}
"""


def space_files(model: str, examples: list[str], writer: str | None = None) -> dict[str, bytes]:
    """The files of a Space: path → content.

    Raises:
        ValueError: if the model or the writer is not on the Hub, or an example is not known to be simulated.
    """
    from importlib.metadata import version

    import action_llm
    from action_llm.written_reasons import OWN
    from action_llm_datasets.building import SIMULATION_RECORD
    from action_llm_recipes.hub.model_page import exact_requirements

    if not is_on_the_hub(model):
        raise ValueError(f"--model {model}: a Space needs a model that is on the Hub; push it with hub/push.py.")
    if writer not in (None, OWN) and not is_on_the_hub(writer):
        raise ValueError(f"--writer {writer}: a Space needs the repository of a language model, or {OWN}.")
    for path in examples:
        if not Path(path).with_name(SIMULATION_RECORD).is_file():
            raise ValueError(
                f"{path} is not known to be simulated, and recordings of people are not uploaded: remove it from --examples."
            )
    files = {
        "app.py": APP.format(
            model=model, examples=[f"examples/{Path(path).name}" for path in examples], writer=writer
        ).encode(),
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


def is_on_the_hub(name: str) -> bool:
    """Whether a name is that of a repository, `owner/name`, and of no file or folder."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name and not Path(name).exists()


def cli():
    """The command `action-llm-demo`."""
    from action_llm_recipes.common.launching import launch  # not part of a Space

    launch(main, *ARGUMENTS)


if __name__ == "__main__":
    cli()
