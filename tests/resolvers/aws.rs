//! The resolver `aws-secrets`, whose signatures botocore judges.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use super::{Scene, refused, run, words};
use crate::{
    clients::python_with,
    server::{repository, skip, spawn},
};

const KEY_ID: &str = "AKIDSEPALTEST";
const SECRET_KEY: &str = "aws/canary+Rt6yB4uS8";

/// `aws_secrets.py`, running.
struct Aws {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    origin: String,
}

impl Aws {
    /// `None` without a Python that has botocore; that is said.
    fn start() -> Option<Aws> {
        let Some(python) = python_with("botocore.auth") else {
            skip("no Python with botocore (./setup test installs it): aws-secrets was not tried");
            return None;
        };
        let mut command = Command::new(python);
        command.arg(repository().join("tests/resolvers/aws_secrets.py"));
        command.env("TEST_KEY_ID", KEY_ID).env("TEST_SECRET_KEY", SECRET_KEY);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = spawn(command);
        let commands = process.stdin.take().expect("stdin");
        let answers = BufReader::new(process.stdout.take().expect("stdout"));
        let mut aws = Aws { process, commands, answers, origin: String::new() };
        aws.origin = format!("http://127.0.0.1:{}", aws.line());
        Some(aws)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("a line");
        assert!(!line.is_empty(), "aws_secrets.py has ended");
        line.trim().to_owned()
    }

    /// How many requests were accepted and refused.
    fn tell(&mut self, command: &Value) -> (u64, u64) {
        writeln!(self.commands, "{command}").expect("a command");
        let counts: Value = serde_json::from_str(&self.line()).expect("JSON");
        let count = |name: &str| counts[name].as_u64().expect("a number");
        (count("accepted"), count("refused"))
    }

    fn put(&mut self, name: &str, value: &Value) {
        self.tell(&json!(["put", name, value.to_string()]));
    }

    fn resolver(&self, secret: &str) -> String {
        format!(
            "CREATE SECRET RESOLVER aws USING PLUGIN \"aws-secrets\"
             OPTIONS (region 'eu-central-1', endpoint '{origin}', access_key_id '{KEY_ID}',
                      secret_access_key SECRET[{secret}])
             ALLOW HOSTS ('{origin}')",
            origin = self.origin
        )
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_aws_come_by_requests_that_aws_would_accept() {
    let Some(mut aws) = Aws::start() else { return };
    let scene = Scene::start().await;
    aws.put("hooks/acme", &json!({ "token": "aws-first-Gk3", "user": "u" }));
    scene.store("wrong_key", "not-the-key-Xc2").await;
    let told = words(&refused(&scene.client, &aws.resolver("wrong_key")).await);
    assert!(told.contains("InvalidSignatureException"), "{told}");
    let (_, wrong) = aws.tell(&json!(["count"]));
    assert!(wrong > 0, "the judge has refused a signature");

    scene.store("aws_key", SECRET_KEY).await;
    run(&scene.client, &aws.resolver("aws_key")).await;
    run(
        &scene.client,
        "CREATE SECRET hook FROM aws (path 'hooks/acme', field 'token') WITH (refresh = '1s')",
    )
    .await;
    let previous = "FROM aws (path 'hooks/acme', field 'token', stage 'AWSPREVIOUS')";
    run(&scene.client, &format!("CREATE SECRET previous {previous}")).await;
    run(&scene.client, "CREATE SECRET missing FROM aws (path 'hooks/nobody')").await;
    scene.pipeline("hook").await;
    assert_eq!(scene.token_of("hook", 1).await, "aws-first-Gk3");
    let told = words(&refused(&scene.client, &scene.sink("missing")).await);
    assert!(told.contains("is not where its resolver looks"), "{told}");

    aws.put("hooks/acme", &json!({ "token": "aws-second-Vd8", "user": "u" }));
    let next = scene.until_token("hook", 2, "aws-second-Vd8").await;
    scene.pipeline("previous").await;
    assert_eq!(scene.token_of("previous", next).await, "aws-first-Gk3");
    let (accepted, still_wrong) = aws.tell(&json!(["count"]));
    assert!(accepted >= 2, "{accepted} requests were accepted");
    assert_eq!(still_wrong, wrong, "with the right key every signature was right");
    scene.keeps(&["aws-first-Gk3", "aws-second-Vd8", SECRET_KEY, "not-the-key-Xc2"]).await;
}
