//! Import and export of registrations.

use std::{
    collections::HashSet,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::{
    archives::{pass, replace, token_of},
    program::{Service, eventually, passkit, run},
};

fn store(folder: &Path, name: &str) -> String {
    format!("sled:{}", folder.join(name).display())
}

fn import(store: &str, file: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    run(passkit()
        .args(["import", "--store", store, "--from"])
        .arg(file)
        .args(more))
}

fn export(store: &str) -> String {
    let (code, out, said) = run(passkit().args(["export", "--store", store]));
    assert_eq!(code, Some(0), "{said}");
    out
}

/// Writes a file with this many registrations, three for each device.
pub(crate) fn registrations(path: PathBuf, count: usize) -> PathBuf {
    let mut text = String::new();
    for n in 0..count {
        let device = n / 3;
        writeln!(
            text,
            "device-{device:08},{device:064x},pass.com.example.moved,M-{n:08}"
        )
        .unwrap();
    }
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn imported_registrations_are_exported() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (store(folder.path(), "one"), store(folder.path(), "two"));
    let file = registrations(folder.path().join("a.csv"), 12_001);
    let (code, out, said) = import(&one, &file, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        out.starts_with("12001 registrations imported, 12001 of them new; 0 lines left out"),
        "{out}"
    );
    let (code, out, _) = import(&one, &file, &[]);
    assert_eq!(code, Some(0));
    assert!(
        out.starts_with("12001 registrations imported, 0 of them new"),
        "{out}"
    );

    let exported = export(&one);
    assert_eq!(exported.lines().count(), 12_002);
    let copy = folder.path().join("copy.csv");
    let (code, _, said) = run(passkit()
        .args(["export", "--store", &one, "--to"])
        .arg(&copy));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(fs::read_to_string(&copy).unwrap(), exported);
    assert_eq!(import(&two, &copy, &[]).0, Some(0));
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&export(&two)), sorted(&exported));

    let (code, out, _) = run(passkit().args(["stats", "--json", "--store", &two]));
    assert_eq!(code, Some(0));
    let stats: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(stats["devices"], 4001);
    assert_eq!(stats["registrations"], 12_001);
    assert_eq!(stats["types"][0]["passes"], 12_001);
    let (code, out, _) = run(passkit().args(["stats", "--store", &two]));
    assert_eq!(code, Some(0));
    assert!(out.contains("pass.com.example.moved"), "{out}");
}

#[test]
fn odd_serial_numbers_survive() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (store(folder.path(), "one"), store(folder.path(), "two"));
    let file = folder.path().join("a.csv");
    let text = "type,serial,device,token\n\
        pass.a,\"a,\"\"b\"\" / c\",d1,c0ffee\n\
        pass.a,\" \u{fc}ber \",d1,c0ffee\n\
        order.b,R2D2/09/25,d2,c0ffee\n";
    fs::write(&file, text).unwrap();
    let (code, _, said) = import(&one, &file, &[]);
    assert_eq!(code, Some(0), "{said}");
    let exported = export(&one);
    assert!(
        exported.contains("d1,c0ffee,pass.a,\"a,\"\"b\"\" / c\"\n"),
        "{exported}"
    );
    fs::write(&file, &exported).unwrap();
    assert_eq!(import(&two, &file, &[]).0, Some(0));
    assert_eq!(export(&two), exported);
}

#[test]
fn bad_lines_are_named_and_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), "one");
    let file = folder.path().join("bad.csv");
    fs::write(
        &file,
        "device,push_token,type,serial\nd1,c0ffee,pass.a,1\nd1,no hex,pass.a,2\n\"d1,c0ffee,pass.a,3\nd2,c0ffee\n\
         d2,c0ffee,coupon.a,4\nd2,c0ffee,pass.a,5\n",
    )
    .unwrap();
    let rejects = folder.path().join("rejects.csv");
    let (code, out, said) = import(&store, &file, &["--rejects", rejects.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        out.starts_with("2 registrations imported, 2 of them new; 4 lines left out"),
        "{out}"
    );
    for number in [3, 4, 5, 6] {
        assert!(said.contains(&format!("bad.csv:{number}: ")), "{said}");
    }
    let rejected = fs::read_to_string(&rejects).unwrap();
    assert_eq!(rejected.lines().count(), 5, "{rejected}");
    assert!(
        rejected.starts_with("device,push_token,type,serial\n"),
        "{rejected}"
    );
    assert_eq!(export(&store).lines().count(), 3);
}

/// How many good and bad lines the file of [`interrupted`] has.
pub(crate) const GOOD: usize = 20_000;
const BAD: usize = 5_000;

