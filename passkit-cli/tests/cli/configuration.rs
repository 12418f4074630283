//! `--config`, `--print-config`, credentials and SIGHUP.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::Path,
    process::Command,
};

use crate::{
    archives::pass,
    metrics,
    program::{Service, eventually, passkit, run, send},
    push::TYPE,
};

/// Returns the output of `serve --print-config` with a file of this content.
fn printed(folder: &Path, content: &str, change: impl FnOnce(&mut Command)) -> String {
    let (code, out, said) = printing(folder, content, change);
    assert_eq!((code, &*said), (Some(0), ""), "{content}");
    out
}

fn printing(
    folder: &Path,
    content: &str,
    change: impl FnOnce(&mut Command),
) -> (Option<i32>, String, String) {
    fs::write(folder.join("passkit.toml"), content).unwrap();
    let mut command = passkit();
    command
        .current_dir(folder)
        .args(["serve", "--config", "passkit.toml", "--print-config"]);
    change(&mut command);
    run(&mut command)
}

#[test]
fn the_command_line_has_precedence_over_the_environment_and_the_environment_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let content = "listen = \"127.0.0.1:1\"\npasses = \"./here\"\nmax-connections = 0x10\nallow-unsigned = true\n\
                   push-spacing = 0.5\n";
    let out = printed(folder, content, |_| {});
    for line in [
        "listen = \"127.0.0.1:1\"  # passkit.toml: line 1, column 1",
        "passes = \"./here\"  # passkit.toml: line 2, column 1",
        "max-connections = 16  # passkit.toml: line 3, column 1",
        "allow-unsigned = true  # passkit.toml: line 4, column 1",
        "push-spacing = 0.5  # passkit.toml: line 5, column 1",
        "copies = \"./passkit-copies\"  # default",
        "store = \"sqlite:./passkit.db\"  # default",
        "# orders is not set",
        "# admin-token is not set",
    ] {
        assert!(out.lines().any(|one| one == line), "{line} in {out}");
    }
    // The output can be used as a file for `--config`.
    let again = printed(folder, &out, |_| {});
    let values = |out: &str| {
        let value = |line: &str| line.split("  # ").next().unwrap().to_owned();
        out.lines().map(value).collect::<Vec<_>>()
    };
    assert_eq!(values(&again), values(&out));

    let out = printed(folder, content, |command| {
        command
            .env("PASSKIT_LISTEN", "127.0.0.1:2")
            .env("PASSKIT_PASSES", "./variable")
            .env("PASSKIT_ALLOW_UNSIGNED", "false")
            .args(["--listen=127.0.0.1:3", "--max-connections", "5"]);
    });
    for line in [
        "listen = \"127.0.0.1:3\"  # command line",
        "passes = \"./variable\"  # PASSKIT_PASSES",
        "allow-unsigned = false  # PASSKIT_ALLOW_UNSIGNED",
        "max-connections = 5  # command line",
    ] {
        assert!(out.lines().any(|one| one == line), "{line} in {out}");
    }
    // The environment may name the file, too.
    let mut command = passkit();
    command
        .current_dir(folder)
        .env("PASSKIT_CONFIG", "passkit.toml");
    let (_, out, _) = run(command.args(["serve", "--print-config"]));
    assert!(
        out.contains("listen = \"127.0.0.1:1\"  # passkit.toml"),
        "{out}"
    );
}

#[test]
fn the_name_of_the_file_need_not_be_text() {
    let folder = tempfile::tempdir().unwrap();
    let name = OsStr::from_bytes(b"\xff.toml");
    fs::write(folder.path().join(name), "listen = \"127.0.0.1:1\"\n").unwrap();
    let together = [OsStr::new("--config="), name].join(OsStr::new(""));
    for arguments in [&[&*together][..], &[OsStr::new("--config"), name]] {
        let mut command = passkit();
        command.current_dir(folder.path()).arg("serve");
        let (code, out, said) = run(command.args(arguments).arg("--print-config"));
        assert_eq!((code, &*said), (Some(0), ""), "{arguments:?}");
        assert!(out.contains("listen = \"127.0.0.1:1\"  # "), "{out}");
    }
}

