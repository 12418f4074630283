//! Certificates for pushes: which ones are accepted, and the errors for the others.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use crate::{
    archives::{pass, replace},
    program::{Service, eventually, passkit, run},
    push::{Local, METRICS, TYPE, quiet, register, token},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn a_bad_certificate_is_reported_in_one_line() {
    let local = Local::start();
    let good = local.certificate(TYPE);
    let issued = local.apns.issue(TYPE).unwrap();
    let other_key = local.file("other.key", &issued.key);
    let bare = local.file("bare.pem", &issued.certificate);
    let nothing = local.file("nothing.pem", "nothing\n");
    let no_type = local.file("no-type.pem", local.apns.root_pem());
    let wrong_type = local.file(
        "wrong-type.toml",
        &format!("[[topic]]\ntype = \"pass.com.example.other\"\ncert = \"{TYPE}.pem\"\n"),
    );
    let typo = local.file(
        "typo.toml",
        "[[topic]]\ntipe = \"pass.com.example.other\"\n",
    );
    let no_key = local.file(
        "no-key.toml",
        "[token]\nkey = \"none.p8\"\nkey_id = \"A\"\nteam_id = \"B\"\n",
    );
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let one = |file: &Path| vec!["--apns-cert".to_owned(), path(file)];
    let config = |file: &Path| vec!["--apns-config".to_owned(), path(file)];
    let mut misfit = one(&good);
    misfit.extend(["--apns-key".to_owned(), path(&other_key)]);
    let missing = one(&local.folder.path().join("missing.pem"));
    let p12 = p12(&local, "ticket", TYPE);
    let mut with_key = one(&p12);
    with_key.extend(["--apns-key".to_owned(), path(&other_key)]);
    let mut with_password = one(&good);
    with_password.extend(["--apns-password".to_owned(), P12_PASSWORD.to_owned()]);
    let p12_of_other = local.file(
        "p12.toml",
        &format!(
            "[[topic]]\ntype = \"pass.com.example.other\"\ncert = \"ticket.p12\"\npassword = \"{P12_PASSWORD}\"\n"
        ),
    );
    let passes = tempfile::tempdir().unwrap();
    for (arguments, mentions) in [
        (
            one(&p12),
            [
                "ticket.p12",
                "needs its password",
                "PASSKIT_CERT_PASSWORD_FILE",
            ],
        ),
        (with_key, ["ticket.p12", "PKCS #12", "contains the key"]),
        (with_password, [TYPE, ".p12", "don't name a password"]),
        (
            config(&p12_of_other),
            ["ticket.p12", "pass.com.example.other", TYPE],
        ),
        (misfit, ["other.key", TYPE, "does not fit"]),
        (one(&bare), ["bare.pem", TYPE, "no private key"]),
        (one(&nothing), ["nothing.pem", "no certificate", "PEM"]),
        (
            one(&no_type),
            ["no-type.pem", "names no type", "Pass Type ID"],
        ),
        (missing, ["missing.pem", "No such file", "os error 2"]),
        (config(&wrong_type), ["pem", "pass.com.example.other", TYPE]),
        (config(&typo), ["typo.toml", "line 2", "tipe"]),
        (config(&no_key), ["none.p8", "no-key.toml", "No such file"]),
        (
            vec!["--apns-key".to_owned(), path(&other_key)],
            ["--apns-cert", "required", "provided"],
        ),
    ] {
        let mut command = passkit();
        let store = format!("sled:{}", passes.path().join("store").display());
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--store",
            &store,
            "--passes",
        ]);
        let (code, _, said) = run(command.arg(passes.path()).args(&arguments));
        assert_eq!(
            (code, said.lines().count()),
            (Some(2), 1),
            "{arguments:?}: {said}"
        );
        assert!(
            mentions.iter().all(|mention| said.contains(mention)),
            "{mentions:?} in {said}"
        );
    }
}

/// `serve` starts with such a certificate, but a command that only sends pushes can do nothing.
#[test]
fn push_refuses_an_expired_certificate() {
    let local = Local::start();
    let now = SystemTime::now();
    let old = local
        .apns
        .issue_for(TYPE, now - 9 * DAY, now - DAY)
        .unwrap();
    let expired = local.file("expired.pem", &(old.certificate + &old.key));
    let mut command = passkit();
    command.args(["push", TYPE, "A-1", "--apns-cert"]);
    let (code, _, said) = run(command.arg(&expired));
    // The first line is the warning in the log.
    assert_eq!((code, said.lines().count()), (Some(2), 2), "{said}");
    let last = said.lines().last().unwrap();
    for mention in ["passkit: ", "expired.pem", TYPE, "expired on"] {
        assert!(last.contains(mention), "{said}");
    }
}

