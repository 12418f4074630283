//! `passkit serve --make`: one process makes the passes of a table, and single passes for another program.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use passkit_archive::{Archive, Report, Rules, placeholder_icon};
use serde_json::{Value, json};

use crate::{
    making::{TABLE, TYPE, Workshop},
    program::{Answer, Service, eventually, passkit, run, send},
};

const ADMIN: &str = "an-admin-token-for-tests";
const PASSES: &str = "/admin/v1/passes";

/// Makes a service that makes passes from the workshop's template. With `from`, the service has a table.
pub(crate) fn service(workshop: &Workshop, from: Option<&str>) -> Service {
    let certificate = |name: &str| workshop.authority.path(name).display().to_string();
    let mut settings = format!(
        "template = \"card\"\nout = \"passes\"\ncert = {:?}\nkey = {:?}\nwwdr = {:?}\n",
        certificate("card.pem"),
        certificate("card.key"),
        certificate("G4.pem")
    );
    if let Some(from) = from {
        settings += &format!("from = \"{from}\"\n");
    }
    workshop.write("card.toml", settings);
    let file = workshop.path("card.toml").display().to_string();
    Service::new().given(&["--make", &file, "--admin-token", ADMIN])
}

fn post_to(address: &str, body: &[u8]) -> Answer {
    let headers = [("Authorization", &*format!("Bearer {ADMIN}"))];
    send(address, "POST", PASSES, &headers, body).unwrap()
}

fn post(service: &Service, row: &Value) -> Answer {
    post_to(&service.address(), row.to_string().as_bytes())
}

pub(crate) fn row(id: &str, points: u32) -> Value {
    json!({
        "id": id, "first": "Ada", "last": "Lovelace", "points": points, "until": "2026-12-31", "seat": null,
        "not in the template": true,
    })
}

/// Returns the archive in a good answer.
fn archive(answer: &Answer) -> Archive {
    assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    let media_type = answer.header("content-type");
    assert_eq!(media_type, Some("application/vnd.apple.pkpass"));
    let report = Report::of(&answer.body, Rules::strict());
    report
        .archive
        .unwrap_or_else(|| panic!("{}", report.findings))
}

/// Plays the phone whose state is in `phone.json`.
fn phone(workshop: &Workshop, arguments: &[&str]) -> String {
    let (code, out, said) = run(passkit()
        .arg("device")
        .args(arguments)
        .arg("--state")
        .arg(workshop.path("phone.json")));
    assert_eq!(code, Some(0), "{out}{said}");
    out
}

fn add(workshop: &Workshop, service: &Service, file: &str) {
    let file = workshop.path("passes").join(file).display().to_string();
    let out = phone(workshop, &["add", &file, "--url", &service.url()]);
    assert!(out.contains("registered"), "{out}");
}

#[test]
fn another_program_can_have_passes_made() {
    let workshop = Workshop::new();
    let mut service = service(&workshop, None);
    service.start();
    let first = post(&service, &row("A-1", 1));
    assert_eq!(first.status, 201);
    assert_eq!(archive(&first).id.to_string(), format!("{TYPE} A-1"));
    assert!(fs::read(workshop.path("passes/A-1~8.pkpass")).unwrap() == first.body);
    workshop.verify("A-1~8.pkpass");
    // A phone can register at once.
    add(&workshop, &service, "A-1~8.pkpass");
    assert!(phone(&workshop, &["sync"]).contains("nothing changed"));

    let again = post(&service, &row("A-1", 1));
    assert!(again.status == 200 && again.body == first.body);
    assert!(phone(&workshop, &["sync"]).contains("nothing changed"));

    let changed = post(&service, &row("A-1", 2));
    assert!(changed.status == 200 && changed.body != first.body);
    let token = |answer: &Answer| archive(answer).auth_token.unwrap().as_str().to_owned();
    assert!(token(&changed) == token(&first));
    workshop.verify("A-1~8.pkpass");
    let synced = phone(&workshop, &["sync"]);
    assert!(synced.contains(&format!("updated: {TYPE} A-1")), "{synced}");

    // A restart loses nothing.
    service.stop("TERM");
    service.start();
    let again = post(&service, &row("A-1", 2));
    assert!(again.status == 200 && again.body == changed.body);
}

/// Runs `work`. Returns the system calls of the service that sync, rename or write meanwhile.
fn traced(service: &Service, work: impl FnOnce()) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace");
    let mut strace = Command::new("strace")
        .args(["-f", "-y", "-s", "256", "-o"])
        .arg(&file)
        .args([
            "-e",
            "trace=fsync,fdatasync,syncfs,rename,renameat,renameat2,write,writev",
        ])
        .args(["-p", &service.id().to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs strace: install it, for example with \"apt-get install strace\"");
    let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines();
    let is_attached = lines.any(|line| line.unwrap().contains("attached"));
    assert!(
        is_attached,
        "strace must be allowed to trace other processes"
    );
    work();
    let id = strace.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    strace.wait().unwrap();
    fs::read_to_string(file).unwrap()
}

