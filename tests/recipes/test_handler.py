"""What Inference Endpoints may ask of `handler.py`; test_push.py runs it from a pushed repository."""

import base64

import pytest

from action_llm_recipes.hub import handler


@pytest.fixture
def endpoint():
    """A handler that returns what it would recognise, and the settings."""
    endpoint = object.__new__(handler.EndpointHandler)
    endpoint.recognise = lambda recording, **settings: (recording, settings)
    return endpoint


def test_a_file_is_its_content_with_a_name_of_ours(endpoint):
    content = base64.b64encode(b"\0recording").decode()
    for name in ("clip.SKELETON", "../../etc/clip.skeleton", "C:\\clip.skeleton"):
        data = {"inputs": {"name": name, "content": content}, "parameters": {"top_k": 2}}
        file, settings = endpoint(data)
        assert (file.name, file.read(), settings) == ("recording.skeleton", b"\0recording", {"top_k": 2})
    assert handler.file_name("s01/Skeleton_Pos.txt") == "skeleton_pos.txt", "SBU Kinect Interaction"


@pytest.mark.parametrize(
    "inputs", ["/etc/passwd", "https://example.org/a.npy", None, ["a.npy"], {}, {"path": "a.npy"}]
)
def test_text_is_never_a_path(endpoint, inputs):
    with pytest.raises(ValueError, match="inputs: expected an object with the name and the Base64 content of a file"):
        endpoint({"inputs": inputs})


def test_damaged_requests_are_told(endpoint):
    with pytest.raises(ValueError, match=r"inputs\.content: expected Base64"):
        endpoint({"inputs": {"name": "a.npy", "content": "no base64!"}})
    with pytest.raises(ValueError, match="name and content as text"):
        endpoint({"inputs": {"name": 3, "content": ""}})
    with pytest.raises(TypeError, match="there is no 'num_workers'; expected top_k"):
        endpoint({"inputs": {"keypoints": []}, "parameters": {"num_workers": 8}})