/// Begins an import and kills it after 10,000 lines. Returns its file.
pub(crate) fn interrupted(store: &str, folder: &Path) -> PathBuf {
    let file = registrations(folder.join("stopped.csv"), GOOD);
    let text = fs::read_to_string(&file).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.splice(
        10_000..10_000,
        std::iter::repeat_n("d,no token,pass.a,1", BAD),
    );
    fs::write(&file, lines.join("\n")).unwrap();
    let rejects = folder.join("rejects.csv");
    let _ = fs::remove_file(&rejects);
    let mut child = passkit()
        .args(["import", "--store", store, "--from"])
        .arg(&file)
        .arg("--rejects")
        .arg(&rejects)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The messages about the bad lines fill the pipe, because the test no longer reads it. So the
    // import waits until it is killed.
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = said.next().unwrap().unwrap();
    assert!(first.contains("stopped.csv:10001: "), "{first}");
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None);
    assert!(!rejects.exists());
    file
}

/// Imports the file of [`interrupted`] and checks that every row is in the store. Returns what the
/// import wrote to stderr.
pub(crate) fn import_all(store: &str, file: &Path) -> String {
    let rejects = file.with_file_name("rejects.csv");
    let (code, out, said) = import(store, file, &["--rejects", rejects.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{said}");
    let counts = format!("{GOOD} registrations imported, {GOOD} of them new; {BAD} lines left out");
    assert!(out.starts_with(&counts), "{out}");
    assert_eq!(fs::read_to_string(rejects).unwrap().lines().count(), BAD);
    let exported = export(store);
    let stored: HashSet<&str> = exported.lines().collect();
    let text = fs::read_to_string(file).unwrap();
    let lost = text
        .lines()
        .find(|line| !line.contains("no token") && !stored.contains(line));
    assert_eq!(lost, None);
    said
}

#[test]
fn an_import_goes_on_in_the_store_that_has_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (store(folder.path(), "one"), store(folder.path(), "two"));
    let file = interrupted(&one, folder.path());
    let said = import_all(&two, &file);
    assert!(said.starts_with("passkit: "), "{said}");
    assert!(!said.contains("continues"), "{said}");
    // A copy under another name has the same rows.
    let moved = folder.path().join("moved.csv");
    fs::rename(&file, &moved).unwrap();
    let said = import_all(&one, &moved);
    assert!(said.contains("continues after line 10000,"), "{said}");
    // The finished import left no note.
    let (_, out, said) = import(&one, &moved, &[]);
    assert!(
        out.starts_with(&format!("{GOOD} registrations imported, 0 of them new")),
        "{out}"
    );
    assert!(!said.contains("continues"));
}

#[test]
fn an_emptied_store_is_filled_from_the_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let one = store(folder.path(), "one");
    let file = interrupted(&one, folder.path());
    fs::remove_dir_all(folder.path().join("one")).unwrap();
    assert!(!import_all(&one, &file).contains("continues"));
}

#[test]
fn a_changed_file_is_imported_from_the_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let one = store(folder.path(), "one");
    let file = interrupted(&one, folder.path());
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("M-00000000", "N-00000000", 1)).unwrap();
    let (code, out, said) = import(&one, &file, &[]);
    assert_eq!(code, Some(1));
    assert!(!said.contains("continues"), "{said}");
    let counts = format!("{GOOD} registrations imported, 10001 of them new");
    assert!(out.starts_with(&counts), "{out}");
    assert!(export(&one).contains(",N-00000000\n"));
}

#[test]
fn an_invisible_character_beside_a_serial_number_is_named_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.csv");
    let lines = ["\u{a0}1", "1\u{200b}", "\u{feff}1", "a b", "1\t"]
        .map(|serial| format!("d,c0ffee,pass.a,{serial}\n"));
    fs::write(&file, lines.concat()).unwrap();
    let (code, _, said) = import(&store(folder.path(), "one"), &file, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(":5: ")
            && said.contains("3 serial numbers")
            && said.contains(": lines 1, 2, 3. "),
        "{said}"
    );
}

