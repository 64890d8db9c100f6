"""The application of `serve.py`: requests with a file, which are answered in batches, within limits."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI, HTTPException, Query, Request
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from action_llm.versions import __version__
from action_llm.written_reasons import load_writer
from action_llm_recipes.hub.demo import load_pipeline, pose_estimator, readable_suffixes, reads_skeletons
from action_llm_recipes.hub.handler import file_name

# Seconds for which a batch that is not full waits for further requests. They also gather while the model reads another batch.
GATHER_SECONDS = 0.005
# Seconds for which the rest of a refused file is received. If the connection were closed at once, the client might not get the
# answer.
REFUSED_SECONDS = 2.0


@dataclass
class Limits:
    """Limits of the requests.

    Args:
        batch_size: recordings that the model reads at a time.
        max_mib: size of a file, in MiB.
        max_requests: requests whose file is received, that wait, or that are answered, at the same time.
        seconds: for receiving a file, and again for its answer.
    """

    batch_size: int
    max_mib: int
    max_requests: int
    seconds: float


class Answer(BaseModel):
    """A class. The first of an answer also has what is said about the recording."""

    label: str = Field(description="name of the class")
    score: float = Field(description="probability of the class")
    unsure: bool = Field(False, description="true if the score is below the threshold of the model, else absent")
    warnings: list[str] = Field([], description="reasons to doubt the answer; absent if there are none")
    reason: str = Field("", description="with explain: what speaks for the class")
    reason_by: Literal["rules", "language model"] = Field(
        "rules", description="with explain, if the server has a writer: who worded the reason"
    )
    statements: dict[str, int] = Field(
        {},
        description="with explain, if the server has a writer: the numbers of its statements by the outcome of their check",
    )
    description: str = Field("", description="with explain, for some models: what the person does")


class Health(BaseModel):
    """The state of the server."""

    requests: int = Field(description="requests whose file is received, that wait, or that are answered now")
    suffixes: list[str] = Field(description="suffixes of the files that the model reads")
    classes: list[str] = Field(description="names of the classes that the model knows")


class Refusal(BaseModel):
    """An error."""

    detail: str = Field(description="what was expected, and what was found")


class Batches:
    """Recognises recordings in batches, on a thread of its own.

    Args:
        recognise: pipeline of the recogniser.
        size: number of recordings in a batch.
    """

    def __init__(self, recognise, size: int):
        self.recognise, self.size = recognise, size
        self.waiting: asyncio.Queue[tuple[str, dict, asyncio.Future]] = asyncio.Queue()
        self.thread = ThreadPoolExecutor(1, "recogniser")

    async def answer(self, path: str, settings: dict) -> list[dict]:
        """The pipeline's answer to a file: all classes, or a single dict with `error` if it cannot be recognised."""
        answer = asyncio.get_running_loop().create_future()
        self.waiting.put_nowait((path, settings, answer))
        return await answer

    async def run(self):
        """Answers until it is cancelled."""
        while True:
            batch = [await self.waiting.get()]
            if self.waiting.qsize() < self.size - 1:
                await asyncio.sleep(GATHER_SECONDS)
            while len(batch) < self.size and not self.waiting.empty():
                batch.append(self.waiting.get_nowait())
            groups = {}
            for path, settings, answer in batch:
                groups.setdefault(tuple(settings.items()), []).append((path, answer))
            for settings, group in groups.items():
                await self._answer_all(group, dict(settings))

    async def _answer_all(self, group: list[tuple[str, asyncio.Future]], settings: dict):
        """Answers files with the same settings, but for those whose time is over: their futures are cancelled."""
        group = [(path, answer) for path, answer in group if not answer.done()]
        work = asyncio.get_running_loop().run_in_executor(
            self.thread, self._recognised, [path for path, _ in group], settings
        )
        for (_, answer), result in zip(group, await work, strict=True):
            if answer.done():
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

    def _recognised(self, paths: list[str], settings: dict) -> list[list[dict] | Exception]:
        """The answer to each file. An exception, which the pipeline does not return by itself, is that of one file alone."""
        if not paths:
            return []
        try:
            return self.recognise(paths, batch_size=self.size, top_k=None, on_error="return", **settings)
        except Exception as error:
            if len(paths) > 1:
                return [answer for path in paths for answer in self._recognised([path], settings)]
            return [[{"error": str(error)}] if isinstance(error, ValueError) else error]