#[test]
fn a_pass_is_on_disk_when_the_answer_comes() {
    let workshop = Workshop::new();
    let mut service = service(&workshop, None).logging("debug");
    service.start();
    eventually("the service is only waiting", || {
        service.said().contains("are read again")
    });
    let folder = workshop.path("passes").canonicalize().unwrap();
    let folder_synced = format!("<{}>)", folder.display());
    for (points, status) in [(1, 201), (1, 200), (2, 200)] {
        let calls = traced(&service, || {
            assert_eq!(post(&service, &row("A-1", points)).status, status);
        });
        let line = |call: &str, of: &str| {
            let found = calls
                .lines()
                .position(|line| line.contains(call) && line.contains(of));
            found.unwrap_or_else(|| panic!("no {call} of {of} in {calls}"))
        };
        let answered = line("", &format!("HTTP/1.1 {status}"));
        let named = line("fsync(", &folder_synced);
        assert!(named < answered, "{calls}");
        if calls.contains("A-1~8.pkpass\"") {
            let renamed = line("rename", "A-1~8.pkpass\"");
            assert!(
                line("fsync(", "/new-") < renamed && renamed < named,
                "{calls}"
            );
        } else {
            assert_eq!((points, status), (1, 200), "{calls}");
        }
        assert!(
            !calls.contains("syncfs("),
            "nothing else is synced: {calls}"
        );
    }
}

#[test]
fn a_bad_row_is_refused_and_its_column_is_named() {
    let workshop = Workshop::new();
    let mut service = service(&workshop, None);
    service.start();
    let without = |column: &str| {
        let mut row = row("A-1", 1);
        row.as_object_mut().unwrap().remove(column);
        row
    };
    let with = |column: &str, value: Value| {
        let mut row = row("A-1", 1);
        row[column] = value;
        row
    };
    for (row, status, column) in [
        (without("points"), 422, Some("points")),
        (without("id"), 422, Some("id")),
        (with("points", json!("many")), 422, Some("points")),
        (with("points", json!([1])), 422, Some("points")),
        (with("until", json!("soon")), 422, Some("until")),
        (with("id", json!("")), 422, None),
        (json!([1]), 400, None),
        (json!("A-1"), 400, None),
        (with("first", json!("x".repeat(300_000))), 413, None),
    ] {
        let answer = post(&service, &row);
        let told = answer.json();
        assert_eq!(answer.status, status, "{told}");
        assert!(
            told["error"]
                .as_str()
                .is_some_and(|line| !line.contains('\n')),
            "{told}"
        );
        if let Some(column) = column {
            assert_eq!(told["column"], column, "{told}");
        }
    }
    assert_eq!(post_to(&service.address(), b"{").status, 400);
    assert_eq!(service.send("POST", PASSES, &[], b"{}").status, 401);
    let bearer = format!("Bearer {ADMIN}");
    let headers = [("Authorization", &*bearer)];
    assert_eq!(service.send("GET", PASSES, &headers, b"").status, 405);
    assert_eq!(workshop.names(), Vec::<String>::new());

    let mut other = Service::new().given(&["--admin-token", ADMIN]);
    other.start();
    let answer = post(&other, &row("A-1", 1));
    assert_eq!(answer.status, 404);
    assert!(answer.json()["error"].as_str().unwrap().contains("--make"));
}

