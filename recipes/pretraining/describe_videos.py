"""
Write explanations of training videos with a pretrained LVLM, which is given the label of each clip.

```bash
python recipes/pretraining/describe_videos.py --model llava-hf/llava-1.5-7b-hf --dataset ntu60-xsub-video --data_dir NTU/rgb \\
    --output runs/ntu60_video/explanations.jsonl
```

`encode_actions.py --explanations` reads the file; each line names the model that wrote it. The file is a cache: another run
describes only clips that are missing. Only training clips are described, since the prompt contains the label. An explanation is
what the model considers likely, not a measurement.
"""

import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from action_llm_datasets.folder_lock import writing
from action_llm_recipes.common.data_arguments import DataArguments
from action_llm_recipes.common.launching import launch
from action_llm_recipes.common.written_folders import check_model_folder, public_name

logger = logging.getLogger(__name__)

PROMPT = (
    "These pictures are from one video, in order. It shows the action: {label}. Describe in one or two sentences what the "
    "person does, part by part of the body, without naming the action."
)


@dataclass
class DescriptionArguments:
    """Which model describes the videos, and where the explanations are written."""

    model: str = field(metadata={"help": "image-text-to-text model: repository or folder"})
    output: str = field(metadata={"help": "file of JSON lines to write"})
    revision: str | None = field(
        default=None, metadata={"help": "commit of the model's repository", "belongs_to": "model"}
    )
    frames: int = field(default=4, metadata={"help": "frames of each clip that the model sees"})
    max_new_tokens: int = field(default=80, metadata={"help": "maximum number of tokens per explanation"})
    limit: int | None = field(default=None, metadata={"help": "maximum number of clips to describe"})
    dtype: str = field(default="auto", metadata={"help": "dtype of the model"})

    def __post_init__(self):
        check_model_folder(self.model)


ARGUMENTS = (DescriptionArguments, DataArguments)


def main(arguments: DescriptionArguments, data: DataArguments) -> int:
    """Describes the clips that are missing in the file; returns their number."""
    with writing(arguments.output, "--output", is_file=True):
        return describe(arguments, data)


def describe(arguments: DescriptionArguments, data: DataArguments) -> int:
    """As `main`, without a lock on the file."""
    import numpy as np
    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from action_llm.video_files import open_video
    from action_llm.video_frames import VideoFileError
    from action_llm_datasets.building import UNREADABLE
    from action_llm_datasets.progress import progress
    from action_llm_datasets.videos import open_row

    rows = data.load("videos")["train"]
    names = rows.features["label"].names
    output = Path(arguments.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    source = {"model": _name(arguments), "frames": arguments.frames}
    described = _described(output, source)
    missing = [row for row in rows if row["sample_id"] not in described][: arguments.limit]
    if not missing:
        logger.info("All %d clips are described in %s", len(rows), output)
        return 0
    revision = arguments.revision or "main"
    processor = AutoProcessor.from_pretrained(arguments.model, revision=revision, trust_remote_code=False)
    model = AutoModelForImageTextToText.from_pretrained(
        arguments.model, revision=revision, dtype=arguments.dtype, trust_remote_code=False
    ).eval()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    skipped = 0
    with open(output, "a", encoding="utf-8") as file:
        for row in progress(missing, "describing", "clips"):
            try:
                with open_row(data.data_dir, row) as opened, open_video(opened) as video:
                    times = (np.arange(arguments.frames) + 0.5) * video.info.seconds / arguments.frames
                    pictures = [Image.fromarray(picture) for picture in video.frames_at(times)]
            except (VideoFileError, *UNREADABLE) as error:
                logger.warning("skipped: %s", error)
                skipped += 1
                continue
            text = _prompt(processor, PROMPT.format(label=names[row["label"]]), len(pictures))
            inputs = processor(images=pictures, text=text, return_tensors="pt").to(model.device)
            with torch.no_grad():
                ids = model.generate(**inputs, max_new_tokens=arguments.max_new_tokens, do_sample=False)
            answer = processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[
                0
            ].strip()
            entry = {"sample_id": row["sample_id"], "explanation": answer, **source}
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    logger.info("%d clips described in %s, %d skipped", len(missing) - skipped, output, skipped)
    return len(missing) - skipped


def _described(path: Path, source: dict) -> set[str]:
    """Sample ids of the explanations in a file. An incomplete last line, which an interrupted run leaves, is removed.

    Args:
        path: the file.
        source: `model` and `frames`, as in its lines.

    Raises:
        ValueError: if a line is damaged, or was written by another model or from another number of frames.
    """
    if not path.is_file():
        return set()
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    if complete != content:
        path.write_bytes(complete)
    sample_ids = set()
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            entry = json.loads(line)
            entry = {name: entry[name] for name in ("sample_id", *source)}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{path}, line {number}: expected an object with sample_id, {' and '.join(source)}, found {line[:60]!r}: "
                "delete the line to describe its clip again."
            ) from error
        for name, value in source.items():
            if entry[name] != value:
                raise ValueError(
                    f"{path}, line {number}, {name}: expected {value!r}, found {entry[name]!r}: choose another file."
                )
        sample_ids.add(entry["sample_id"])
    return sample_ids


def _prompt(processor, text: str, pictures: int) -> str:
    """The prompt by the chat template of the model, or, if it has none, by that of LLaVA 1.5."""
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}] * pictures + [{"type": "text", "text": text}]
        return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return f"USER: {'<image>' * pictures}\n{text} ASSISTANT:"


def _name(arguments: DescriptionArguments) -> str:
    """The name of the model with its revision, without its folder on this machine."""
    name = public_name(arguments.model)
    return name if arguments.revision is None else f"{name}@{arguments.revision}"


if __name__ == "__main__":
    launch(main, *ARGUMENTS, resumes=True)
