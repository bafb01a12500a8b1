"""A local server that speaks as much of the Hub's HTTP as `datasets` and huggingface_hub need, with its bad days.

Repositories are folders: ROOT/<owner>/<name>/<revision>/files. A revision that is no commit stands for COMMIT, or for the
commit that `move` says. What goes wrong with which is told by `trouble`:
  gated    401 without a token, with the Hub's headers        refused  403
  missing  404                                                 busy     503 for the first two requests of a file
  cut      half of the file, then the connection is closed, once        slow  an answer that stalls, once
  script   as the Hub: the files are there, among them <name>.py
Only files that this process was given are served; it listens on 127.0.0.1.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class StandInHub:
    """The server, running in a thread until `close`.

    Args:
        root: where the repositories lie.
        trouble: repository -> what is wrong with it.
        stall_seconds: how long a slow answer stalls.
    """

    def __init__(self, root: Path, trouble: dict[str, str] | None = None, stall_seconds: float = 4.0) -> None:
        self.root, self.trouble, self.stall_seconds = root, trouble or {}, stall_seconds
        self.asked: Counter[str] = Counter()
        self.log: list[str] = []
        self.made: dict[str, dict[str, Any]] = {}  # what was uploaded: repository -> how it was made
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def move(self, repository: str, branch: str, commit: str) -> None:
        """Let a branch or tag stand for a commit whose files were added."""
        link = self.root / repository / branch.replace("/", "%2F")
        link.unlink(missing_ok=True)
        link.symlink_to(commit)

    def add(self, repository: str, file: str, content: bytes, revision: str = "main") -> None:
        """A file in a repository."""
        path = self.root / repository / revision.replace("/", "%2F") / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class _Handler(BaseHTTPRequestHandler):
    hub: StandInHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else head and body of an answer come 40 ms apart

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self._answer(head=True)

    def do_GET(self) -> None:
        self._answer(head=False)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(head=False, asked=body)

    def _answer(self, head: bool, asked: bytes = b"") -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        self.hub.log.append(f"{self.command} {self.path}")
        is_put = (self.command == "POST" and parts[-2:-1] != ["paths-info"]) or "/".join(parts[2:4]) in self.hub.made
        if parts in (["api", "validate-yaml"], ["api", "repos", "create"]) or (
            parts[:2] == ["api", "models"] and is_put
        ):
            return self._upload(parts[1:], asked)
        if parts[:2] in (["api", "datasets"], ["api", "models"]) and len(parts) >= 4:
            return self._api("/".join(parts[2:4]), parts[4:], asked)
        if len(parts) > 4 and parts[2] == "resolve":
            return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), head)
        if parts[0] == "datasets" and len(parts) > 5 and parts[3] == "resolve":
            return self._file("/".join(parts[1:3]), parts[4], "/".join(parts[5:]), head)
        return self._json({"error": "Not Found"}, 404)

    def _upload(self, what: list[str], asked: bytes) -> None:
        """A model that is put here: its card is looked at, it is made, its files come in a commit."""
        said = json.loads(asked) if what[0] in ("validate-yaml", "repos") else None
        if said is not None and what[0] == "validate-yaml":
            head = yaml.safe_load(said["content"].split("---")[1]) or {}
            names = head.get("base_model") or []
            wrong = [name for name in names if not re.fullmatch(r"[\w.-]+/[\w.-]+", name)]  # as the Hub: no local paths
            return self._json({"errors": [{"message": f"base_model: {name}"} for name in wrong], "warnings": []},
                              400 if wrong else 200)  # fmt: skip
        if "Bearer " not in (self.headers.get("Authorization") or ""):
            return self._json({"error": "Invalid username or password."}, 401)
        if said is not None:
            self.hub.made[f"{said.get('organization')}/{said['name']}"] = said
            return self._json({"url": f"{self.hub.endpoint}/{said.get('organization')}/{said['name']}"})
        repository, *rest = "/".join(what[1:3]), *what[3:]
        if rest[:1] == ["preupload"]:
            files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for one in json.loads(asked)["files"]]  # fmt: skip
            return self._json({"files": files})
        if rest[:1] == ["commit"]:
            for line in map(json.loads, asked.decode().splitlines()):
                if line["key"] == "file":
                    self.hub.add(repository, line["value"]["path"], base64.b64decode(line["value"]["content"]))
            return self._json({"commitUrl": f"{self.hub.endpoint}/{repository}/commit/{COMMIT}", "commitOid": COMMIT})
        return self._json({"id": repository, "sha": COMMIT, "siblings": [], "private": False, "tags": []})

    def _refused(self, repository: str) -> bool:
        """Answer for a repository that cannot be had."""
        trouble = self.hub.trouble.get(repository)
        gated = {
            "X-Error-Code": "GatedRepo",
            "X-Error-Message": f"Access to dataset {repository} is restricted.",
        }
        if trouble == "gated":
            self._json({"error": "restricted"}, 401, gated)
        elif trouble == "refused":
            self._json({"error": "not in the authorized list"}, 403, gated)
        elif trouble == "missing" or not (self.hub.root / repository).is_dir():
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        else:
            return False
        return True

    def _folder(self, repository: str, revision: str) -> Path:
        folder = self.hub.root / repository / revision.replace("/", "%2F")
        if revision == COMMIT:
            folder = next(one for one in sorted((self.hub.root / repository).iterdir()) if _commit_of(one) == COMMIT)
        if not folder.is_dir() and re.fullmatch("[0-9a-f]{7,39}", revision):  # a short hash
            folder = next((self.hub.root / repository).glob(f"{revision}*"), folder)
        return folder.resolve()

    def _api(self, repository: str, rest: list[str], asked: bytes) -> None:
        if self._refused(repository):
            return None
        if rest == ["auth-check"]:
            return self._json({})
        revision = rest[1] if len(rest) > 1 else "main"
        folder = self._folder(repository, revision)
        if not folder.is_dir():
            return self._json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if rest and rest[0] in ("tree", "paths-info"):
            below = "/".join(rest[2:])
            wanted = [path for path in files if path.relative_to(folder).as_posix().startswith(below)]
            entries = [_entry(path, folder) for path in wanted]
            if rest[0] == "paths-info":
                names = _names(asked)
                entries = [entry for entry in entries if entry["path"] in names]
            elif "recursive=true" not in self.path.lower():
                entries = _one_level(entries, below)
            if rest[0] == "tree" and below and not entries:
                return self._json({"error": "no such path"}, 404, {"X-Error-Code": "EntryNotFound"})
            return self._json(entries)
        names = [{"rfilename": path.relative_to(folder).as_posix()} for path in files]
        return self._json({"id": repository, "sha": _commit_of(folder), "siblings": names, "gated": False, "private": False,
                           "tags": [], "downloads": 0, "likes": 0})  # fmt: skip

    def _file(self, repository: str, revision: str, name: str, head: bool) -> None:
        if self._refused(repository):
            return None
        if not self._folder(repository, revision).is_dir():
            return self._json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        path = self._folder(repository, revision) / name
        if not path.is_file():
            return self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        content, trouble = path.read_bytes(), self.hub.trouble.get(repository)
        key = f"{self.command} {repository} {name}"
        self.hub.asked[key] += 1
        if trouble == "busy" and not head and self.hub.asked[key] <= 2:
            return self._json({"error": "busy"}, 503)
        first = self.hub.asked[key] == 1 and not head
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", _commit_of(self._folder(repository, revision)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if head:
            return None
        if first and trouble == "slow":
            time.sleep(self.hub.stall_seconds)
        if first and trouble == "cut":
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return None
        self.wfile.write(content[start:])
        return None

    def _json(self, answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _commit_of(folder: Path) -> str:
    """The commit that a revision's folder is of."""
    return folder.name if re.fullmatch("[0-9a-f]{40}", folder.name) else COMMIT


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content),
            "path": path.relative_to(folder).as_posix()}  # fmt: skip


def _one_level(entries: list[dict[str, Any]], below: str) -> list[dict[str, Any]]:
    """Files in a folder and the folders in it, as the Hub lists a tree that is not recursive."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        inside = entry["path"].removeprefix(below).strip("/")
        head, slash, _ = inside.partition("/")
        path = f"{below}/{head}".strip("/")
        found.setdefault(path, {"type": "directory", "oid": "0" * 40, "size": 0, "path": path} if slash else entry)
    return list(found.values())


def _names(asked: bytes) -> set[str]:
    """The paths of a paths-info question, sent as JSON or as a form."""
    try:
        return set(json.loads(asked)["paths"])
    except (json.JSONDecodeError, KeyError):
        from urllib.parse import parse_qs

        return set(parse_qs(asked.decode()).get("paths", []))