#[test]
fn instances_that_make_one_pass_at_the_same_time_lose_nothing() {
    const THREADS: usize = 6;
    const ROUNDS: u32 = 5;
    let workshop = Workshop::new();
    let mut one = service(&workshop, None);
    one.start();
    let mut other = one.sibling();
    other.start();
    let addresses = [one.address(), other.address()];
    let new = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (address, new) = (&addresses[thread % 2], &new);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let points = thread as u32 * 100 + round;
                    for id in ["shared", &format!("own-{thread}-{round}")] {
                        let body = row(id, points).to_string();
                        let answer = post_to(address, body.as_bytes());
                        assert_eq!(archive(&answer).id.serial.as_str(), id);
                        new.fetch_add(usize::from(answer.status == 201), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let count = 1 + THREADS * ROUNDS as usize;
    assert_eq!(new.load(Ordering::Relaxed), count);
    assert_eq!(workshop.names().len(), count);
    workshop.verify("shared.pkpass");
    // Both instances serve the last version.
    let last = fs::read(workshop.path("passes/shared.pkpass")).unwrap();
    let token = workshop.json("shared.pkpass")["authenticationToken"].clone();
    let authorization = format!("ApplePass {}", token.as_str().unwrap());
    let path = format!("/v1/passes/{TYPE}/shared");
    for address in &addresses {
        eventually("the last version is served", || {
            let headers = [("Authorization", &*authorization)];
            let answer = send(address, "GET", &path, &headers, b"").unwrap();
            answer.status == 200 && answer.body == last
        });
    }
}

#[test]
fn a_table_is_made_again_when_it_changes() {
    let workshop = Workshop::new();
    let mut service = service(&workshop, Some("table.csv"));
    service.start();
    eventually("all are made", || workshop.names().len() == 3);
    let names: BTreeSet<String> = workshop.names().into_iter().collect();
    for name in &names {
        workshop.verify(name);
    }
    eventually("they are served", || {
        service.said().contains("3 passes are new")
    });
    eventually("the phone can add them", || {
        let file = workshop.path("passes/A-1~8.pkpass").display().to_string();
        let (code, _, _) = run(passkit()
            .args(["device", "add", &file, "--url", &service.url(), "--state"])
            .arg(workshop.path("phone.json")));
        code == Some(0)
    });
    let before = workshop.files();
    // A wrong row stops neither the other rows nor the service.
    let wrong = format!("{TABLE}C-1,Cy,Cyber,many,2027-01-01,1\n");
    workshop.write("table.csv", wrong.replace("Lovelace,12", "Lovelace,13"));
    let mut synced = String::new();
    eventually("the phone gets the change", || {
        synced = phone(&workshop, &["sync"]);
        synced.contains("updated")
    });
    eventually("the wrong row is reported", || {
        let said = service.said();
        said.contains("table.csv:5: column \"points\"")
    });
    let after = workshop.files();
    for (name, file) in &before {
        assert_eq!(after[name] == *file, name != "A-1~8.pkpass", "{name}");
    }

    // The service continues without a readable template, and without a table.
    let template = fs::read_to_string(workshop.path("card/pass.json")).unwrap();
    workshop.write("card/pass.json", "{");
    eventually("the template is reported", || {
        service
            .said()
            .contains("with the old template and certificate")
    });
    assert_eq!(post(&service, &row("posted", 1)).status, 201);
    fs::remove_file(workshop.path("table.csv")).unwrap();
    eventually("the table is reported", || {
        service
            .said()
            .contains("can't make the passes of the table")
    });
    // When both are back, the passes are made with the new template.
    workshop.write("card/pass.json", template.replace("A card", "Another card"));
    workshop.write("table.csv", TABLE);
    eventually("all are made again", || {
        names
            .iter()
            .all(|name| workshop.json(name)["description"] == "Another card")
    });
}

#[test]
fn a_request_is_refused_while_a_large_table_is_made() {
    let workshop = Workshop::new();
    // The table has no end as long as the pipe is open.
    let pipe = workshop.path("endless.csv");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let mut service = service(&workshop, Some("endless.csv"));
    service.start();
    let mut table = fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    // The first rows are made once enough of them have arrived.
    let (head, first) = TABLE.split_at(TABLE.find("A-1").unwrap());
    table.write_all(head.as_bytes()).unwrap();
    for row in 0..600 {
        let row = first
            .lines()
            .next()
            .unwrap()
            .replace("A-1", &format!("row-{row}"));
        writeln!(table, "{row}").unwrap();
    }
    eventually("the table is being made", || {
        fs::read_dir(workshop.path("passes/.passkit-make"))
            .unwrap()
            .count()
            > 2
    });
    let answer = post(&service, &row("posted", 1));
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("10"));
    let error = answer.json()["error"].to_string();
    assert!(
        error.contains("the passes of the table are being made"),
        "{error}"
    );
    drop(table);
    eventually("the table is made", || workshop.names().len() == 600);
    assert_eq!(post(&service, &row("posted", 1)).status, 201);
}

/// Keeps all processes from writing to the folder of the passes until the file is dropped.
fn occupied(workshop: &Workshop) -> fs::File {
    let lock = fs::File::open(workshop.path("passes/.passkit-make/lock")).unwrap();
    lock.lock().unwrap();
    lock
}

#[test]
fn a_request_that_waits_is_answered_with_the_new_template() {
    let workshop = Workshop::new();
    // Without a web service, no secret is needed, and the template is read while the folder is occupied.
    workshop.edit("card/passkit.toml", "web-service-url", "# web-service-url");
    let mut service = service(&workshop, None).logging("debug");
    service.start();
    assert_eq!(post(&service, &row("first", 1)).status, 201);
    let read = || service.said().matches("are read again").count();
    eventually("the template is read", || read() == 1);
    for (round, before) in ["A card", "Card 1", "Card 2"].into_iter().enumerate() {
        let after = format!("Card {}", round + 1);
        let lock = occupied(&workshop);
        let id = format!("posted-{round}");
        let answer = std::thread::scope(|scope| {
            let posted = scope.spawn(|| post(&service, &row(&id, 1)));
            workshop.edit("card/pass.json", before, &after);
            eventually("the template is read again", || read() == round + 2);
            drop(lock);
            posted.join().unwrap()
        });
        // On a busy machine, the request may have waited for too long.
        if answer.status == 201 {
            let file = format!("{id}.pkpass");
            assert_eq!(workshop.json(&file)["description"], *after);
        } else {
            assert_eq!(answer.status, 503, "{answer:?}");
        }
    }
}

#[test]
fn a_change_is_not_lost_while_another_process_writes() {
    let workshop = Workshop::new();
    let mut service = service(&workshop, Some("table.csv"));
    service.start();
    eventually("all are made", || {
        service.said().contains("3 passes are new")
    });
    let lock = occupied(&workshop);
    workshop.edit("table.csv", "Lovelace,12", "Lovelace,13");
    eventually("the change waits", || {
        service.said().contains("the passes wait")
    });
    drop(lock);
    eventually("the change is made", || {
        service.said().contains("1 changed")
    });
    assert_eq!(service.said().matches("the passes wait").count(), 1);
}

#[test]
fn images_and_the_secret_are_watched_too() {
    let workshop = Workshop::new();
    let recipe = fs::read_to_string(workshop.path("card/passkit.toml")).unwrap();
    workshop.write(
        "card/passkit.toml",
        recipe + "[images]\nthumbnail = \"{id}.png\"\n",
    );
    workshop.write(
        "table.csv",
        "id,first,last,points,until,seat\none,A,B,1,2026-12-31,1\ntwo,A,B,1,2026-12-31,1\n",
    );
    workshop.write("one.png", placeholder_icon(90));
    let mut service = service(&workshop, Some("table.csv"));
    service.start();
    eventually("the row without its image is reported", || {
        service.said().contains("two.png")
    });
    eventually("the other pass is made", || {
        service.said().contains("1 passes are new")
    });
    workshop.write("two.png", placeholder_icon(90));
    eventually("the missing image is noticed", || {
        workshop.names().len() == 2
    });
    workshop.write("one.png", placeholder_icon(60));
    eventually("the changed image is noticed", || {
        workshop.unzip("one.pkpass", "thumbnail.png") == placeholder_icon(60)
    });
    let another = "0123456789abcdef0123456789abcdef-another\n";
    workshop.write("passes.token-secret", another);
    eventually("the other secret is noticed", || {
        service.said().contains("with another secret")
    });
    assert!(!service.said().contains(another.trim()));
}

#[test]
fn passes_without_a_row_are_voided_if_this_is_wanted() {
    let workshop = Workshop::new();
    let mut service = service(&workshop, Some("table.csv"));
    service.start();
    eventually("all are made", || {
        service.said().contains("3 passes are new")
    });
    service.stop("TERM");
    let settings = fs::read_to_string(workshop.path("card.toml")).unwrap();
    workshop.write("card.toml", format!("{settings}void-missing = true\n"));
    service.start();
    workshop.edit("table.csv", "a-1,Alan,Turing,7.5,2027-06-30 10:00,\n", "");
    eventually("the pass is voided", || service.said().contains("1 voided"));
    assert_eq!(workshop.json("a-1.pkpass")["voided"], true);
    workshop.verify("a-1.pkpass");
    // The next change of the table would void a single pass.
    let answer = post(&service, &row("single", 1));
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(
        answer.json()["error"]
            .as_str()
            .unwrap()
            .contains("void-missing")
    );
    assert_eq!(workshop.names().len(), 3);
}

#[test]
fn settings_that_cannot_work_are_refused_at_the_start() {
    let workshop = Workshop::new();
    let service = service(&workshop, None);
    assert_eq!(service.refusal(), None);
    let file: PathBuf = workshop.path("card.toml");
    let good = fs::read_to_string(&file).unwrap();
    for (from, to, why) in [
        ("template = \"card\"", "template = \"gone\"", "gone"),
        ("template = \"card\"", "", "template"),
        ("out = \"passes\"", "out = \"passes\"\nvoid = true", "void"),
        ("card.pem", "gone.pem", "gone.pem"),
        ("out = ", "out: ", "line 2"),
    ] {
        assert!(good.contains(from));
        fs::write(&file, good.replacen(from, to, 1)).unwrap();
        let said = service.refusal().unwrap_or_default();
        assert!(
            said.contains(why) && said.lines().count() == 1,
            "{to}: {said}"
        );
    }
}
