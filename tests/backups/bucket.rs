//! A repository in a bucket of a real S3 server, which checks signatures: `s3_server.py`.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{ARCHIVING, Scene, answers, fill, text};
use crate::{
    clients::python_with,
    server::{Server, repository, skip, spawn},
};

const BUCKET: &str = "sepal-backups";

struct S3 {
    process: Child,
    endpoint: String,
    id: String,
    key: String,
}

impl S3 {
    /// `None` without a Python that has moto; that is said.
    fn start() -> Option<S3> {
        let Some(python) = python_with("moto.server") else {
            skip("no Python with moto (./setup test installs it): backups to a bucket were not tried");
            return None;
        };
        let mut command = Command::new(python);
        command.arg(repository().join("tests/backups/s3_server.py")).env("TEST_BUCKET", BUCKET);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = spawn(command);
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("stdout")).read_line(&mut line).expect("a line");
        let known: Value = serde_json::from_str(&line).expect("s3_server.py tells where it is");
        let text = |name: &str| known[name].as_str().expect("text").to_owned();
        Some(S3 { process, endpoint: text("endpoint"), id: text("id"), key: text("key") })
    }

    fn address(&self) -> String {
        format!("s3://{BUCKET}/some/prefix?region=eu-central-1&endpoint={}", self.endpoint)
    }

    fn environment(&self, key: &str) -> Vec<(String, String)> {
        let pairs = [("AWS_ACCESS_KEY_ID", self.id.as_str()), ("AWS_SECRET_ACCESS_KEY", key)];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_serves_as_well_as_a_directory() {
    let Some(s3) = S3::start() else { return };
    let place = TempDir::new().expect("a temporary directory");
    let environment = s3.environment(&s3.key);
    let mut scene = Scene::start_at(place, s3.address(), &ARCHIVING, environment);
    let client = scene.client().await;
    fill(&client).await;
    // More than a part of an upload.
    client
        .batch_execute(
            "CREATE TABLE wide (id int8, v vector(1024));
             INSERT INTO wide SELECT x, ('[' || repeat(x || ',', 1023) || x || ']')::vector
                 FROM generate_series(1, 3000) AS g(x);
             CREATE INDEX wide_v ON wide USING hnsw (v vector_l2_ops)",
        )
        .await
        .expect("wide rows");
    let expected = answers(&client).await;
    scene.backup();
    client.execute("INSERT INTO log VALUES (5)", &[]).await.expect("insert");
    scene.wait_for_archive();
    scene.backup();
    scene.server.kill();
    let verified = scene.verify();
    assert!(verified.status.success(), "{}{}", text(&verified.stdout), text(&verified.stderr));
    let pruned = scene.json(&["prune", "--keep-last", "1", "--keep-days", "0", "--grace-hours", "0"]);
    assert_eq!(pruned["removed"].as_array().expect("removed").len(), 1, "{pruned}");

    let restored: Server = scene.serve(scene.restore(&[]).0);
    let client = restored.login_with(&scene.acme).connect().await.expect("connect");
    assert_eq!(answers(&client).await, expected);
    assert_eq!(super::numbers(&client).await, [5]);

    scene.environment = s3.environment("not-the-secret-key");
    let refused = scene.run(&["list"]);
    assert_eq!(refused.status.code(), Some(1));
    let told = text(&refused.stderr);
    assert!(told.contains("AWS_ACCESS_KEY_ID") && !told.contains("not-the-secret-key"), "{told}");
}
