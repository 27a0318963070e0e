"""An S3 server for tests/backups: moto's, with its authentication on, so that unsigned requests are refused.

Prints one line of JSON (endpoint, key id, secret key) and serves until stdin ends.
"""

import json
import logging
import os
import sys

# Four requests set up whom the server knows; from the fifth on every request is judged.
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "4"

import botocore.session
from moto.server import ThreadedMotoServer

BUCKET = os.environ["TEST_BUCKET"]
REGION = "eu-central-1"


def main():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://127.0.0.1:{port}"
    session = botocore.session.get_session()

    def client(service, key="nobody", secret="nothing"):
        return session.create_client(
            service,
            region_name=REGION,
            endpoint_url=endpoint,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
        )

    iam = client("iam")
    iam.create_user(UserName="sepal")
    allow = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    iam.put_user_policy(UserName="sepal", PolicyName="s3", PolicyDocument=policy)
    made = iam.create_access_key(UserName="sepal")["AccessKey"]
    client("s3").create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    known = {"endpoint": endpoint, "id": made["AccessKeyId"], "key": made["SecretAccessKey"]}
    print(json.dumps(known), flush=True)
    sys.stdin.read()


main()
