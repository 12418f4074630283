//! No error, help text or log shows what is secret, and secrets can be given as files.

use std::{fs, path::Path, process::Command};

use crate::{
    archives::pass,
    postgres,
    program::{Service, eventually, passkit, run},
    push::TYPE,
};

/// Every command that takes the URL of a store, with the option for it at the end.
const COMMANDS: [&[&str]; 13] = [
    &["serve", "--passes", ".", "--store"],
    &["push", TYPE, "A", "--apns-cert", "none.pem", "--store"],
    &["migrate", "--store"],
    &["explain", TYPE, "A", "--store"],
    &["stats", "--store"],
    &["import", "--from", "a.csv", "--store"],
    &["export", "--store"],
    &["backup", "copy.db", "--store"],
    &["restored", "--store"],
    &["repair", "--store"],
    &["purge", TYPE, "A", "--store"],
    &["copy", "--to", "sqlite:./other.db", "--from"],
    &["copy", "--from", "sqlite:./a.db", "--to"],
];

/// Odd and mistyped URLs. `xyzzy` and `plugh` are parts of a password, and nothing listens at the port.
const URLS: [&str; 54] = [
    // Good ones.
    "postgres://frobozz:xyzzyplugh@127.0.0.1:1/d",
    "postgres://xyzzyplugh@127.0.0.1:1/d",
    "postgres://:xyzzyplugh@127.0.0.1:1/d",
    "postgres://frobozz:xyzzy%2Fplugh@127.0.0.1:1/d",
    "postgres://frobozz:xyzzy:plugh@127.0.0.1:1/d",
    "postgres://127.0.0.1:1/d?user=frobozz&password=xyzzyplugh",
    "redis://frobozz:xyzzyplugh@127.0.0.1:1",
    "redis://:xyzzyplugh@127.0.0.1:1/0",
    "redis+cluster://frobozz:xyzzyplugh@127.0.0.1:1,127.0.0.1:1",
    "redis+sentinel://frobozz:xyzzyplugh@127.0.0.1:1,127.0.0.1:1/m",
    "rediss://frobozz:xyzzyplugh@127.0.0.1:1",
    // Characters in the password that would end it.
    "postgres://frobozz:xyzzy/plugh@127.0.0.1:1/d",
    "postgres://frobozz:12/xyzzyplugh@127.0.0.1:1/d",
    "postgres://frobozz:xyzzy?plugh@127.0.0.1:1/d",
    "postgres://frobozz:12?xyzzyplugh@127.0.0.1:1/d",
    "postgres://frobozz:xyzzy#plugh@127.0.0.1:1/d",
    "postgres://frobozz:xyzzy@plugh@127.0.0.1:1/d",
    "postgres://frobozz:xyzzy plugh@127.0.0.1:1/d",
    "postgres://frobozz:xyzzy\\plugh@127.0.0.1:1/d",
    "postgres://frobozz:xyzzy\nplugh@127.0.0.1:1/d",
    "postgres://frobozz:xyzzy[plugh@127.0.0.1:1/d",
    "postgres://frobozz:xyzzy'plugh@127.0.0.1:1/d",
    "postgres://frobozz:xyzzy\"plugh@127.0.0.1:1/d",
    "redis://frobozz:xyzzy/plugh@127.0.0.1:1",
    "redis://:xyzzy?plugh@127.0.0.1:1",
    "redis://:xyzzy#plugh@127.0.0.1:1",
    "redis+sentinel://frobozz:xyzzy/plugh@127.0.0.1:1/m",
    "redis+cluster://frobozz:xyzzy,plugh@127.0.0.1:1",
    // Bad escapes.
    "postgres://frobozz:xyzzy%plugh@127.0.0.1:1/d",
    "postgres://frobozz:xyzzyplugh%@127.0.0.1:1/d",
    "postgres://frobozz:xyzzy%FFplugh@127.0.0.1:1/d",
    "redis://:xyzzy%zzplugh@127.0.0.1:1",
    // Slashes, the scheme, the host or the @ are missing or wrong.
    "postgres:/frobozz:xyzzyplugh@127.0.0.1:1/d",
    "postgres:frobozz:xyzzyplugh@127.0.0.1:1/d",
    "postgres//frobozz:xyzzyplugh@127.0.0.1:1/d",
    "postgres:///frobozz:xyzzyplugh@127.0.0.1:1/d",
    "://frobozz:xyzzyplugh@127.0.0.1:1/d",
    "//frobozz:xyzzyplugh@127.0.0.1:1/d",
    "frobozz:xyzzyplugh@127.0.0.1:1/d",
    "xyzzyplugh@127.0.0.1:1/d",
    "xyzzyplugh",
    "posgres://frobozz:xyzzyplugh@127.0.0.1:1/d",
    "POSTGRES://frobozz:xyzzyplugh@127.0.0.1:1/d",
    " postgres://frobozz:xyzzyplugh@127.0.0.1:1/d",
    "sqlite://frobozz:xyzzyplugh@127.0.0.1:1/d",
    "sled:frobozz:xyzzyplugh@127.0.0.1:1/d",
    "postgres://frobozz:xyzzyplugh",
    "postgres://frobozz:xyzzyplugh/d",
    "redis+sentinel://frobozz:xyzzyplugh@127.0.0.1:1",
    "redis+cluster://frobozz:xyzzyplugh@,,",
    "redis+cluster://127.0.0.1:1,frobozz:xyzzyplugh@127.0.0.1:1",
    "postgres://frobozz:xyzzyplugh@127.0.0.1:port/d",
    // Parameters.
    "postgres://127.0.0.1:1/d?pasword=xyzzyplugh",
    "host=127.0.0.1 port=1 user=frobozz password=xyzzyplugh",
];

