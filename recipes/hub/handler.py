"""
Answers requests on Hugging Face Inference Endpoints (https://huggingface.co/docs/inference-endpoints/guides/custom_handler).

A request has the content of a file in Base64 and the name of the file, whose suffix tells the format:

    {"inputs": {"name": "clip.skeleton", "content": "…"}, "parameters": {"top_k": 3, "explain": true}}

or a row of a data set of skeletons:

    {"inputs": {"keypoints": […], "shape": [frames, people, joints, 3], "layout": "kinect25", "fps": 30}}

`push.py` uploads this file with each recogniser.
"""

import base64
import io
import os

from transformers import pipeline

# Settings of the pipeline that a request can have. A recording is answered alone, in this process.
PARAMETERS = (
    *("top_k", "candidate_labels", "divide_by_prior", "explain", "return_tokens", "return_entropy"),
    *("calibrated", "unsure_below", "per_person", "versions", "fps", "mirrored"),
)


class EndpointHandler:
    """Recognises the action in a recording.

    Args:
        path: folder of the repository.
    """

    def __init__(self, path: str = ""):
        self.recognise = pipeline("action-recognition", model=path, trust_remote_code=True)

    def __call__(self, data: dict) -> list[dict]:
        """Answers a request.

        Args:
            data: `inputs`, and perhaps `parameters`, arguments of the pipeline.

        Returns:
            The most likely classes, as of the pipeline: dicts with `label` and `score`; the first also has what was asked for,
            such as `reason`.

        Raises:
            ValueError: if the request does not have this form, or the recording cannot be read.
            TypeError: if a parameter is none of `PARAMETERS`.
        """
        parameters = data.get("parameters") or {}
        for name in parameters:
            if name not in PARAMETERS:
                raise TypeError(f"parameters: there is no {name!r}; expected {', '.join(PARAMETERS)}.")
        return self.recognise(recording_of(data.get("inputs")), **parameters)


def recording_of(inputs: dict) -> io.BytesIO | dict:
    """The recording in a request: an open file, or a row. Text is never taken for a path or a URL.

    Raises:
        ValueError: if it is neither.
    """
    if not isinstance(inputs, dict) or not ({"name", "content"} <= inputs.keys() or "keypoints" in inputs):
        actual = f"the fields {sorted(inputs)}" if isinstance(inputs, dict) else type(inputs).__name__
        raise ValueError(
            f"inputs: expected an object with the name and the Base64 content of a file, or with keypoints, found {actual}."
        )
    if "keypoints" in inputs:
        return inputs
    if not (isinstance(inputs["name"], str) and isinstance(inputs["content"], str)):
        raise ValueError("inputs: expected name and content as text.")
    try:
        file = io.BytesIO(base64.b64decode(inputs["content"], validate=True))
    except ValueError as error:
        raise ValueError(f"inputs.content: expected Base64: {error}.") from error
    file.name = file_name(inputs["name"])
    return file


def file_name(name: str) -> str:
    """A name for an uploaded file, with the suffix of the name that was sent, and nothing else of it."""
    name = os.path.basename(name.replace("\\", "/")).lower()
    # Files of SBU Kinect Interaction are known by their whole name.
    return name if name == "skeleton_pos.txt" else "recording" + os.path.splitext(name)[1]
