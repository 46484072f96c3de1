//! Checkpoints in S3, from end to end: a job as a process that is killed and goes on from a bucket, and the commands
//! that look into one. The server is moto; `make s3` (`.ci/s3`) installs it and starts this.

use integration_tests::PATIENCE;
use integration_tests::processes::{example, root, run_command};
use integration_tests::tables::rows;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const BUCKET: &str = "tidegate-test";
const SIGNED: &str = "Authorization: AWS4-HMAC-SHA256 Credential=test/20261123/us-east-1/s3/aws4_request, \
     SignedHeaders=host, Signature=0";

/// An S3 server of this machine.
struct Server {
    process: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start() -> Self {
        let program = std::env::var_os("TIDEGATE_S3_SERVER").expect("run `make s3`");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        let process = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server can be started");
        let server = Server { process, port };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < PATIENCE, "the server does not listen");
            thread::park_timeout(Duration::from_millis(20));
        }
        assert!(server.request("PUT", "", &[]).starts_with("HTTP/1.1 200"));
        server
    }

    /// A request with a signature of no worth, which this server does not look at.
    fn request(&self, method: &str, path: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        let head = format!(
            "{method} /{BUCKET}{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{SIGNED}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("it reads");
        stream.write_all(body).expect("it reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it answers");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A command that knows where the server is.
    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port))
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "not a secret")
            .env("AWS_REGION", "us-east-1");
        command
    }

    fn tidegate(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(tidegate());
        command.args(arguments);
        command
    }
}

/// The command, which lies beside the folder of the tests.
fn tidegate() -> PathBuf {
    let test = std::env::current_exe().expect("Linux knows it");
    let folder = test.ancestors().nth(2).expect("tests are in release/deps");
    folder.join("tidegate")
}

fn flights(server: &Server, output: &Path, more: &[&str]) -> Command {
    let input = root().join("examples/data/flights-2013-01.csv");
    let mut command = server.command(example("flights"));
    command
        .args(["--query", "tailnum-sessions", "--input"])
        .arg(input)
        .arg("--output")
        .arg(output)
        .args(["--checkpoint-dir", &format!("s3://{BUCKET}/state/here")])
        .args(["--checkpoint-interval", "100", "--restore", "latest"])
        .args(more);
    command
}

#[test]
#[ignore = "it needs an S3 server: `make s3`"]
fn a_job_goes_on_from_a_bucket_and_the_commands_look_into_it() {
    let server = Server::start();
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("out");
    let place = format!("s3://{BUCKET}/state/here/flights");
    for parallelism in ["2", "3"] {
        let more = ["--parallelism", parallelism, "--source-rate", "2000"];
        let mut job = flights(&server, &output, &more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let before = complete(&server, &place);
        let began = Instant::now();
        while complete(&server, &place) < before + 2 {
            assert!(began.elapsed() < PATIENCE, "it takes no checkpoints");
            assert!(job.try_wait().expect("a child").is_none(), "it ended");
        }
        job.kill().expect("a child");
        job.wait().expect("a child");
        println!("s3: killed at parallelism {parallelism}");
    }
    run_command(&mut flights(&server, &output, &["--parallelism", "1"])).well();
    let expected = root().join("examples/data/expected/tailnum-sessions-24h.csv");
    assert_eq!(rows(&output), rows(&expected));
    look(&server, &place);
    println!(
        "s3: a job was killed twice and went on from a bucket; list, inspect, verify and sweep agree"
    );
}

/// How many complete checkpoints there are.
fn complete(server: &Server, place: &str) -> usize {
    let listed = server.tidegate(&["checkpoint", "list", place]).output();
    let listed = listed.expect("the command can be started").stdout;
    let text = String::from_utf8_lossy(&listed).into_owned();
    text.lines().filter(|line| line.contains(" yes ")).count()
}

fn look(server: &Server, place: &str) {
    let all = format!("s3://{BUCKET}/state/here");
    let listed = run_command(&mut server.tidegate(&["checkpoint", "list", &all])).well();
    assert!(listed.contains(&format!("{place}/chk-")), "{listed}");
    let inspected = run_command(&mut server.tidegate(&["checkpoint", "inspect", place])).well();
    assert!(inspected.contains("end of input"), "{inspected}");
    let verified = run_command(&mut server.tidegate(&["checkpoint", "verify", &all])).well();
    assert!(verified.contains("intact: "), "{verified}");
    let swept = ["checkpoint", "sweep", place, "--older-than", "0"];
    let swept = run_command(&mut server.tidegate(&swept)).well();
    assert!(swept.contains("deleted: "), "{swept}");
    let verified = run_command(&mut server.tidegate(&["checkpoint", "verify", place])).well();
    let file = verified.lines().find_map(|line| {
        let path = line.strip_prefix("ok       s3://")?.split(' ').next()?;
        let path = path.strip_prefix(BUCKET)?;
        (!path.ends_with("_metadata")).then(|| path.to_owned())
    });
    let file = file.expect("a checkpoint has files");
    let put = server.request("PUT", &file, b"TIDESTAT, and nothing else");
    assert!(put.starts_with("HTTP/1.1 200"), "{put}");
    let damaged = server.tidegate(&["checkpoint", "verify", place]).output();
    let damaged = damaged.expect("the command can be started");
    let text = String::from_utf8_lossy(&damaged.stdout).into_owned();
    assert_eq!(damaged.status.code(), Some(1), "{text}");
    assert!(text.contains("DAMAGED") && text.contains(&file), "{text}");
    let unknown = "s3://no-such-bucket-here/state";
    let told = run_command(&mut server.tidegate(&["checkpoint", "list", unknown]));
    told.badly(1, &["no-such-bucket-here"]);
}