/// The worked example of the documentation.
#[test]
fn tokens_of_another_service_open_the_passes_of_this_one() {
    const TYPE: &str = "pass.com.example.ticket";
    const OLD: &str = "token-of-the-old-service";
    let mut service = Service::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("old.csv");
    let text = format!(
        "device,push_token,type,serial,authentication_token\n\
         d1,c0ffee,{TYPE},A,{OLD}\nd2,c0ffee,{TYPE},A,another-{OLD}\nd3,c0ffee,{TYPE},B,\n\
         d4,c0ffee,{TYPE},B,tiny-5ec2e7\n"
    );
    fs::write(&file, text).unwrap();
    let import_old = |service: &Service| import(service.store_url(), &file, &[]);
    // The import comes before the service has published the passes, and then while the service
    // runs.
    for is_first in [true, false] {
        if !is_first {
            service = Service::new();
            service.start();
        }
        for serial in ["A", "B"] {
            let name = format!("{serial}.pkpass");
            fs::write(service.passes().join(name), pass(TYPE, serial, "one")).unwrap();
        }
        if !is_first {
            eventually("both are served", || {
                service.get(TYPE, "B", None).status == 200
            });
        }
        let (code, out, said) = import_old(&service);
        assert_eq!(code, Some(1), "{said}");
        assert!(out.starts_with("3 registrations imported"), "{out}");
        assert!(
            said.contains("old.csv:5: ") && !said.contains("5ec2e7"),
            "{said}"
        );
        if is_first {
            service.start();
        }
        let current = token_of(TYPE, "A");
        for token in [OLD, &format!("another-{OLD}"), &current] {
            // The phone registers for a pass that it has, fetches the pass, and unregisters.
            assert_eq!(service.statuses("d1", TYPE, "A", token), [200, 200, 200]);
            let (code, _, _) = import_old(&service);
            assert_eq!(code, Some(1));
        }
        assert_eq!(service.statuses("d3", TYPE, "B", OLD), [401, 401, 401]);
        // The phone learns of a change, and fetches it with its old token.
        let (_, tag) = service.list("d1", TYPE, None).unwrap();
        replace(&service.passes().join("A.pkpass"), &pass(TYPE, "A", "two"));
        eventually("the change is listed", || {
            service.list("d1", TYPE, Some(&tag)).is_some()
        });
        assert_eq!(service.statuses("d9", TYPE, "A", OLD), [201, 200, 200]);
        service.stop("TERM");
    }
}

#[test]
fn a_serial_number_with_blanks_around_it_is_kept_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let one = store(folder.path(), "one");
    let file = folder.path().join("a.csv");
    let mut text = "d,c0ffee,pass.a,1\nd,c0ffee,pass.a, 1\nd,c0ffee,pass.a,\"1 \"\n".to_owned();
    fs::write(&file, &text).unwrap();
    let (code, _, said) = import(&one, &file, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        said,
        "passkit: 2 serial numbers begin or end with blanks, which were kept: lines 2, 3. If the serial numbers of the \
         passes have no blanks, these phones get no updates; remove the blanks, and import the file again\n"
    );
    assert_eq!(export(&one).lines().count(), 4);
    for number in 0..10 {
        writeln!(text, "d,c0ffee,pass.a,{number} ").unwrap();
    }
    fs::write(&file, &text).unwrap();
    let (_, _, said) = import(&one, &file, &[]);
    assert!(
        said.contains(": lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more. "),
        "{said}"
    );
}

#[cfg(unix)]
#[test]
fn no_output_overwrites_an_input() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let one = store(folder.path(), "one");
    let file = registrations(at("a.csv"), 10);
    let before = fs::read(&file).unwrap();
    fs::hard_link(&file, at("hard.csv")).unwrap();
    std::os::unix::fs::symlink(&file, at("soft.csv")).unwrap();
    for rejects in ["a.csv", "hard.csv", "soft.csv", "one", "one/rejects.csv"] {
        let (code, _, said) = import(&one, &file, &["--rejects", at(rejects).to_str().unwrap()]);
        assert_eq!(code, Some(2), "{rejects}");
        assert!(
            said.contains("it would overwrite") && said.lines().count() == 1,
            "{said}"
        );
        let (code, _, said) = run(passkit()
            .args(["import", "--store", &one, "--from", "-", "--rejects"])
            .arg(at(rejects))
            .stdin(fs::File::open(&file).unwrap()));
        assert_eq!(code, Some(2), "{rejects}");
        assert!(said.contains("it would overwrite"), "{said}");
        assert_eq!(fs::read(&file).unwrap(), before);
        assert!(!at("one").exists(), "refused before anything was opened");
    }
    assert_eq!(import(&one, &file, &[]).0, Some(0));
    let of_store = fs::read_dir(at("one"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    std::os::unix::fs::symlink(&of_store, at("way.csv")).unwrap();
    for to in [at("one"), of_store, at("one/new.csv"), at("way.csv")] {
        let (code, _, said) = run(passkit().args(["export", "--store", &one, "--to"]).arg(&to));
        assert_eq!(code, Some(2), "{}", to.display());
        assert!(said.contains("it would overwrite"), "{said}");
    }
    assert_eq!(export(&one).lines().count(), 11);
}

#[test]
fn a_failed_import_or_export_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let one = store(folder.path(), "one");
    let nowhere = folder.path().join("nowhere/a.csv");
    let (code, _, said) = import(&one, &nowhere, &[]);
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    let (code, _, said) = run(passkit()
        .args(["export", "--store", &one, "--to"])
        .arg(&nowhere));
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    let (code, out, _) = run(passkit().args(["migrate", "--store", &one]));
    assert_eq!(code, Some(0));
    assert!(out.starts_with("nothing to do"), "{out}");
}
