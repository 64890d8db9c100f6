"""A stand-in for the Hub on loopback: enough of its HTTP for the real client to push, to pull and to be refused.

    with HubServer() as hub:
        environment = hub.environment(tmp_path)  # for a process that has not imported huggingface_hub yet

Everything is kept in memory. A repository is a list of commits, each a dict of path → bytes; `main` is the last one.
"""

import base64
import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_" + "standin" * 5
USER = "tester"
# Files that the Hub keeps as they are, and not by their hash.
TEXT = (".py", ".md", ".json", ".yaml", ".yml", ".txt", ".jinja", ".gitattributes")


@dataclass
class Repository:
    """Its commits, the oldest first; who may read it."""

    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    private: bool = False
    gated: bool = False

    def commit(self, files: dict[str, bytes], title: str = "") -> str:
        content = sorted((path, hashlib.sha1(data).hexdigest()) for path, data in files.items())
        sha = hashlib.sha1(json.dumps([len(self.commits), title, content]).encode()).hexdigest()
        self.commits.append((sha, files))
        self.titles.append(title)
        return sha

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1]
        return next((one for one in self.commits if one[0] == revision), None)


class Refusal(Exception):
    """An answer that is none: status and the code that the client makes an exception of."""

    def __init__(self, status: int, code: str, message: str):
        self.status, self.code, self.message = status, code, message


