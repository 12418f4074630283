use std::fs;

use crate::{
    archives::{pass, unsigned},
    program::{passkit, run},
};

const TYPE: &str = "pass.com.example.check";

#[test]
fn good_bad_and_missing_files_each_get_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let good = pass(TYPE, "A", "one");
    fs::write(path("good.pkpass"), &good).unwrap();
    fs::write(path("half.pkpass"), &good[..good.len() / 2]).unwrap();
    fs::write(path("unsigned.pkpass"), unsigned(TYPE, "A", "one")).unwrap();
    let check = |names: &[&str]| {
        run(passkit()
            .arg("check")
            .args(names.iter().map(|name| path(name))))
    };

    let (code, stdout, stderr) = check(&["good.pkpass"]);
    assert_eq!((code, &*stderr), (Some(0), ""));
    assert_eq!(
        stdout,
        format!("{}: good: pass {TYPE} A, signed\n", path("good.pkpass"))
    );

    let (code, stdout, _) = check(&["half.pkpass", "good.pkpass"]);
    assert_eq!(code, Some(1));
    assert_eq!(stdout.lines().count(), 2, "{stdout}");
    assert!(
        stdout.starts_with(&path("half.pkpass")) && stdout.contains("zip"),
        "{stdout}"
    );

    let (code, stdout, stderr) = check(&["good.pkpass", "none.pkpass"]);
    assert_eq!(
        (code, stdout.lines().count(), stderr.lines().count()),
        (Some(2), 1, 1)
    );
    assert!(stderr.contains(&path("none.pkpass")), "{stderr}");

    let (code, stdout, _) = check(&["unsigned.pkpass"]);
    assert_eq!(code, Some(1));
    assert!(stdout.contains("signature"), "{stdout}");
    let lenient = run(passkit().args(["check", "--allow-unsigned", &path("unsigned.pkpass")]));
    assert_eq!(lenient.0, Some(0), "{lenient:?}");
}