fn shows_nothing(command: &mut Command, what: &str) {
    let (code, out, said) = run(command);
    // For some servers there is nothing to repair.
    let is_done = code == Some(0) && out.starts_with("nothing to do");
    assert!(code == Some(2) || is_done, "{what}: {out}{said}");
    for secret in ["xyzzy", "plugh", "frobozz"] {
        assert!(
            !said.contains(secret) && !out.contains(secret),
            "{what}: {secret} in {out}{said}"
        );
    }
    // A command that logs may add lines of its drivers.
    let last = said.lines().last().unwrap_or_default();
    assert!(is_done || last.starts_with("passkit: "), "{what}: {said}");
}

/// The variable that belongs to the option.
fn variable(option: &str) -> &'static str {
    match option {
        "--from" => "PASSKIT_COPY_FROM",
        "--to" => "PASSKIT_COPY_TO",
        _ => "PASSKIT_STORE",
    }
}

/// A folder with what the commands need besides the store.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.csv"), "").unwrap();
    let (code, _, said) = run(passkit()
        .args(["import", "--from", "a.csv", "--store", "sqlite:./a.db"])
        .current_dir(folder.path()));
    assert_eq!(code, Some(0), "{said}");
    folder
}

#[test]
fn no_command_shows_the_login_of_a_store() {
    let folder = folder();
    let stats = COMMANDS[3];
    for url in URLS {
        let mut command = passkit();
        command.args(stats).arg(url);
        shows_nothing(command.current_dir(folder.path()), url);
        let mut command = passkit();
        command.arg("stats").env("PASSKIT_STORE", url);
        shows_nothing(command.current_dir(folder.path()), url);
    }
    for (arguments, url) in COMMANDS.iter().flat_map(|command| {
        // A URL that can be read, one that can't, one without a scheme, and one with a parameter.
        [URLS[0], URLS[11], URLS[38], URLS[52]].map(|url| (command, url))
    }) {
        let what = format!("{arguments:?} {url}");
        let mut command = passkit();
        command.args(*arguments).arg(url);
        shows_nothing(command.current_dir(folder.path()), &what);
        let (option, others) = arguments.split_last().unwrap();
        let mut command = passkit();
        command.args(others).env(variable(option), url);
        shows_nothing(command.current_dir(folder.path()), &what);
    }
}

#[test]
fn a_url_at_a_wrong_place_is_not_shown() {
    let folder = folder();
    for arguments in [
        "postgres://frobozz:xyzzyplugh@h/d",
        "stats postgres://frobozz:xyzzyplugh@h/d",
        "stats --store postgres://frobozz:xyzzy plugh@h/d",
        "stats --store postgres://frobozz: xyzzy plugh@h/d",
        "stats --stroe=postgres://frobozz:xyzzyplugh@h/d",
        "stats -postgres://frobozz:xyzzyplugh@h/d",
        "stats --xyzzyplugh@h/d",
        "stats --json=postgres://frobozz:xyzzyplugh@h/d",
        "serve --listen postgres://frobozz:xyzzyplugh@h/d",
        "backup postgres://frobozz:xyzzyplugh@h/d",
        "export --to postgres://frobozz:xyzzyplugh@h/d",
        "import --from postgres://frobozz:xyzzyplugh@h/d",
        "import --from a.csv --rejects postgres://frobozz:xyzzyplugh@h/d",
        "copy postgres://frobozz:xyzzyplugh@h/d postgres://frobozz:xyzzyplugh@g/d",
    ] {
        let mut command = passkit();
        command
            .args(arguments.split(' '))
            .current_dir(folder.path());
        shows_nothing(&mut command, arguments);
    }
}

