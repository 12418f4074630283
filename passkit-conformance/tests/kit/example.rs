//! Runs the example service in Python, started as its README says.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use passkit_conformance::{
    Level, Limits, Outcome,
    service::{TargetFile, cases, run},
};

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_in_python_conforms() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/python");
    let folder = tempfile::tempdir().unwrap();
    let process = Command::new("python3")
        .arg(example.join("server.py"))
        .arg("0")
        // The service does not remove its certificate when it is killed.
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("this test needs python3 3.10 or later: apt-get install python3 ({error})")
        });
    let mut server = Server(process);
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let url = line
        .trim()
        .strip_prefix("listening on ")
        .expect("its address on stdout")
        .to_owned();

    let file = folder.path().join("target.toml");
    let text = std::fs::read_to_string(example.join("target.toml")).unwrap();
    std::fs::write(&file, text.replace("http://127.0.0.1:8080", &url)).unwrap();
    let target = TargetFile::load(&file)
        .unwrap()
        .target(&url, Limits::default())
        .unwrap();
    let mut chosen = cases();
    // The example sends no pushes.
    chosen.retain(|one| one.case.level <= Level::Should && one.case.endpoint() != "push");
    let report = run(&chosen, &target).await;
    println!("{report}");
    report.assert_passed();
    let passed = report
        .results
        .iter()
        .filter(|result| matches!(result.outcome, Outcome::Pass))
        .count();
    assert!(
        passed * 10 >= report.results.len() * 9,
        "too many cases were skipped\n{report}"
    );
    let mut enrolling = report
        .results
        .iter()
        .filter(|result| result.case.endpoint() == "enrol");
    assert!(
        enrolling.all(|result| matches!(result.outcome, Outcome::Pass)),
        "a case of enrolment was skipped; it needs openssl 3\n{report}"
    );
}