#[test]
fn a_wrong_file_is_one_line_that_says_where() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    for (content, mentions) in [
        (
            "\n  lisen = \"a\"",
            &[
                "line 2, column 3",
                "unknown key lisen",
                "did you mean listen?",
            ][..],
        ),
        (
            "max_connections = 5",
            &["line 1, column 1", "did you mean max-connections?"],
        ),
        ("allow_unsigned = true", &["did you mean allow-unsigned?"]),
        (
            "xyzzy = 5",
            &["unknown key xyzzy", "the options of `passkit serve`"],
        ),
        ("[serve]\nlisten = \"a\"", &["line 1, column 2", "serve"]),
        ("print-config = true", &["print-config can't be set"]),
        ("help = true", &["help can't be set"]),
        ("config = \"a\"", &["config can't be set"]),
        ("passes-file = \"a\"", &["unknown key passes-file"]),
        (
            "passes = 5",
            &["line 1, column 1", "passes must be a string", "integer"],
        ),
        (
            "allow-unsigned = \"yes\"",
            &["allow-unsigned must be true or false", "string"],
        ),
        (
            "max-connections = \"5\"",
            &["max-connections must be a whole number"],
        ),
        (
            "max-connections = 5.0",
            &["max-connections must be a whole number", "float"],
        ),
        (
            "max-connections = 0",
            &["line 1, column 1", "--max-connections", "0 is not in"],
        ),
        (
            "push-spacing = true",
            &["push-spacing must be a number", "boolean"],
        ),
        (
            "listen = \"nowhere\"",
            &["line 1, column 1", "nowhere", "--listen"],
        ),
        (
            "log = \"inof\"",
            &["line 1, column 1", "inof", "--log", "info"],
        ),
        (
            "listen = \"a\"\nlisten = \"b\"",
            &["line 2, column 1", "duplicate"],
        ),
        ("listen = ", &["line 1"]),
        ("apns-key = \"a\"", &["--apns-cert", "required"]),
        (
            "apns-cert = \"a\"\napns-config = \"b\"",
            &[
                "passkit.toml",
                "line",
                "--apns-cert",
                "--apns-config",
                "cannot be used with",
            ],
        ),
        (
            "admin-token = \"xyzzyplugh\"\nadmin-token-file = \"b\"",
            &["are both set"],
        ),
        (
            "admin-token-file = \"missing\"",
            &["line 1, column 1", "admin-token-file", "No such file"],
        ),
        // These secrets are in wrong places.
        ("admin-token = 5332783", &["admin-token must be a string"]),
        (
            "admin-token = [\"xyzzyplugh\"]",
            &["admin-token must be a string", "array"],
        ),
        ("\"xyzzyplugh postgres://a:b@c\" = 5", &["an unknown key"]),
        (
            "store = \"postgres://frobozz:xyzzy/plugh@h/d\"",
            &["line 1, column 1", "--store"],
        ),
        ("admin-token = \"xyzzyplugh", &["line 1"]),
        ("admin-token = xyzzyplugh", &["line 1"]),
    ] {
        let (code, out, said) = printing(folder.path(), content, |_| {});
        assert_eq!(
            (code, &*out, said.lines().count()),
            (Some(2), "", 1),
            "{content}: {said}"
        );
        assert!(
            mentions.iter().all(|mention| said.contains(mention)),
            "{content}: {mentions:?} in {said}"
        );
        for secret in ["xyzzyplugh", "plugh", "5332783", "frobozz"] {
            assert!(!said.contains(secret), "{said}");
        }
    }
    for (path, mention) in [("missing.toml", "No such file"), ("empty", "directory")] {
        let mut command = passkit();
        command
            .current_dir(folder.path())
            .args(["serve", "--config", path]);
        let (code, _, said) = run(&mut command);
        assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(path) && said.contains(mention), "{said}");
    }
}

#[test]
fn no_secret_is_printed_wherever_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("secret"), "xyzzyplugh-xyzzyplugh\n").unwrap();
    let credentials = folder.join("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("PASSKIT_CERT_PASSWORD"), "xyzzyplugh\n").unwrap();
    fs::write(
        credentials.join("PASSKIT_STORE"),
        "postgres://frobozz:xyzzyplugh@h/d\n",
    )
    .unwrap();
    let content = "apns-password = \"xyzzyplugh\"\nadmin-token-file = \"secret\"\n";
    let out = printed(folder, content, |command| {
        command.env("CREDENTIALS_DIRECTORY", &credentials);
    });
    for line in [
        "# apns-password is hidden; it comes from passkit.toml: line 1, column 1",
        "# admin-token is hidden; it comes from passkit.toml: line 2, column 1",
        "# cert-password is hidden; it comes from the credential PASSKIT_CERT_PASSWORD",
        "store = \"postgres://h/d\"  # the credential PASSKIT_STORE",
    ] {
        assert!(out.lines().any(|one| one == line), "{line} in {out}");
    }
    // A variable has precedence over a credential, and a credential over the file.
    let out = printed(folder, "store = \"sqlite:./file.db\"", |command| {
        command
            .env("CREDENTIALS_DIRECTORY", &credentials)
            .env("PASSKIT_CERT_PASSWORD", "xyzzyplugh")
            .env("PASSKIT_ADMIN_TOKEN_FILE", "secret")
            .args(["--apns-password", "xyzzyplugh"]);
    });
    for line in [
        "# cert-password is hidden; it comes from PASSKIT_CERT_PASSWORD",
        "# admin-token is hidden; it comes from PASSKIT_ADMIN_TOKEN_FILE",
        "# apns-password is hidden; it comes from command line",
        "store = \"postgres://h/d\"  # the credential PASSKIT_STORE",
    ] {
        assert!(out.lines().any(|one| one == line), "{line} in {out}");
    }
    assert!(!out.contains("xyzzy") && !out.contains("frobozz"), "{out}");
}

