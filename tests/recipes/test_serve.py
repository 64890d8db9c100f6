"""The server of a recogniser: answers, refusals, limits and the end, over the loopback interface."""

import asyncio
import contextlib
import http.client
import io
import json
import os
import socket
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import numpy as np
import pytest
from skeleton_people import hand_wave
from tiny_models import tiny_recogniser, tiny_writer
from transformers import pipeline

fastapi = pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from action_llm_recipes.benchmarks import benchmark_serving  # noqa: E402
from action_llm_recipes.hub import serve, server  # noqa: E402


@pytest.fixture(scope="module")
def recognise():
    model, processor = tiny_recogniser("skeletons")
    return pipeline("action-recognition", model=model, processor=processor)


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    """Recordings of different lengths."""
    folder, generator = tmp_path_factory.mktemp("walks"), np.random.default_rng(0)
    for number in range(6):
        frames = generator.normal(size=(30 + 7 * number, 25, 3)).cumsum(0) * 0.05 + generator.normal(size=(25, 3))
        np.save(folder / f"walk{number}.npy", frames.astype(np.float32))
    return sorted(folder.iterdir())


class Watched:
    """A pipeline that can be held, and notes the number of recordings of each call."""

    def __init__(self, recognise):
        self.recognise, self.calls, self.is_free = recognise, [], threading.Event()
        self.processor, self.model = recognise.processor, recognise.model
        self.is_free.set()

    def __call__(self, paths, **settings):
        self.calls.append(len(paths))
        assert self.is_free.wait(30)
        if any(Path(path).read_bytes() == b"bug" for path in paths):
            raise KeyError("a bug")
        return self.recognise(paths, **settings)


