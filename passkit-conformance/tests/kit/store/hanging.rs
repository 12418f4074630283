//! Stores with calls that don't return. Each of them runs in a separate process, with a short time
//! limit.

use std::{
    process::{Command, Output},
    sync::Arc,
};

use passkit_conformance::store::{cases, run};

use super::faulty::{Fault, FaultyStores};

const CHILD: &str = "PASSKIT_CONFORMANCE_CHILD";

/// Runs one of the tests below in another process.
fn child(test: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("store::hanging::{test}"), "--nocapture"])
        .env("PASSKIT_CONFORMANCE_TIMEOUT", "1")
        .env(CHILD, "1")
        .output()
        .unwrap()
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

#[test]
fn a_store_that_hangs_ends_the_run() {
    let output = child("a_hanging_store");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("calls of the store did not return in three cases"),
        "{said}"
    );
    assert!(
        said.contains("changes_since did not return within 1s"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_store() {
    if is_child() {
        println!(
            "{}",
            run(&cases(), FaultyStores(Fault::HangsForUnknownDevices)).await
        );
    }
}

#[test]
fn a_store_that_blocks_its_threads_ends_the_process() {
    let output = child("a_blocking_store");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(101), "{said}");
    assert!(
        said.contains("store/first-register-creates: the store blocks its threads: register"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_blocking_store() {
    if is_child() {
        let all = cases();
        let one = all
            .iter()
            .find(|one| one.case.id == "store/first-register-creates")
            .unwrap();
        println!(
            "{}",
            one.run(&Arc::new(FaultyStores(Fault::BlocksThreads))).await
        );
    }
}