/// A text that may be a key or a password never reaches stderr, whatever form it has.
#[test]
fn no_error_shows_a_secret() {
    let local = Local::start();
    let issued = local.apns.issue(TYPE).unwrap();
    let pem = issued.certificate.clone() + &issued.key;
    let passes = tempfile::tempdir().unwrap();
    let said_of = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = passkit();
        let store = format!("sqlite:{}", passes.path().join("db").display());
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--passes"])
            .arg(passes.path());
        command
            .env("PASSKIT_STORE", store)
            .envs(environment.iter().copied());
        let (code, _, said) = run(command.args(arguments));
        assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
        said
    };
    // A message may replace line ends, so the test looks for each line of the key.
    let lines: Vec<&str> = issued.key.lines().filter(|line| line.len() > 40).collect();
    assert!(lines.len() > 1);
    let shows_key = |said: &str| {
        let numbers = lines[0].bytes().take(6).map(|byte| byte.to_string());
        let numbers = numbers.collect::<Vec<_>>().join(", ");
        said.contains(&numbers) || lines.iter().any(|line| said.contains(&line[..20]))
    };
    let cut = &pem[..pem.len() - 60];
    let damaged = pem.replace(lines[1], &format!("!{}", &lines[1][1..]));
    let twice = pem.replace("-----END PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----");
    let flat = issued.key.replace('\n', " ");
    let quoted = format!(
        "{}{:?}",
        issued.certificate,
        flat.replace("-----END", "----END")
    );
    let page = format!("<html><body>{pem}</body>").replace("-----BEGIN CERT", "BEGIN CERT");
    let large = pem.repeat(2_000);
    for (name, text) in [
        ("cut", cut),
        ("damaged", &damaged),
        ("twice", &twice),
        ("quoted", &quoted),
        ("page", &page),
        ("large", &large),
        ("key", &issued.key),
        ("empty", ""),
    ] {
        let file = local.file(&format!("{name}.pem"), text);
        let said = said_of(&["--apns-cert", file.to_str().unwrap()], &[]);
        assert!(said.contains(name) && !shows_key(&said), "{said}");
    }
    let folder = local.folder.path().to_str().unwrap();
    assert!(said_of(&["--apns-cert", folder], &[]).contains("directory"));

    // The key itself is given in place of the name of a file.
    let key_file = local.file("good.pem", &pem);
    let key_file = key_file.to_str().unwrap();
    for (arguments, name) in [
        (&[][..], "PASSKIT_APNS_CERT"),
        (&["--apns-cert", key_file], "PASSKIT_APNS_KEY"),
        (&[], "PASSKIT_APNS_CONFIG"),
        (&["--apns-cert", key_file], "PASSKIT_APNS_ROOT"),
        (&["--store", "rediss://127.0.0.1:1"], "PASSKIT_REDIS_CERT"),
        (&["--store", "rediss://127.0.0.1:1"], "PASSKIT_REDIS_ROOT"),
        (&[], "PASSKIT_PREFIX"),
    ] {
        for text in [&pem, &flat] {
            let said = said_of(arguments, &[(name, text)]);
            assert!(!shows_key(&said), "{name}: {said}");
        }
    }

    // A password of the wrong type.
    for text in [
        "[[topic]]\ntype = \"pass.a\"\ncert = \"c\"\npassword = 5332783",
        "[[topic]]\ntype = \"pass.a\"\ncert = \"c\"\npassword = [\"5332783\"]",
        "token = \"5332783\"",
        "[token]\nkey = 5332783\nkey_id = \"a\"\nteam_id = \"b\"",
        "topic = \"5332783\"",
    ] {
        let file = local.file("secret.toml", text);
        let said = said_of(&["--apns-config", file.to_str().unwrap()], &[]);
        assert!(
            said.contains("secret.toml: line ") && !said.contains("5332783"),
            "{said}"
        );
    }
}

const P12_PASSWORD: &str = "a p12 password";

