//! A run of `passkit make` that is stopped, runs out of disk space, or would lock out phones.

use std::{
    fs,
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
};

use passkit_archive::{Archive, Rules};
use passkit_test_servers::disk::SmallDisk;

use crate::{
    making::{TABLE, Workshop, made},
    program::{eventually, run},
};

const HIDDEN: &str = "passes/.passkit-make";

fn count(folder: &Path) -> usize {
    let visible = |name: &std::ffi::OsStr| !name.as_encoded_bytes().starts_with(b".");
    let entries = fs::read_dir(folder).map_or_else(|_| Vec::new(), Iterator::collect);
    entries
        .into_iter()
        .flatten()
        .filter(|entry| visible(&entry.file_name()))
        .count()
}

/// Checks that each file in the folder is a whole pass.
fn assert_whole(workshop: &Workshop) {
    for name in workshop.names() {
        let bytes = fs::read(workshop.path("passes").join(&name)).unwrap();
        assert!(
            Archive::check(&bytes, Rules::strict()).is_ok(),
            "{name} is half-written"
        );
    }
}

fn table(rows: usize, points: usize) -> String {
    let rows = (0..rows).map(|row| format!("{row},A,B,{points},2026-12-31,1\n"));
    format!(
        "id,first,last,points,until,seat\n{}",
        rows.collect::<String>()
    )
}

/// Runs a command under strace, which delays each rename. The process is that of the command.
fn slowed(command: &Command) -> Command {
    let renames = "rename,renameat,renameat2";
    let mut strace = Command::new("strace");
    strace
        .args(["-D", "-f", "--seccomp-bpf", "-o", "/dev/null"])
        .args(["-e", &format!("trace={renames}")])
        .args(["-e", &format!("inject={renames}:delay_enter=20000")])
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(command.get_current_dir().unwrap())
        .stdin(Stdio::null());
    for (name, _) in command.get_envs() {
        strace.env_remove(name);
    }
    strace
}

#[test]
fn a_killed_run_leaves_whole_files_and_the_next_run_completes() {
    const ROWS: usize = 400;
    let workshop = Workshop::new();
    let (out, hidden) = (workshop.path("passes"), workshop.path(HIDDEN));
    workshop.write("table.csv", table(ROWS, 1));
    let stop_when = |condition: &dyn Fn() -> bool| {
        let mut process = slowed(&workshop.make())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect(
                "this test needs strace: install it, for example with \"apt-get install strace\"",
            );
        eventually("it may be killed", condition);
        process.kill().unwrap();
        let status = process.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it ended before it was killed");
        assert_whole(&workshop);
    };
    stop_when(&|| true);
    // The count includes the lock and the note, which are in the hidden folder too.
    for staged in [3, 10, 100, 300] {
        stop_when(&|| count(&hidden) >= staged);
    }
    stop_when(&|| count(&out) >= 1);
    let before = count(&out);
    stop_when(&|| count(&out) > before);
    // The files of a stopped run are not served, and the next run removes them.
    fs::write(hidden.join("new-99999"), "half").unwrap();
    let out = made(&mut workshop.make());
    assert!(
        out.starts_with(&format!("{ROWS} rows: ")) && out.contains(" 0 wrong"),
        "{out}"
    );
    assert_eq!(workshop.names().len(), ROWS);
    assert_eq!(count(&hidden), 2);
    assert_whole(&workshop);

    // A run that replaces passes leaves whole files, too.
    workshop.write("table.csv", table(ROWS, 2));
    for staged in [5, 200] {
        stop_when(&|| count(&hidden) >= staged);
    }
    made(&mut workshop.make());
    assert_whole(&workshop);
    let out = made(&mut workshop.make());
    assert!(out.contains(&format!("{ROWS} unchanged")), "{out}");
    assert_eq!(
        workshop.json("7.pkpass")["storeCard"]["headerFields"][0]["value"],
        2
    );
}