/// Writes the file of a service, and returns the service with this file.
fn with_file(service: Service, content: &str) -> Service {
    let file = file_of(&service);
    fs::write(&file, content).unwrap();
    service.given(&["--config", file.to_str().unwrap()])
}

fn file_of(service: &Service) -> std::path::PathBuf {
    service.folder.path().join("passkit.toml")
}

#[test]
fn a_service_takes_its_options_and_secrets_from_the_file() {
    let service = Service::new();
    let token = service.folder.path().join("token");
    fs::write(&token, "the-right-token-1234\n").unwrap();
    let content = format!(
        "metrics = \"127.0.0.1:0\"\nadmin-token-file = {:?}\n",
        token.to_str().unwrap()
    );
    let mut service = with_file(service, &content);
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    service.start();
    let body = format!(r#"{{"passes":[{{"type":"{TYPE}","serial":"A"}}]}}"#);
    for (token, status) in [("the-right-token-1234", 202), ("the-right-token-1235", 401)] {
        let headers = [("Authorization", &*format!("Bearer {token}"))];
        let answer = service.send("POST", "/admin/v1/publish", &headers, body.as_bytes());
        assert_eq!(answer.status, status);
    }
    // The health check finds the address in the same file.
    let address = metrics::address(&service);
    fs::write(
        file_of(&service),
        format!("metrics = \"{address}\"\nlisten = \"127.0.0.1:1\"\n"),
    )
    .unwrap();
    let mut command = passkit();
    let (code, out, said) = run(command
        .args(["healthcheck", "--config"])
        .arg(file_of(&service)));
    assert_eq!((code, &*out), (Some(0), "ready\n"), "{said}");
    // No argument of the process has a secret.
    let arguments = fs::read(format!("/proc/{}/cmdline", service.id())).unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains("the-right-token"));
}

#[test]
fn a_secret_in_a_file_for_all_users_is_a_warning() {
    for (mode, warns) in [(0o644, true), (0o600, false)] {
        let mut service = with_file(Service::new(), "admin-token = \"the-right-token-1234\"\n");
        let file = file_of(&service);
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        service.start();
        let said = service.stop_and_hear();
        assert_eq!(
            said.contains("passkit.toml is for secrets"),
            warns,
            "{said}"
        );
    }
}

pub(crate) fn hang_up(service: &Service) {
    let id = service.id().to_string();
    let sent = Command::new("kill").args(["-HUP", &id]).status();
    assert!(sent.unwrap().success());
}

#[test]
fn sighup_changes_the_level_of_the_log_and_names_what_needs_a_restart() {
    let mut service = with_file(Service::new(), "log = \"error\"\nmax-connections = 5\n");
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    service.start();
    assert_eq!(service.get(TYPE, "A", None).status, 200);
    // Afterwards, the level may already be `debug`.
    assert!(!service.said().contains("DEBUG"), "{}", service.said());
    let file = file_of(&service);
    fs::write(
        &file,
        "log = \"debug\"\nmax-connections = 6\nallow-unsigned = true\n",
    )
    .unwrap();
    hang_up(&service);
    eventually("both are named", || {
        let said = service.said();
        ["max-connections", "allow-unsigned"]
            .iter()
            .all(|name| said.contains(&format!("{name} has changed: restart the service")))
    });
    assert!(
        !service.said().contains("log has changed"),
        "{}",
        service.said()
    );
    assert_eq!(service.get(TYPE, "A", None).status, 200);
    eventually("a fetch is logged", || service.said().contains("fetch"));

    fs::write(&file, "lisen = 5\n").unwrap();
    hang_up(&service);
    eventually("the mistake is logged", || {
        service.said().contains("no option is changed")
            && service.said().contains("did you mean listen?")
    });
    assert_eq!(service.get(TYPE, "A", None).status, 200);
    assert!(service.stop("TERM").success());
}

#[test]
fn many_sighups_end_nothing() {
    let mut service = Service::new().given(&["--metrics", "127.0.0.1:0"]);
    service.start();
    for _ in 0..20 {
        hang_up(&service);
    }
    let address = metrics::address(&service);
    assert_eq!(
        send(&address, "GET", "/healthz", &[], b"").unwrap().status,
        200
    );
    eventually("it is logged", || service.said().contains("are read again"));
}

#[test]
fn the_file_in_the_documents_is_good() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/installing.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("```toml\n").unwrap();
    let (content, _) = rest.split_once("```").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = printed(folder.path(), content, |_| {});
    assert!(out.contains("# passkit.toml: line "), "{out}");
}
