"""A Hugging Face hub on 127.0.0.1: one model, with the parts of the API that a snapshot download asks for."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Serves `files` (path -> bytes) as the model owner/name, as a context manager.

    Attributes:
        endpoint: for HF_ENDPOINT.
        gated: files are refused as those of a gated model.
        hidden: the model is not found (as for a wrong name, or a private one).
        broken_after: bytes after which the connection of a file's download is cut, or None.
        failing: an HTTP status given to every request, or None.
        requests: "METHOD path" of what was asked.
    """

    def __init__(
        self, files: dict[str, bytes], repo: str = "owner/name", revisions: tuple[str, ...] = ("main",)
    ) -> None:
        self.files, self.repo, self.revisions = files, "owner/name", (*revisions, COMMIT)
        self.gated = self.hidden = False
        self.broken_after: int | None = None
        self.failing: int | None = None
        self.requests: list[str] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.failing is not None:
            return self._error(self.hub.failing, "")
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        match = api or file
        if match is None or match[1] != self.hub.repo or self.hub.hidden:
            return self._error(401, "RepoNotFound")
        revision = (api[3] if api else match[2]) or "main"
        if revision not in self.hub.revisions:
            return self._error(404, "RevisionNotFound")
        if api:
            return self._json(self._tree() if api[2] == "tree" else self._info())
        return self._file(match[3])

    def _info(self) -> object:
        siblings = [{"rfilename": name} for name in self.hub.files]
        return {"_id": "0", "id": self.hub.repo, "modelId": self.hub.repo, "sha": COMMIT, "siblings": siblings}

    def _tree(self) -> object:
        return [
            {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for name, data in self.hub.files.items()
        ]

    def _file(self, name: str) -> None:
        if self.hub.gated:
            return self._error(403, "GatedRepo")
        data = self.hub.files.get(name)
        if data is None:
            return self._error(404, "EntryNotFound")
        start = 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if wanted and self.command == "GET":
            start = int(wanted[1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = self.hub.broken_after
        self.wfile.write(data[start : len(data) if limit is None else start + limit])
        if limit is not None and start + limit < len(data):
            self.close_connection = True

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str) -> None:
        body = json.dumps({"error": code or "failing"}).encode()
        self._send(status, body, {"X-Error-Code": code, "X-Error-Message": code} if code else {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
