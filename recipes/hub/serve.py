"""
A server of a recogniser: POST a recording, get the most likely actions as JSON.

```bash
action-llm-serve runs/quickstart/model --port 8000
curl --data-binary @walk.skeleton "http://127.0.0.1:8000/recognise?name=walk.skeleton&explain=true"
```

The body of a request is the file; `name` is its name, whose suffix tells the format. The answer is that of the pipeline, an
error is an object with `detail`, a sentence. `GET /health` tells what the server reads, and `/docs` describes every parameter.

With `--writer smollm2`, a language model rewords the reasons; `--writer own` is that of the recogniser, if it was frozen in
training and follows instructions. Requests cannot choose it. A text is used if all of its statements were measured. It takes
seconds per recording, which others of its batch wait for: choose `--batch_size` and `--seconds` accordingly.

A single thread answers the requests, in batches. `--max_mib` limits the size of a file, `--seconds` the time in which it
arrives and that of its answer, and `--max_requests` the number of requests at the same time: one more is refused (503), so that
the queue cannot grow. A file is written into a temporary folder, under a name that the server chooses, and is removed with its
answer.

The server listens on 127.0.0.1 unless you pass `--host`. It has neither TLS nor accounts: let others reach it only through a
proxy that has. Ctrl-C ends it after the requests that it has accepted. Needs the extra `serve`: `pip install -e '.[serve]'`.
"""

import argparse

from action_llm_recipes.common.launching import CommandParser, launch_command


def main() -> None:
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="folder or Hub repository of a recogniser")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: 8000)")
    parser.add_argument(
        "--writer",
        help="language model that rewords the reasons: a repository, a folder, a GGUF file, smollm2, or own (default: rules)",
    )
    limits = (
        parser.add_argument(
            "--batch_size", type=int, default=16, help="recordings that the model reads at a time (default: 16)"
        ),
        parser.add_argument("--max_mib", type=int, default=64, help="largest size of a file, in MiB (default: 64)"),
        parser.add_argument(
            "--max_requests", type=int, default=64, help="requests at the same time; one more is refused (default: 64)"
        ),
        parser.add_argument(
            "--seconds",
            type=float,
            default=60.0,
            help="longest time of a file to arrive, and of its answer (default: 60)",
        ),
    )
    given = parser.parse_args()
    for limit in limits:
        if not getattr(given, limit.dest) > 0:
            parser.error(f"--{limit.dest}: expected more than 0, got {getattr(given, limit.dest)}.")
    from action_llm_recipes.common.written_folders import check_recogniser

    check_recogniser(given.model)
    try:
        import uvicorn

        from action_llm_recipes.hub.server import Limits, build
    except ImportError as error:
        raise SystemExit("hub/serve.py needs fastapi and uvicorn: pip install -e '.[serve]'") from error
    app = build(given.model, Limits(**{limit.dest: getattr(given, limit.dest) for limit in limits}), given.writer)
    uvicorn.run(app, host=given.host, port=given.port, access_log=False)


def cli():
    """The command `action-llm-serve`."""
    launch_command(main)


if __name__ == "__main__":
    cli()
