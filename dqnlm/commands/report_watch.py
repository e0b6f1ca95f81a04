"""`dqnlm report RUN --watch`: the live page of a run, served to this machine alone until Ctrl-C."""

from __future__ import annotations

import argparse
import json
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dqnlm.errors import UserError
from dqnlm.reporting import live_page
from dqnlm.reporting.loading import read_lines, read_status
from dqnlm.reporting.names import run_name
from dqnlm.runs.directory import RunDirectory
from dqnlm.runs.reading import read_object

HERE = "127.0.0.1"
SECONDS = 3.0  # between two looks of the page
LONGEST_TEXT = 20_000  # characters in an address
NO_SCRIPTS = "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; frame-src 'self'; form-action 'none'"


def main(names: list[str], arguments: argparse.Namespace) -> int:
    """Serves the page of the one run that is named; returns 0 after Ctrl-C.

    Raises:
        UserError: several runs, or a port that is taken.
    """
    from dqnlm.runs.directory import find_run

    if len(names) > 1:
        raise UserError("--watch is of one run; leave the others out")
    if arguments.output or arguments.png:
        raise UserError("--watch writes no file: leave --output and --png out, or leave --watch out")
    watched = Watched(RunDirectory(find_run(names[0], arguments.output_dir)), arguments)
    server = make_server(watched, arguments.port)
    print(f"{address(server)}\nlive page of {watched.run.path}; for this machine alone, Ctrl-C ends it", flush=True)
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        print("\nended", flush=True)
    finally:
        server.server_close()
    return 0


class Server(ThreadingHTTPServer):
    """Listens on the loopback address.

    Attributes:
        watched: the run.
        token: without it in the address nothing is answered; other users of this machine, and pages of other sites, lack it.
    """

    daemon_threads = True
    allow_reuse_address = False  # two pages on one port would answer in turn

    def __init__(self, watched: Watched, port: int) -> None:
        self.watched, self.token = watched, secrets.token_urlsafe(24)
        super().__init__((HERE, port), Handler)


def make_server(watched: Watched, port: int) -> Server:
    """Raises UserError where nothing can listen on the port."""
    if not 0 <= port < 2**16:
        raise UserError(f"--port {port}: a port is a number from 1 to 65535 (or 0: any that is free)")
    try:
        return Server(watched, port)
    except OSError as error:
        raise UserError(
            f"--port {port} cannot be used ({error.strerror or error}); name another, or leave --port out for any that is free"
        ) from error


def address(server: Server) -> str:
    """Of the page, with the token."""
    return f"http://{HERE}:{server.server_address[1]}/{server.token}/"


@dataclass
class Watched:
    """What the page shows of a run. One request at a time reads it: the libraries behind it are not made for several."""

    run: RunDirectory
    arguments: argparse.Namespace
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _made: dict[str, tuple[Any, str]] = field(default_factory=dict)  # part -> (what it was made of, text)

    @property
    def name(self) -> str:
        return run_name(self.run.path, Path(self.arguments.output_dir))

    def state(self) -> dict[str, Any]:
        """What is newest, for the page to compare."""
        with self._lock:
            # A summary that is being replaced, or damaged, is none; the report says so.
            status = read_status(self.run.path, read_object(self.run.summary) or None)
            stamps = [_stamp(file) for file in (self.run.metrics, self.run.samples, self.run.summary, self.run.manifest)]
            return {
                "status": status, "report": f"{status} {stamps}", "sample": stamps[1], "checkpoint": self._checkpoint(),
            }  # fmt: skip

    def report(self) -> str:
        """Curves, samples and settings."""
        key = self.state()["report"]
        with self._lock:
            return self._once("report", key, lambda: live_page.report_part(self.run, self.arguments.metric))

    def inspection(self, text: str | None) -> str:
        """The inspector's page about a text, or about the newest sample; a sentence where there can be none."""
        with self._lock:
            checkpoint = self._checkpoint()
            try:
                text = text or live_page.newest_sample(read_lines(self.run.samples, []))
                if checkpoint is None or text is None:
                    return live_page.sentence_page("There is nothing to look at yet: no checkpoint, or no sample.")
                chosen = text
                return self._once("inspection", (checkpoint, chosen), lambda: self._inspected(checkpoint, chosen))
            except UserError as error:
                return live_page.sentence_page(str(error))

    def _checkpoint(self) -> str | None:
        from dqnlm.runs.checkpoint import step_folders

        folders = step_folders(self.run.checkpoints)
        return folders[-1].name.removeprefix("step-") if folders else None

    def _inspected(self, checkpoint: str, text: str) -> str:
        from dqnlm.builder.loading import load_policy_and_config
        from dqnlm.commands.inspect import heading
        from dqnlm.evaluation.inspection import inspect_text
        from dqnlm.reporting.inspection_page import build_page

        options = self.arguments
        policy, config = load_policy_and_config(
            self.run.path, checkpoint, options.output_dir, "cpu", options.allow_targets, options.base
        )
        named = argparse.Namespace(checkpoint=checkpoint, output_dir=options.output_dir)
        return build_page(inspect_text(policy, text), heading(policy, config, self.run.path, named))

    def _once(self, part: str, key: Any, make: Any) -> str:
        if self._made.get(part, (None, ""))[0] != key:
            self._made[part] = (key, make())
        return self._made[part][1]


def _stamp(file: Path) -> str:
    try:
        found = file.stat()
    except OSError:
        return "-"
    return f"{found.st_mtime_ns}.{found.st_size}"


class Handler(BaseHTTPRequestHandler):
    """Answers GET below the token, for the loopback's own name; 403 for all else."""

    server: Server
    server_version, sys_version = "dqnlm", ""

    def do_GET(self) -> None:
        found = urlsplit(self.path)
        _, token, *rest = [*found.path.split("/"), ""]
        if not self._is_ours(token):
            self._answer(403, "text/plain", "the address needs the token that dqnlm report --watch printed\n")
            return
        asked = {name: values[0] for name, values in parse_qs(found.query, keep_blank_values=True).items()}
        try:
            self._part("/".join(rest).strip("/"), asked)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the page was closed

    def _is_ours(self, token: str) -> bool:
        host = self.headers.get("Host", "")
        port = self.server.server_address[1]
        # A page of another site whose name is made to lead here sends that name.
        known = host in (f"{HERE}:{port}", f"localhost:{port}")
        return known and secrets.compare_digest(token.encode(), self.server.token.encode())

    def _part(self, name: str, asked: Mapping[str, str]) -> None:
        watched, nonce = self.server.watched, secrets.token_urlsafe(9)
        if name == "":
            page = live_page.live_page(watched.name, SECONDS, nonce)
            self._answer(200, "text/html", page, f"{NO_SCRIPTS}; script-src 'nonce-{nonce}'")
        elif name == "state":
            self._answer(200, "application/json", json.dumps(watched.state()))
        elif name == "report":
            self._answer(200, "text/html", watched.report())
        elif name == "inspect":
            page = watched.inspection(asked.get("text", "")[:LONGEST_TEXT] or None)
            self._answer(200, "text/html", page, f"{NO_SCRIPTS}; script-src 'unsafe-inline'")
        else:
            self._answer(404, "text/plain", "there is no such part of the page\n")

    def _answer(self, code: int, kind: str, text: str, policy: str = NO_SCRIPTS) -> None:
        content = text.encode("utf-8")
        self.send_response(code)
        for name, value in (
            ("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(content))), ("Cache-Control", "no-store"),
            ("Content-Security-Policy", policy), ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
        ):  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the terminal may be that of the training."""
