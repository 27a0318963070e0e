"""The sink `slack`, in Python: one message to an incoming webhook of Slack for each batch.

The webhook's address is a secret in its path, so Slack's web API is used instead: chat.postMessage with a bot token,
which is a header and stays with the host.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.sink import Opened, Outcome_Durable
from wit_world.imports import http, secrets
from wit_world.imports.types import Error, ErrorKind

API = "https://slack.com/api/"
SHOWN_ROWS = 20

# What Slack answers with status 200 and "ok": false.
UNAUTHORIZED = {"invalid_auth", "not_authed", "token_expired", "token_revoked", "account_inactive", "missing_scope"}
MISCONFIGURED = {"channel_not_found", "not_in_channel", "is_archived"}


def classify(status):
    """None for success; the same rules as the Rust SDK's HttpStatus::classify."""
    if 200 <= status < 300:
        return None
    if status in (401, 403, 407):
        return ErrorKind.UNAUTHORIZED
    if status in (404, 405, 410) or 300 <= status < 400:
        return ErrorKind.MISCONFIGURED
    if 400 <= status < 500 and status not in (408, 425, 429):
        return ErrorKind.REJECTED
    return ErrorKind.TRANSIENT


def fail(kind, code, message, retry_after_ms=None):
    raise Err(Error(kind, code, message, retry_after_ms))


def unanswered(error):
    """Of wit_world.imports.http.HttpError."""
    name = type(error).__name__.removeprefix("HttpError_").lower()
    kind = ErrorKind.MISCONFIGURED if name == "denied" else ErrorKind.TRANSIENT
    detail = getattr(error, "value", "")
    fail(kind, f"http.{name}", f"Slack was not reached: {name} {detail}", detail if name == "throttled" else None)


def call(method, body):
    try:
        token = secrets.get("token")
    except Err as error:
        fail(ErrorKind.TRANSIENT, "secret", f"the token is not available: {error.value.name}")
    headers = [
        ("authorization", http.HeaderValue_Bearer(token)),
        ("content-type", http.HeaderValue_Text("application/json; charset=utf-8")),
    ]
    request = http.Request("POST", API + method, headers, json.dumps(body).encode(), None, None)
    try:
        response = http.send(request)
    except Err as error:
        unanswered(error.value)
    kind = classify(response.status)
    if kind is not None:
        after = dict((name.lower(), value) for name, value in response.headers).get("retry-after", "")
        wait_ms = int(after) * 1000 if after.isdecimal() and len(after) <= 6 else None
        fail(kind, f"http.{response.status}", f"Slack answered {response.status}", wait_ms)
    try:
        answer = json.loads(response.body)
    except ValueError:
        fail(ErrorKind.TRANSIENT, "slack.answer", "Slack answered with something else than JSON")
    if not answer.get("ok"):
        reason = answer.get("error", "unknown")
        kind = ErrorKind.UNAUTHORIZED if reason in UNAUTHORIZED else ErrorKind.TRANSIENT
        kind = ErrorKind.MISCONFIGURED if reason in MISCONFIGURED else kind
        fail(kind, f"slack.{reason}", f"Slack answered {reason}")


def line(row):
    word = {"c": "new", "r": "new", "u": "changed", "d": "deleted"}[row["op"]]
    columns = row.get("after") or row.get("before") or row.get("key") or {}
    return f"*{word}* " + ", ".join(f"{name}: {value}" for name, value in columns.items())


def message(payload):
    rows = [json.loads(text) for text in payload.splitlines() if text]
    lines = [line(row) for row in rows[:SHOWN_ROWS]]
    if len(rows) > SHOWN_ROWS:
        lines.append(f"… and {len(rows) - SHOWN_ROWS} more")
    return "\n".join(lines)


class Sink(exports.Sink):
    channel = None

    def check(self, args):
        call("auth.test", {})

    def open(self, args):
        self.channel = json.loads(args.config_json)["channel"]
        return Opened(None, None)

    def set_schema(self, schema):
        pass

    def write(self, batch):
        call("chat.postMessage", {"channel": self.channel, "text": message(batch.payload)})
        return Outcome_Durable([])

    def flush(self):
        return None

    def close(self):
        pass