class HubServer:
    """Answers on loopback until its `with` block ends.

    Attributes:
        repositories: (type, "owner/name") → `Repository`.
        requests: "METHOD path -> status" of every request, in order.
        url: where it listens.
    """

    def __init__(self):
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: str | os.PathLike, token: str | None = TOKEN) -> dict[str, str]:
        """Environment of a process that knows this Hub alone, with its caches in `home`."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))
        }
        # Loopback is never behind a proxy.
        kept = {name: value for name, value in kept.items() if not name.lower().endswith("_proxy")}
        hub = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        return kept | hub | ({} if token is None else {"HF_TOKEN": token})

    def files(self, name: str, kind: str = "model") -> dict[str, bytes]:
        """Path → content of the last commit of a repository."""
        return self.repositories[kind, name].commits[-1][1]

    def add(self, name: str, folder: str | os.PathLike, kind: str = "model", **access) -> Repository:
        """A repository with the files of a folder, as if somebody else had pushed it."""
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in Path(folder).rglob("*")
            if path.is_file()
        }
        repository = self.repositories[kind, name] = Repository(**access)
        repository.commit(files, "from a folder")
        return repository

    def answer(self, method: str, path: str, query: dict, body: bytes, headers) -> tuple[int, dict, bytes]:
        """Status, headers and body for a request."""
        with self._lock:
            for pattern, respond in _ROUTES:
                if found := re.fullmatch(pattern, path):
                    made = respond(self, method, query, body, headers, **found.groupdict())
                    if isinstance(made, tuple):
                        return made
                    return 200, {"Content-Type": "application/json"}, json.dumps(made).encode()
        raise Refusal(404, "NotImplemented", f"the stand-in has no {method} {path}")

    def _repository(self, kind: str | None, name: str, headers, *, content: bool = False) -> Repository:
        """A repository that may be read. What it holds (`content`) may be asked of a gated one by those who are let in."""
        repository = self.repositories.get(((kind or "models").removesuffix("s"), name))
        known = headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not known):
            raise Refusal(404 if known else 401, "RepoNotFound", "Repository not found")
        if content and repository.gated and not known:
            asked = 403 if "Authorization" in headers else 401
            raise Refusal(asked, "GatedRepo", f"Access to model {name} is restricted. You must have access to it.")
        return repository

    @staticmethod
    def _at(repository: Repository, revision: str) -> tuple[str, dict[str, bytes]]:
        found = repository.at(unquote(revision))
        if found is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def _who(self, method, query, body, headers):
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refusal(401, "Unauthorized", "Invalid username or password.")
        token = {"role": "write", "displayName": "test"}
        return {"type": "user", "name": USER, "orgs": [], "auth": {"accessToken": token}}

    def _valid(self, method, query, body, headers):
        return {"errors": [], "warnings": []}

    def _create(self, method, query, body, headers):
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refusal(401, "Unauthorized", "Invalid username or password.")
        wanted = json.loads(body)
        kind, name = wanted.get("type") or "model", f"{wanted.get('organization') or USER}/{wanted['name']}"
        url = f"{self.url}/{'' if kind == 'model' else kind + 's/'}{name}"
        if (kind, name) in self.repositories:
            return 409, {}, json.dumps({"error": "You already created this repo", "url": url}).encode()
        private = bool(wanted.get("private") or wanted.get("visibility") == "private")
        self.repositories[kind, name] = Repository(private=private)
        self.repositories[kind, name].commit({".gitattributes": b""}, "initial commit")
        return {"url": url, "name": name, "id": name}

    def _info(self, method, query, body, headers, kind, name, revision="main"):
        repository = self._repository(kind, name, headers)
        sha, files = self._at(repository, revision)
        return {
            "_id": "0" * 24, "id": name, "modelId": name, "sha": sha, "private": repository.private,
            "gated": "auto" if repository.gated else False, "disabled": False, "tags": [], "downloads": 0, "likes": 0,
            "siblings": [{"rfilename": path} for path in sorted(files)],
            "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z",
        }  # fmt: skip

    def _preupload(self, method, query, body, headers, kind, name, revision):
        self._at(self._repository(kind, name, headers), revision)
        modes = [
            {"path": one["path"], "uploadMode": "lfs" if _is_large(one["path"]) else "regular", "shouldIgnore": False}
            for one in json.loads(body)["files"]
        ]
        return {"files": modes}

    def _commit(self, method, query, body, headers, kind, name, revision):
        repository = self._repository(kind, name, headers)
        files, title = dict(self._at(repository, revision)[1]), ""
        for line in map(json.loads, body.splitlines()):
            action, value = line["key"], line["value"]
            if action == "header":
                title = value["summary"]
            elif action == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif action == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
            elif action == "deletedFile":
                files.pop(value["path"], None)
            elif action == "deletedFolder":
                files = {
                    path: data for path, data in files.items() if not path.startswith(value["path"].rstrip("/") + "/")
                }
        sha = repository.commit(files, title)
        return {"commitUrl": f"{self.url}/{name}/commit/{sha}", "commitOid": sha, "success": True}

    def _tree(self, method, query, body, headers, kind, name, revision, folder):
        _, files = self._at(self._repository(kind, name, headers), revision)
        inside = f"{(folder or '').strip('/')}/".lstrip("/")
        deep = query.get("recursive", ["0"])[0].lower() in ("1", "true")
        found, folders = [], set()
        for path, data in sorted(files.items()):
            if not path.startswith(inside):
                continue
            rest = path[len(inside) :]
            if "/" in rest:
                folders.add(inside + rest.split("/")[0])
            if deep or "/" not in rest:
                found.append(_entry(path, data))
        if inside and not (found or folders):
            raise Refusal(404, "EntryNotFound", f"{inside} does not exist")
        return [*({"type": "directory", "path": one, "size": 0, "oid": "0" * 40} for one in sorted(folders)), *found]

    def _paths(self, method, query, body, headers, kind, name, revision):
        _, files = self._at(self._repository(kind, name, headers), revision)
        wanted = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode()).get("paths", [])
        return [_entry(path, files[path]) for path in wanted if path in files]

    def _refs(self, method, query, body, headers, kind, name):
        sha, _ = self._at(self._repository(kind, name, headers), "main")
        branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": sha}
        return {"branches": [branch], "tags": [], "converts": []}

    def _large_files(self, method, query, body, headers, kind, name):
        def one(wanted: dict) -> dict:
            there = wanted["oid"] in self.large
            upload = {"upload": {"href": f"{self.url}/_large/{wanted['oid']}"}}
            return {"oid": wanted["oid"], "size": wanted["size"]} | ({} if there else {"actions": upload})

        return {"transfer": "basic", "objects": [one(wanted) for wanted in json.loads(body)["objects"]]}

    def _upload(self, method, query, body, headers, oid):
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refusal(400, "BadHash", "what came is not what was announced")
        self.large[oid] = body
        return 200, {}, b""

    def _resolve(self, method, query, body, headers, kind, name, revision, path):
        repository = self._repository(kind, name, headers, content=True)
        sha, files = self._at(repository, revision)
        if path not in files:
            raise Refusal(404, "EntryNotFound", f"{path} does not exist")
        data = files[path]
        tags = {"X-Repo-Commit": sha, "ETag": f'"{_oid(path, data)}"', "Accept-Ranges": "bytes"}
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range") or ""):
            first, last = int(part[1]), min(int(part[2] or len(data)), len(data) - 1)
            tags["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            return 206, tags, data[first : last + 1]
        return 200, tags, data


_API = r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)"
_GIT = r"/(?:(?P<kind>datasets|spaces)/)?(?P<name>[^/]+/[^/]+)"
_ROUTES = [
    (r"/api/whoami-v2", HubServer._who),
    (r"/api/validate-yaml", HubServer._valid),
    (r"/api/repos/create", HubServer._create),
    (r"/_large/(?P<oid>\w+)", HubServer._upload),
    (_API, HubServer._info),
    (_API + r"/revision/(?P<revision>.+)", HubServer._info),
    (_API + r"/preupload/(?P<revision>.+)", HubServer._preupload),
    (_API + r"/commit/(?P<revision>.+)", HubServer._commit),
    (_API + r"/paths-info/(?P<revision>.+)", HubServer._paths),
    (_API + r"/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", HubServer._tree),
    (_API + r"/refs", HubServer._refs),
    (_GIT + r"\.git/info/lfs/objects/batch", HubServer._large_files),
    (_GIT + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", HubServer._resolve),
]  # fmt: skip


def _is_large(path: str) -> bool:
    return not path.endswith(TEXT)


def _oid(path: str, data: bytes) -> str:
    return (
        hashlib.sha256(data).hexdigest()
        if _is_large(path)
        else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    )


def _entry(path: str, data: bytes) -> dict:
    large = {"lfs": {"oid": _oid(path, data), "size": len(data), "pointerSize": 130}} if _is_large(path) else {}
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()} | large


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            """Requests are in `HubServer.requests`."""

        def _respond(self):
            url = urlsplit(self.path)
            try:
                status, headers, body = hub.answer(
                    self.command, unquote(url.path), parse_qs(url.query), self._body(), self.headers
                )
            except Refusal as refusal:
                status, body = refusal.status, json.dumps({"error": refusal.message}).encode()
                headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            hub.requests.append(f"{self.command} {unquote(url.path)} -> {status}")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _body(self) -> bytes:
            if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _respond

    return Handler