#[test]
fn the_login_of_a_web_service_is_not_shown() {
    let folder = folder();
    let folder = folder.path();
    fs::write(folder.join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    let target = format!(
        "change = \"true\"\n[[passes]]\ntype = \"{TYPE}\"\nserial = \"A\"\ntoken = \"0123456789abcdef\"\n"
    );
    fs::write(folder.join("target.toml"), target).unwrap();
    for url in [
        "http://frobozz:xyzzyplugh@127.0.0.1:1/",
        "http://frobozz:xyzzy/plugh@127.0.0.1:1/",
        "http://frobozz:xyzzy?plugh@127.0.0.1:1/",
        "http:frobozz:xyzzyplugh@127.0.0.1:1/",
        "frobozz:xyzzyplugh@127.0.0.1:1",
    ] {
        for command in [
            &["bench", "--passes", ".", "--url"][..],
            &["conformance", "run", "--target", "target.toml", "--url"],
            &["device", "add", "a.pkpass", "--url"],
        ] {
            let what = format!("{command:?} {url}");
            shows_nothing(passkit().args(command).arg(url).current_dir(folder), &what);
        }
    }
}

/// The user is missing from the URL, so the password is taken for the user.
#[test]
fn what_a_server_repeats_is_not_shown() {
    let database = postgres::migrated();
    let (scheme, rest) = database.split_once("://").unwrap();
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let url = format!("{scheme}://xyzzyplugh@{host}");
    shows_nothing(passkit().args(["stats", "--store", &url]), &url);
}

const SECRETS: [&str; 6] = [
    "PASSKIT_STORE",
    "PASSKIT_ADMIN_TOKEN",
    "PASSKIT_APNS_PASSWORD",
    "PASSKIT_CERT_PASSWORD",
    "PASSKIT_COPY_FROM",
    "PASSKIT_COPY_TO",
];

#[test]
fn help_shows_no_secret_of_the_environment() {
    let folder = folder();
    let file = folder.path().join("secret");
    fs::write(&file, "sled:./xyzzyplugh\n").unwrap();
    let mut named = String::new();
    for command in COMMANDS.map(|command| command[0]) {
        for from_file in [false, true] {
            let mut help = passkit();
            help.args([command, "--help"]);
            for secret in SECRETS {
                if from_file {
                    help.env(format!("{secret}_FILE"), &file);
                } else {
                    help.env(secret, "sled:./xyzzyplugh");
                }
            }
            let (code, out, said) = run(&mut help);
            assert_eq!(code, Some(0), "{said}");
            assert!(!out.contains("xyzzyplugh"), "{command}: {out}");
            named += &out;
        }
    }
    for secret in SECRETS {
        assert!(named.contains(&format!("[env: {secret}]")), "{secret}");
    }
}

#[test]
fn secrets_are_read_from_files() {
    let folder = folder();
    let folder = folder.path();
    let stats = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = passkit();
        command.args(["stats", "--json"]).args(arguments);
        run(command.envs(variables.iter().copied()).current_dir(folder))
    };
    for content in ["sqlite:./a.db", "sqlite:./a.db\n", "sqlite:./a.db\r\n"] {
        fs::write(folder.join("url"), content).unwrap();
        let (code, out, said) = stats(&[("PASSKIT_STORE_FILE", "url")], &[]);
        assert_eq!(code, Some(0), "{content:?}: {out}{said}");
    }
    // A value that is nearer to the command has precedence.
    fs::write(folder.join("other"), "sqlite:./missing.db").unwrap();
    let (code, ..) = stats(
        &[("PASSKIT_STORE_FILE", "other")],
        &["--store", "sqlite:./a.db"],
    );
    assert_eq!(code, Some(0));
    let (code, ..) = stats(
        &[("PASSKIT_STORE_FILE", "absent")],
        &["--store=sqlite:./a.db"],
    );
    assert_eq!(code, Some(0));
    let (code, ..) = stats(
        &[
            ("PASSKIT_STORE_FILE", ""),
            ("PASSKIT_STORE", "sqlite:./a.db"),
        ],
        &[],
    );
    assert_eq!(code, Some(0));
    fs::write(folder.join("empty"), "\n").unwrap();
    fs::write(folder.join("two"), "sqlite:./a.db\n\n").unwrap();
    for (variables, hint) in [
        (&[("PASSKIT_STORE_FILE", "other")][..], "missing.db"),
        (&[("PASSKIT_STORE_FILE", "")], "is empty"),
        (&[("PASSKIT_STORE_FILE", "empty")], "one line"),
        (&[("PASSKIT_STORE_FILE", "two")], "one line"),
        (
            &[("PASSKIT_STORE_FILE", "postgres://frobozz:xyzzyplugh@h/d")],
            "PASSKIT_STORE_FILE",
        ),
        (
            &[
                ("PASSKIT_STORE_FILE", "other"),
                ("PASSKIT_STORE", "sqlite:./a.db"),
            ],
            "both",
        ),
    ] {
        let (code, _, said) = stats(variables, &[]);
        assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(hint) && !said.contains("xyzzy"), "{said}");
    }
    fs::write(folder.join("from"), "sqlite:./a.db").unwrap();
    fs::write(folder.join("to"), "sqlite:./new.db").unwrap();
    let (code, _, said) = run(passkit()
        .arg("copy")
        .envs([
            ("PASSKIT_COPY_FROM_FILE", "from"),
            ("PASSKIT_COPY_TO_FILE", "to"),
        ])
        .current_dir(folder));
    assert_eq!(code, Some(0), "{said}");
    assert!(folder.join("new.db").exists());
}