/// Writes a certificate with its key, in the form that Keychain Access exports.
fn p12(local: &Local, name: &str, type_id: &str) -> PathBuf {
    let pem = local.certificate(type_id);
    let file = local.folder.path().join(format!("{name}.p12"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "pkcs12",
        "-export",
        "-legacy",
        "-passout",
        &format!("pass:{P12_PASSWORD}"),
        "-in",
    ]);
    assert!(
        openssl
            .arg(&pem)
            .arg("-out")
            .arg(&file)
            .status()
            .unwrap()
            .success()
    );
    file
}

#[test]
fn a_certificate_with_a_password_is_accepted() {
    let local = Local::start();
    let p12 = p12(&local, "ticket", TYPE);
    let toml = local.file(
        "p12.toml",
        &format!(
            "[[topic]]\ntype = \"{TYPE}\"\ncert = \"ticket.p12\"\npassword = \"{P12_PASSWORD}\"\n"
        ),
    );
    let encrypted = local.file(
        "encrypted.toml",
        &format!("[[topic]]\ntype = \"{TYPE}\"\ncert = \"{TYPE}.pem\"\nkey = \"ticket.key\"\n"),
    );
    let pem = local.certificate(TYPE);
    let mut openssl = Command::new("openssl");
    openssl.args(["pkcs8", "-topk8", "-passout"]);
    openssl
        .arg(format!("pass:{P12_PASSWORD}"))
        .arg("-in")
        .arg(&pem);
    openssl
        .args(["-out", "ticket.key"])
        .current_dir(local.folder.path());
    assert!(openssl.status().unwrap().success());
    let given = local.arguments_with(&p12, local.apns.port());
    let [p12, toml, encrypted] = [&p12, &toml, &encrypted].map(|file| file.to_str().unwrap());
    for certificate in [
        &["--apns-cert", p12, "--apns-password", P12_PASSWORD][..],
        &["--apns-config", toml],
        &["--apns-config", encrypted, "--cert-password", P12_PASSWORD],
    ] {
        let mut service = Service::new()
            .given(certificate)
            .given(&given[2..])
            .given(&METRICS);
        fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A-1", "one")).unwrap();
        service.start();
        quiet(&service);
        register(&service, "D-1", &token(1), "A-1");
        let since = SystemTime::now();
        replace(
            &service.passes().join("a.pkpass"),
            &pass(TYPE, "A-1", "two"),
        );
        eventually("the change causes a push", || {
            local.pushed(since).contains_key(&token(1))
        });
    }
    local.no_violation();
}

/// Starts a service that can't send a push, changes a pass, and waits for the reason in the log.
fn reason_in_the_log(arguments: &[String], expected: &str) {
    let mut service = Service::new().given(arguments);
    let file = service.passes().join("a.pkpass");
    fs::write(&file, pass(TYPE, "A-1", "one")).unwrap();
    service.start();
    register(&service, "D-1", &token(1), "A-1");
    replace(&file, &pass(TYPE, "A-1", "two"));
    eventually(expected, || {
        service
            .said()
            .lines()
            .any(|line| line.contains("can't be reached") && line.contains(expected))
    });
}

#[test]
fn the_log_tells_why_the_push_service_cannot_be_reached() {
    let local = Local::start();
    let certificate = local.certificate(TYPE);
    let given = local.arguments_with(&certificate, local.apns.port());
    let with = |option: &str, value: &str| {
        let mut given = given.clone();
        let at = given.iter().position(|word| word == option).unwrap();
        given[at + 1] = value.to_owned();
        given
    };
    let other = Local::start();
    let root = other.file("root.pem", other.apns.root_pem());
    reason_in_the_log(
        &with("--apns-root", root.to_str().unwrap()),
        "UnknownIssuer",
    );
    // This address leads to this machine, but the certificate of the push service has another
    // name.
    let elsewhere = format!("0.0.0.0:{}", local.apns.port());
    reason_in_the_log(&with("--apns-endpoint", &elsewhere), "not valid for name");
    reason_in_the_log(&with("--apns-endpoint", "127.0.0.1:1"), "refused");
    reason_in_the_log(&with("--apns-endpoint", "nowhere.invalid:443"), "lookup");
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_a_warning() {
    let local = Local::start();
    let now = SystemTime::now();
    let early = local
        .apns
        .issue_for(TYPE, now + 2 * DAY, now + 90 * DAY)
        .unwrap();
    let file = local.file("early.pem", &(early.certificate + &early.key));
    let mut service = Service::new().given(&local.arguments_with(&file, local.apns.port()));
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A-1", "one")).unwrap();
    service.start();
    eventually("it is logged", || {
        service.said().contains("is not valid before")
    });
}
