"""A small hub on this machine: as much of the Hugging Face API as fetching a model asks for, served from memory."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

ERRORS = {"RepoNotFound": 404, "RevisionNotFound": 404, "EntryNotFound": 404, "GatedRepo": 403}


@dataclass
class Hub:
    """Repositories: name -> commit -> file -> bytes; `refs` maps (repository, branch) to a commit. `asked` is what was asked for."""

    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    refs: dict[tuple[str, str], str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    token: str = "hf_secret"
    broken: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    url: str = ""

    def commit(self, repo: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit to a branch; its hash."""
        name = hashlib.sha1(repr((repo, sorted(files.items()))).encode()).hexdigest()
        self.repos.setdefault(repo, {})[name] = files
        self.refs[repo, branch] = name
        return name

    @property
    def files(self) -> list[str]:
        """The files that were sent, in order of their names."""
        return sorted(path.split("/resolve/")[1].split("/", 1)[1] for method, path in self.asked if method == "GET" and "/resolve/" in path)

    def find(self, repo: str, revision: str, path: str | None, token: str | None) -> tuple[str, dict[str, bytes]] | str:
        """The commit and its files, or the code of an error."""
        if repo not in self.repos:
            return "RepoNotFound"
        commit = self.refs.get((repo, revision), revision)
        if commit not in self.repos[repo]:
            return "RevisionNotFound"
        if path is not None and repo in self.gated and token != f"Bearer {self.token}":
            return "GatedRepo"
        return "EntryNotFound" if path is not None and path not in self.repos[repo][commit] else (commit, self.repos[repo][commit])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *told: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        self.hub.asked.append((self.command, "/".join(parts)))
        self.hub.tokens.add(self.headers.get("authorization"))
        if self.hub.broken:
            self.answer(503, b"", {})
        elif parts[:2] == ["api", "models"]:
            self.about("/".join(parts[2:4]), parts[4] if len(parts) > 4 else "", parts[5] if len(parts) > 5 else "main")
        else:
            self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    do_HEAD = do_GET

    def about(self, repo: str, what: str, revision: str) -> None:
        found = self.hub.find(repo, revision, None, None)
        if isinstance(found, str):
            return self.refuse(found)
        commit, files = found
        if what == "tree":
            told = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()} for name, data in files.items()
            ]
        else:
            told = {"id": repo, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
        return self.answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def file(self, repo: str, revision: str, name: str) -> None:
        found = self.hub.find(repo, revision, name, self.headers.get("authorization"))
        if isinstance(found, str):
            return self.refuse(found)
        data = found[1][name]
        return self.answer(200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": found[0]})

    def refuse(self, code: str) -> None:
        self.answer(ERRORS[code], b"", {"X-Error-Code": code})

    def answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub at `hub.url`, for the length of a block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