def build(model: str, limits: Limits, writer: str | None = None) -> FastAPI:
    """The application.

    Args:
        model: folder or repository of a recogniser.
        limits: limits of the requests.
        writer: name of the language model that rewords all reasons (`load_writer`); requests cannot choose it.

    Raises:
        ValueError: if the writer cannot write.
    """
    recognise = load_pipeline(model)
    rewording = {} if writer is None else {"writer": load_writer(writer, recognise.model, recognise.processor)}
    estimator = pose_estimator() if reads_skeletons(recognise) else None
    suffixes = readable_suffixes(recognise, estimator)
    batches = Batches(recognise, limits.batch_size)
    open_requests = 0

    @contextlib.asynccontextmanager
    async def lifespan(_):
        task = asyncio.create_task(batches.run())
        yield
        task.cancel()
        batches.thread.shutdown()

    app = FastAPI(
        title="Action recognition",
        version=__version__,
        description="Recognises the action in a recording.",
        lifespan=lifespan,
    )
    errors = {
        400: "the file did not arrive as a whole",
        408: f"the file did not arrive within {limits.seconds:g} s",
        413: f"the file is larger than {limits.max_mib} MiB",
        415: "the model does not read files with the suffix of this name",
        422: "a parameter is wrong, or the file cannot be read",
        503: f"{limits.max_requests} requests are being answered; try again after the seconds in Retry-After",
        504: f"there was no answer within {limits.seconds:g} s",
    }
    body = {"description": f"the file, of at most {limits.max_mib} MiB", "required": True}
    body |= {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}

    @app.post(
        "/recognise",
        response_model=list[Answer],
        response_model_exclude_unset=True,
        responses={status: {"description": text, "model": Refusal} for status, text in errors.items()},
        openapi_extra={"requestBody": body},
        summary="The most likely actions in a recording, the most likely first",
    )
    async def recognise_file(
        request: Request,
        name: Annotated[str, Query(description=f"name of the file, with one of {', '.join(suffixes)}")],
        top_k: Annotated[int, Query(ge=1, description="number of classes")] = 5,
        explain: Annotated[bool, Query(description="whether to say what speaks for the most likely class")] = False,
        fps: Annotated[
            float | None, Query(gt=0, allow_inf_nan=False, description="frames per second, if the file has no rate")
        ] = None,
    ):
        nonlocal open_requests
        name = file_name(name)
        if not name.endswith(suffixes):
            await drop(request.stream())
            raise HTTPException(415, f"name: expected one that ends in {', '.join(suffixes)}.")
        if open_requests >= limits.max_requests:
            await drop(request.stream())
            raise HTTPException(503, f"{limits.max_requests} requests are being answered.", {"Retry-After": "1"})
        open_requests += 1
        try:
            with tempfile.TemporaryDirectory(prefix="action-llm-serve-") as folder:
                path = Path(folder, name)
                await within(limits.seconds, 408, receive(request.stream(), path, limits.max_mib))
                settings = {"explain": explain, "fps": fps, "pose": estimator, **(rewording if explain else {})}
                answers = await within(limits.seconds, 504, batches.answer(str(path), settings))
        finally:
            open_requests -= 1
        if "error" in answers[0]:
            raise HTTPException(422, answers[0]["error"].replace(folder + os.sep, ""))
        return answers[:top_k]

    @app.get("/health", response_model=Health, summary="Whether the server answers, and what it reads")
    async def health():
        return {"requests": open_requests, "suffixes": suffixes, "classes": recognise.processor.class_names}

    return app


async def receive(parts: AsyncIterator[bytes], path: Path, max_mib: int):
    """Writes the body of a request into a file.

    Raises:
        HTTPException: if it is too large, as soon as that is known, or ends early.
    """
    size = 0
    try:
        with path.open("wb") as file:
            async for part in parts:
                size += len(part)
                if size > max_mib << 20:
                    break
                file.write(part)
    except ClientDisconnect as error:
        raise HTTPException(400, "the connection ended before the file did.") from error
    if size > max_mib << 20:
        await drop(parts)
        raise HTTPException(413, f"expected a file of at most {max_mib} MiB.")


async def drop(parts: AsyncIterator[bytes]):
    """Receives the rest of a body that is refused, without keeping it."""
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(REFUSED_SECONDS):
            async for _ in parts:
                pass


async def within(seconds: float, status: int, work):
    """Awaits `work`.

    Raises:
        HTTPException: with this status, if it takes longer.
    """
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        verb = "received" if status == 408 else "recognised"
        raise HTTPException(status, f"the file was not {verb} within {seconds:g} s.") from error
