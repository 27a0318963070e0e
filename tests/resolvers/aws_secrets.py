"""AWS Secrets Manager as far as `GetSecretValue` goes (docs.aws.amazon.com/secretsmanager, API reference), for
`tests/resolvers.rs`. Every request's signature is computed again by botocore, AWS' own client library, from what
arrived: what it does not sign the same way is refused as AWS refuses it.

Prints the port it listens on. Then reads commands from its standard input, one JSON array a line, and answers each with
a line: ["put", name, value] makes a new version the current one; ["count"] tells how many requests were accepted and
how many refused. Ends with its standard input.
"""

import http.server
import json
import os
import re
import sys
import threading
import time
from datetime import datetime, timezone

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

REGION, SERVICE = "eu-central-1", "secretsmanager"
KEY_ID, SECRET_KEY = os.environ["TEST_KEY_ID"], os.environ["TEST_SECRET_KEY"]
AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, "
    r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})"
)
MUST_BE_SIGNED = {"content-type", "host", "x-amz-date", "x-amz-target"}

lock = threading.Lock()
secrets = {}  # name -> values, the current one last
counts = {"accepted": 0, "refused": 0}


class Refused(Exception):
    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


def check_signature(headers, body):
    match = AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if not match:
        raise Refused("MissingAuthenticationToken", "Missing Authentication Token")
    key_id, date, region, service, signed, signature = match.groups()
    if key_id != KEY_ID:
        raise Refused("UnrecognizedClientException", "The security token included in the request is invalid.")
    signed = signed.split(";")
    if not MUST_BE_SIGNED <= set(signed) or signed != sorted(signed):
        raise Refused("IncompleteSignature", f"signed are {signed}")
    timestamp = headers["x-amz-date"]
    then = datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()
    if abs(time.time() - then) > 300 or (date, region, service) != (timestamp[:8], REGION, SERVICE):
        raise Refused("InvalidSignatureException", f"scope {date}/{region}/{service} at {timestamp}")
    request = AWSRequest(
        method="POST",
        url=f"http://{headers['host']}/",
        data=body,
        headers={name: headers[name] for name in signed},
    )
    request.context["timestamp"] = timestamp
    auth = SigV4Auth(Credentials(KEY_ID, SECRET_KEY), SERVICE, REGION)
    to_sign = auth.string_to_sign(request, auth.canonical_request(request))
    if auth.signature(to_sign, request) != signature:
        raise Refused("InvalidSignatureException", "The request signature we calculated does not match")


def get_secret_value(asked):
    with lock:
        values = list(secrets.get(asked["SecretId"], []))
    version = f"-{asked['SecretId']}"
    numbers = {f"{number}{version}": number for number in range(len(values))}
    if asked.get("VersionStage") == "AWSPREVIOUS":
        number = len(values) - 2
    elif "VersionId" in asked:
        number = numbers.get(asked["VersionId"], -1)
    else:
        number = len(values) - 1
    if number < 0:
        raise Refused("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
    return {
        "ARN": f"arn:aws:secretsmanager:{REGION}:123456789012:secret:{asked['SecretId']}-AbCdEf",
        "Name": asked["SecretId"],
        "VersionId": f"{number}{version}",
        "SecretString": values[number],
        "VersionStages": ["AWSCURRENT"],
        "CreatedDate": 1.7e9,
    }


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            if self.path != "/" or headers.get("x-amz-target") != "secretsmanager.GetSecretValue":
                raise Refused("UnknownOperationException", f"{self.path} {headers.get('x-amz-target')}")
            check_signature(headers, body)
            status, answer = 200, get_secret_value(json.loads(body))
            counts["accepted"] += 1
        except Refused as refused:
            status, answer = 400, {"__type": refused.kind, "message": str(refused)}
            counts["refused"] += refused.kind != "ResourceNotFoundException"
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/x-amz-json-1.1")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if command[0] == "put":
            with lock:
                secrets.setdefault(command[1], []).append(command[2])
        print(json.dumps(counts), flush=True)


main()