@pytest.fixture
def serving(recognise, tmp_path, monkeypatch):
    """Starts a server with limits; its temporary files lie in `tmp_path`."""
    watched = Watched(recognise)
    monkeypatch.setattr(server, "load_pipeline", lambda model: watched)
    monkeypatch.setattr(server, "pose_estimator", lambda: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    @contextlib.contextmanager
    def start(batch_size=4, max_mib=1, max_requests=8, seconds=30.0, writer=None):
        limits = server.Limits(batch_size, max_mib, max_requests, seconds)
        app = server.build("tiny", limits, writer)
        running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical"))
        thread = threading.Thread(target=running.run)
        thread.start()
        while not running.started:
            time.sleep(0.01)
        try:
            yield running.servers[0].sockets[0].getsockname()[1], watched
        finally:
            watched.is_free.set()
            running.should_exit = True
            thread.join(30)
        assert not thread.is_alive() and not list(tmp_path.glob("action-llm-serve-*"))

    return start


def ask(port: int, name: str, body: bytes = b"", **settings) -> tuple[int, object, dict]:
    """Status, JSON and headers of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", f"/recognise?{urlencode({'name': name, **settings})}", body)
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text.startswith((b"{", b"[")) else text, dict(response.headers)
    finally:
        connection.close()


def health(port: int) -> dict:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/health")
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_answer_in_a_batch_is_that_of_the_file_alone(serving, recognise, walks):
    with serving() as (port, watched), ThreadPoolExecutor(8) as clients:
        watched.is_free.clear()
        first = clients.submit(ask, port, "walk.npy", walks[0].read_bytes())
        until(lambda: watched.calls)
        others = [clients.submit(ask, port, walk.name, walk.read_bytes(), top_k=2) for walk in walks[1:]]
        damaged = clients.submit(ask, port, "damaged.npy", walks[1].read_bytes()[:100])
        until(lambda: health(port)["requests"] == 7)
        watched.is_free.set()
        assert first.result()[0] == 200 and len(first.result()[1]) == 5
        for answer, walk in zip(others, walks[1:], strict=True):
            status, classes, _ = answer.result()
            expected = recognise(str(walk), top_k=2)
            assert status == 200 and [entry["label"] for entry in classes] == [entry["label"] for entry in expected]
            assert [entry["score"] for entry in classes] == pytest.approx(
                [entry["score"] for entry in expected], abs=1e-5
            )
            assert [set(entry) for entry in classes] == [set(entry) for entry in expected]
        status, error, _ = damaged.result()
        assert status == 422 and error["detail"].startswith("recording.npy: ") and "/" not in error["detail"]
        assert watched.calls == [1, 4, 2]
        explained = ask(port, walks[1].name, walks[1].read_bytes(), explain=True, fps=15)[1][0]
        assert explained["reason"] == recognise(str(walks[1]), explain=True, fps=15)[0]["reason"]


def test_the_operator_chooses_the_writer(serving, monkeypatch):
    """Reasons alone take its time, and a request can neither choose it nor have it on a server without one."""
    body, writer = io.BytesIO(), tiny_writer("The person raises the right hand.", "The person raises the left hand.")
    np.save(body, hand_wave())
    loaded = []
    monkeypatch.setattr(server, "load_writer", lambda name, *recogniser: loaded.append(name) or writer)
    with serving() as (port, _):
        (status, (best, *_), _) = ask(port, "wave.npy", body.getvalue(), explain=True, writer="me/chat")
        assert status == 200 and not {"reason_by", "statements"} & set(best) and not loaded
    with serving(writer="me/chat") as (port, _):
        assert "reason" not in ask(port, "wave.npy", body.getvalue())[1][0] and not writer.asked
        answers = [ask(port, "wave.npy", body.getvalue(), explain=True, writer="other")[1][0] for _ in range(2)]
    assert loaded == ["me/chat"] and len(writer.asked) == 2
    assert [answer["reason_by"] for answer in answers] == ["language model", "rules"]
    assert answers[0]["statements"] == {"supported": 1, "contradicted": 0, "not checkable": 0}
    assert answers[1]["statements"]["contradicted"] == 1 and "raises the left hand" not in answers[1]["reason"]


def test_what_is_wrong_is_refused(serving, walks, tmp_path, monkeypatch):
    walk = walks[0].read_bytes()
    monkeypatch.setattr(server, "REFUSED_SECONDS", 0.2)
    with serving() as (port, _):
        for name in ("/etc/passwd", "..", "", "walk.pkl", "walk.mp4", "walk.npy/"):
            status, error, _ = ask(port, name, walk)
            assert status == 415 and ".skeleton, .json" in error["detail"], name
        # Nothing of a name but its suffix is used.
        for name in (f"{tmp_path}/x.npy", "../../x.NPY", "a\0b.npy", "C:\\x.npy", f"{'x' * 5000}.npy"):
            assert ask(port, name, walk)[0] == 200, name
        assert ask(port, "walk.npy", bytes((1 << 20) + 1))[0] == 413
        assert ask(port, "walk.npy", bytes(8 << 20))[1]["detail"] == "expected a file of at most 1 MiB."
        with socket.create_connection(("127.0.0.1", port)) as endless:
            endless.sendall(b"POST /recognise?name=a.npy HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n")
            endless.sendall(bytes((1 << 20) + 1))
            assert endless.recv(1000).startswith(b"HTTP/1.1 413")
        assert ask(port, "walk.npy", b"")[0] == 422 and ask(port, "walk.npy", walk, top_k=0)[0] == 422
        assert ask(port, "walk.npy", walk, fps="nan")[0] == 422
        assert ask(port, "walk.npy", b"bug")[0] == 500 and ask(port, "walk.npy", walk)[0] == 200
        assert health(port)["requests"] == 0 and not list(tmp_path.iterdir())


def test_a_full_server_refuses_and_recovers(serving, walks):
    walk = walks[0].read_bytes()
    with serving(max_requests=3) as (port, watched), ThreadPoolExecutor(3) as clients:
        watched.is_free.clear()
        accepted = [clients.submit(ask, port, "walk.npy", walk) for _ in range(3)]
        until(lambda: health(port)["requests"] == 3)
        for _ in range(5):
            status, error, headers = ask(port, "walk.npy", walk)
            assert (status, headers["retry-after"]) == (503, "1") and "3 requests" in error["detail"]
        watched.is_free.set()
        assert [answer.result()[0] for answer in accepted] == [200] * 3
        assert ask(port, "walk.npy", walk)[0] == 200


def test_time_is_limited(serving, walks):
    walk = walks[0].read_bytes()
    with serving(seconds=0.3) as (port, watched):
        watched.is_free.clear()
        assert ask(port, "walk.npy", walk)[:2] == (504, {"detail": "the file was not recognised within 0.3 s."})
        assert ask(port, "walk.npy", walk)[0] == 504  # it waited behind the first, and is not read any more
        watched.is_free.set()
        for ends_early in (False, True):
            with socket.create_connection(("127.0.0.1", port)) as slow:
                slow.sendall(b"POST /recognise?name=a.npy HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
                until(lambda: health(port)["requests"] == 1)
                if not ends_early:
                    assert slow.recv(1000).startswith(b"HTTP/1.1 408")
        until(lambda: health(port)["requests"] == 0)
        assert watched.calls == [1]


def test_an_exception_is_that_of_one_file():
    """Another file of the batch, whatever its settings, has its answer."""

    def recognise(paths, fps, **settings):
        if "bug" in paths:
            raise KeyError("bug")
        return [[{"label": path, "score": fps}] for path in paths]

    async def answers():
        batches = server.Batches(recognise, 8)
        task = asyncio.create_task(batches.run())
        asked = [batches.answer(path, {"fps": fps}) for path, fps in (("a", 1), ("bug", 1), ("b", 1), ("c", 2))]
        results = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 20)
        task.cancel()
        batches.thread.shutdown()
        return results

    first, error, second, third = asyncio.run(answers())
    assert isinstance(error, KeyError)
    assert [answer[0]["label"] for answer in (first, second, third)] == ["a", "b", "c"] and third[0]["score"] == 2


def test_the_command_checks_its_limits_and_listens_on_this_machine(monkeypatch, tmp_path, capsys):
    model, processor = tiny_recogniser("videos")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    started = {}
    monkeypatch.setattr(uvicorn, "run", lambda app, **settings: started.update(settings, app=app))
    monkeypatch.setattr(sys, "argv", ["action-llm-serve", str(tmp_path), "--port", "8001"])
    serve.main()
    assert (started["host"], started["port"]) == ("127.0.0.1", 8001)
    described = started["app"].openapi()["paths"]["/recognise"]["post"]
    assert ".mp4" in described["parameters"][0]["description"] and set(described["responses"]) >= {"413", "503"}
    monkeypatch.setattr(sys, "argv", ["action-llm-serve", str(tmp_path), "--writer", "smollm2"])
    with pytest.raises(ValueError, match="writer: this model reads videos"):
        serve.main()
    for option in ("--seconds", "--max_requests"):
        monkeypatch.setattr(sys, "argv", ["action-llm-serve", str(tmp_path), option, "0"])
        with pytest.raises(SystemExit):
            serve.main()
        assert f"{option}: expected more than 0, got 0" in capsys.readouterr().err


def test_the_load_test_counts_what_is_wrong(serving, recognise, walks, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("report")

    @contextlib.contextmanager
    def in_this_process(arguments, temporary):
        with serving(max_mib=arguments.max_mib, max_requests=arguments.max_requests) as (port, _):
            yield SimpleNamespace(pid=os.getpid()), port

    monkeypatch.setattr(benchmark_serving, "running_server", in_this_process)
    monkeypatch.setattr("action_llm_recipes.hub.demo.load_pipeline", lambda model: recognise)
    arguments = benchmark_serving.BenchmarkArguments(
        output=f"{folder}/serving", model="tiny", recordings=str(walks[0].parent), files=3, clients=4, seconds=1.0,
        warm_up_seconds=0.1, single_seconds=0.1, max_mib=1, max_requests=3,
    )  # fmt: skip
    result = benchmark_serving.main(arguments)
    assert result["single"]["wrong"] == result["many"]["wrong"] == 0
    assert result["many"]["statuses"]["recording"].keys() >= {200} and result["many"]["answers_per_second"] > 0
    assert json.loads(Path(folder, "serving.json").read_text())["clients"] == 4
    assert "| 4 |" in Path(folder, "serving.md").read_text()
    answer = [{"label": "waving", "score": 0.5}, {"label": "falling", "score": 0.4}]
    due = benchmark_serving.Sent("recording", "walk.npy", b"", 200, answer)
    assert not benchmark_serving.fault_of(due, 200, json.dumps(answer).encode())
    for wrong in (answer[::-1], [answer[0], {"label": "falling", "score": 0.41}], answer[:1]):
        assert benchmark_serving.fault_of(due, 200, json.dumps(wrong).encode())
    assert benchmark_serving.fault_of(due, 422, b'{"detail": "no"}')
