"""A sink: POSTs every batch to the URL of CREATE SINK, with the token that a secret holds."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.sink import Opened, Outcome_Durable
from wit_world.imports import http, secrets
from wit_world.imports.types import Error, ErrorKind


def classify(status):
    """What kind of error a status is; None for success."""
    if 200 <= status < 300:
        return None
    if status in (401, 403, 407):
        return ErrorKind.UNAUTHORIZED
    if status in (404, 405, 410) or 300 <= status < 400:
        return ErrorKind.MISCONFIGURED
    if 400 <= status < 500 and status not in (408, 425, 429):
        return ErrorKind.REJECTED
    return ErrorKind.TRANSIENT


class Sink(exports.Sink):
    config = {}

    def check(self, args):
        self.open(args)

    def open(self, args):
        self.config = json.loads(args.config_json)
        return Opened(None, None)

    def set_schema(self, schema):
        pass

    def write(self, batch):
        try:
            headers = [
                ("authorization", http.HeaderValue_Bearer(secrets.get("token"))),
                ("content-type", http.HeaderValue_Text("application/x-ndjson")),
                ("idempotency-key", http.HeaderValue_Text(batch.id)),
            ]
            response = http.send(http.Request("POST", self.config["url"], headers, batch.payload, None, None))
        except Err as error:
            denied = isinstance(error.value, http.HttpError_Denied)
            kind = ErrorKind.MISCONFIGURED if denied else ErrorKind.TRANSIENT
            raise Err(Error(kind, None, f"the destination was not reached: {error.value}", None))
        kind = classify(response.status)
        if kind is not None:
            after = dict((name.lower(), value) for name, value in response.headers).get("retry-after", "")
            wait_ms = int(after) * 1000 if after.isdecimal() and len(after) <= 6 else None
            message = f"the destination answered {response.status}"
            raise Err(Error(kind, f"http.{response.status}", message, wait_ms))
        return Outcome_Durable([])

    def flush(self):
        return None

    def close(self):
        pass