#[test]
fn the_admin_token_is_read_from_a_file() {
    let mut service = Service::with_arguments(&["--admin-listen", "127.0.0.1:0"]);
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    let (code, _, said) = run(&mut service.command());
    assert_eq!(code, Some(2));
    assert!(said.contains("--admin-token"), "{said}");
    let file = service.folder.path().join("token");
    fs::write(&file, "the-right-token-1234\n").unwrap();
    service.set_variable("PASSKIT_ADMIN_TOKEN_FILE", file.to_str().unwrap());
    service.start();
    eventually("it is logged", || {
        service.said().contains("publish at http://")
    });
    let said = service.said();
    let (_, rest) = said.split_once("publish at http://").unwrap();
    let address = rest.split('/').next().unwrap();
    for (token, status) in [("the-right-token-1234", 202), ("the-right-token-1235", 401)] {
        let headers = [("Authorization", &*format!("Bearer {token}"))];
        let body = format!(r#"{{"passes":[{{"type":"{TYPE}","serial":"A"}}]}}"#);
        let answer = crate::program::send(
            address,
            "POST",
            "/admin/v1/publish",
            &headers,
            body.as_bytes(),
        );
        assert_eq!(answer.unwrap().status, status);
    }
}

/// People copy what documents show.
#[test]
fn no_document_has_a_password_on_a_command_line() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut documents = vec![root.join("README.md")];
    for folder in fs::read_dir(&root).unwrap() {
        let folder = folder.unwrap().path();
        if folder.join("Cargo.toml").exists() || folder.ends_with("docs") {
            let files = fs::read_dir(&folder).unwrap();
            documents.extend(files.map(|file| file.unwrap().path()));
        }
    }
    let mut read = 0;
    for document in documents {
        if document.extension().is_none_or(|end| end != "md") {
            continue;
        }
        read += 1;
        for line in fs::read_to_string(&document).unwrap().lines() {
            let is_command =
                line.trim_start().starts_with("passkit ") || line.contains("`passkit ");
            let has_secret = ["--admin-token", "--apns-password"]
                .iter()
                .any(|option| line.contains(option))
                || line
                    .split_whitespace()
                    .any(|word| word.contains("://") && word.contains('@'));
            let sends_secret = line.contains("curl ") && line.contains("Bearer ");
            assert!(
                !(is_command && has_secret || sends_secret),
                "{}: {line}",
                document.display()
            );
        }
    }
    assert!(read > 10, "{read} documents");
}