#[test]
fn a_full_disk_is_reported_and_the_next_run_completes() {
    let workshop = Workshop::new();
    let out = workshop.path("passes");
    fs::create_dir(&out).unwrap();
    let Some(disk) = SmallDisk::mount(&out, 12) else {
        return;
    };
    workshop.write("table.csv", table(10, 1));
    made(&mut workshop.make());
    let before = workshop.files();
    workshop.write("table.csv", table(600, 2));
    let mut ballast = fs::File::create(out.join(".ballast")).unwrap();
    for _ in 0..11 {
        ballast.write_all(&vec![1; 1 << 20]).unwrap();
    }
    drop(ballast);
    let (code, _, said) = run(&mut workshop.make());
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("can't write to passes: No space left on device"),
        "{said}"
    );
    assert_whole(&workshop);
    for name in before.keys() {
        assert!(workshop.names().contains(name), "{name} is lost");
    }
    assert_eq!(
        count(&workshop.path(HIDDEN)),
        2,
        "temporary files are removed"
    );
    disk.grow();
    let out = made(&mut workshop.make());
    assert!(
        out.contains("600 rows") && out.contains(" 0 wrong"),
        "{out}"
    );
    assert_eq!(workshop.names().len(), 600);
    assert_whole(&workshop);
}

/// Checks that the command changes nothing and fails with one line.
fn refused(workshop: &Workshop, command: &mut Command, mentions: &str) {
    let before = workshop.files();
    let (code, out, said) = run(command);
    assert_eq!((code, &*out), (Some(2), ""), "{mentions}: {said}");
    assert!(
        said.lines().count() == 1 && said.contains(mentions),
        "{mentions}: {said}"
    );
    assert!(workshop.files() == before, "{mentions}");
}

#[test]
fn another_secret_is_refused_because_it_would_lock_out_phones() {
    let workshop = Workshop::new();
    made(&mut workshop.make());
    let token = workshop.json("A-1~8.pkpass")["authenticationToken"].clone();
    let secret = workshop.path("passes.token-secret");
    let right = fs::read(&secret).unwrap();
    workshop.edit("table.csv", "Lovelace,12", "Lovelace,13");

    fs::remove_file(&secret).unwrap();
    refused(&workshop, &mut workshop.make(), "the secret ");
    refused(
        &workshop,
        workshop.make().arg("--dry-run"),
        "is missing, and there are passes with tokens",
    );
    assert!(!secret.exists(), "no new secret is made");
    fs::remove_dir_all(workshop.path(HIDDEN)).unwrap();
    refused(
        &workshop,
        &mut workshop.make(),
        "is missing, and there are passes with tokens",
    );
    fs::write(&secret, "0123456789abcdef0123456789abcdef-another\n").unwrap();
    // Without a note, the passes show the other secret. With a note, the note shows it.
    refused(
        &workshop,
        &mut workshop.make(),
        "passes/A-1~8.pkpass was made with another secret than ",
    );
    fs::write(&secret, &right).unwrap();
    let out = made(&mut workshop.make());
    assert!(
        out.starts_with("3 rows: 0 new, 1 changed, 2 unchanged"),
        "{out}"
    );
    assert_eq!(workshop.json("A-1~8.pkpass")["authenticationToken"], token);
    fs::write(&secret, "0123456789abcdef0123456789abcdef-another\n").unwrap();
    refused(
        &workshop,
        &mut workshop.make(),
        "a pass in passes was made with another secret than ",
    );

    fs::write(&secret, "too short").unwrap();
    refused(&workshop, &mut workshop.make(), "can be guessed");
    fs::write(&secret, vec![b'x'; 5_000]).unwrap();
    refused(&workshop, &mut workshop.make(), "more than 4 KiB");
    refused(
        &workshop,
        workshop.make().args(["--token-secret", "passes/secret"]),
        "in the folder of the passes, which is served",
    );

    // No pass, no note and no message contains the secret.
    let text = String::from_utf8(right).unwrap();
    for path in [
        workshop.path(HIDDEN).join("secret-check"),
        workshop.path("passes/A-1~8.pkpass"),
    ] {
        let content = fs::read(path).unwrap();
        assert!(
            !content
                .windows(64)
                .any(|part| part == &text.as_bytes()[..64])
        );
    }
}

#[test]
fn one_pass_of_another_secret_among_many_is_noticed() {
    let workshop = Workshop::new();
    workshop.write("table.csv", table(50, 1));
    made(&mut workshop.make());
    made(&mut workshop.make_into("card", "table.csv", Path::new("others")));
    fs::copy(
        workshop.path("others/31.pkpass"),
        workshop.path("passes/31.pkpass"),
    )
    .unwrap();
    for is_noted in [true, false] {
        if !is_noted {
            fs::remove_dir_all(workshop.path(HIDDEN)).unwrap();
        }
        refused(
            &workshop,
            &mut workshop.make(),
            "passes/31.pkpass was made with another secret than ",
        );
    }
    // A pass of another type may have a token from another secret.
    let other = Workshop::certified("pass.com.example.other", crate::authority::P256);
    made(&mut other.make());
    fs::copy(
        other.path("passes/a-1.pkpass"),
        workshop.path("passes/a-1.pkpass"),
    )
    .unwrap();
    fs::remove_file(workshop.path("passes/31.pkpass")).unwrap();
    let out = made(&mut workshop.make());
    assert!(
        out.starts_with("50 rows: 1 new, 0 changed, 49 unchanged"),
        "{out}"
    );
    workshop.write("table.csv", TABLE);
    let (code, out, said) = run(workshop.make().arg("--void-missing"));
    assert_eq!(code, Some(1), "{out}");
    assert!(
        said.contains("table.csv:3: passes/a-1.pkpass: is another pass; use another folder"),
        "{said}"
    );
}

#[test]
fn a_damaged_file_is_made_again_only_with_the_same_token() {
    let workshop = Workshop::new();
    made(&mut workshop.make());
    let file = workshop.path("passes/a-1.pkpass");
    let whole = fs::read(&file).unwrap();
    let token = workshop.json("a-1.pkpass")["authenticationToken"].clone();
    for damaged in [&whole[..whole.len() / 2], b"", b"not a zip"] {
        fs::write(&file, damaged).unwrap();
        let out = made(&mut workshop.make());
        assert!(
            out.starts_with("3 rows: 0 new, 1 changed, 2 unchanged"),
            "{out}"
        );
        assert_eq!(workshop.json("a-1.pkpass")["authenticationToken"], token);
    }
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    fs::remove_dir_all(workshop.path(HIDDEN)).unwrap();
    refused(
        &workshop,
        &mut workshop.make(),
        "passes/a-1.pkpass is damaged, so nobody knows",
    );
    fs::remove_file(&file).unwrap();
    let out = made(&mut workshop.make());
    assert!(
        out.starts_with("3 rows: 1 new, 0 changed, 2 unchanged"),
        "{out}"
    );
}

#[test]
fn a_token_in_the_table_may_not_change() {
    let workshop = Workshop::new();
    workshop.edit(
        "card/passkit.toml",
        "serial =",
        "token = \"{token}\"\nserial =",
    );
    let row =
        |id: &str, points: u8, token: &str| format!("{id},A,B,{points},2026-12-31,1,{token}\n");
    let write = |rows: &[String]| {
        workshop.write(
            "table.csv",
            format!("id,first,last,points,until,seat,token\n{}", rows.concat()),
        );
    };
    let (one, two) = ("token-number-one-1", "token-number-two-2");
    write(&[row("1", 1, one), row("2", 1, two), row("3", 1, "short")]);
    let (code, out, said) = run(&mut workshop.make());
    assert_eq!(code, Some(1), "{out}");
    assert!(
        said.contains(
            "table.csv:4: column \"token\": authentication token is shorter than 16 characters"
        ),
        "{said}"
    );
    assert!(!workshop.path("passes.token-secret").exists());
    write(&[row("1", 2, one), row("2", 2, one)]);
    let (code, out, said) = run(&mut workshop.make());
    assert_eq!(code, Some(1), "{said}");
    assert!(
        out.starts_with("2 rows: 0 new, 1 changed, 0 unchanged, 1 wrong"),
        "{out}"
    );
    assert!(
        said.contains("table.csv:3: passes/2.pkpass: has another authentication token"),
        "{said}"
    );
    assert!(!said.contains(one) && !said.contains(two), "{said}");
    assert_eq!(workshop.json("2.pkpass")["authenticationToken"], two);
    fs::write(workshop.path("passes/1.pkpass"), "damaged").unwrap();
    let (code, _, said) = run(&mut workshop.make());
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("table.csv:2: passes/1.pkpass: is damaged, so its token can't be compared"),
        "{said}"
    );

    // Tokens from a secret would differ from the tokens in the passes.
    workshop.edit("card/passkit.toml", "token = \"{token}\"\n", "");
    refused(
        &workshop,
        &mut workshop.make(),
        "is missing, and there are passes with tokens",
    );
}

#[test]
fn two_runs_do_not_write_to_one_folder() {
    let workshop = Workshop::new();
    let mut command = workshop.make_from("card", "-");
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = process.stdin.take().unwrap();
    input.write_all(TABLE.as_bytes()).unwrap();
    eventually("the other run has the folder", || {
        workshop.path(HIDDEN).join("secret-check").exists()
    });
    let (code, _, said) = run(&mut workshop.make());
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("another passkit make writes to passes; wait until it has ended"),
        "{said}"
    );
    drop(input);
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
