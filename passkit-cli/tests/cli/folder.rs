use std::{fs, path::Path, process::Command, time::Duration};

use crate::{
    archives::{self, order, pass, replace, token_of},
    program::{Service, authorization, eventually},
};

const TYPE: &str = "pass.com.example.folder";
const ORDERS: &str = "order.com.example.folder";

#[test]
fn a_pass_is_registered_listed_fetched_changed_and_unregistered() {
    let mut service = Service::new();
    let file = service.passes().join("some name.pkpass");
    let first = pass(TYPE, "A-1", "one");
    fs::write(&file, &first).unwrap();
    service.start();

    assert_eq!(service.register("D", TYPE, "A-1"), 201);
    assert_eq!(service.register("D", TYPE, "A-1"), 200);
    let (serials, tag) = service.list("D", TYPE, None).unwrap();
    assert_eq!(serials, ["A-1"]);
    let answer = service.get(TYPE, "A-1", None);
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/vnd.apple.pkpass"))
    );
    assert!(answer.body == first);
    let date = answer.header("last-modified").unwrap().to_owned();
    assert_eq!(service.get(TYPE, "A-1", Some(&date)).status, 304);
    assert_eq!(service.list("D", TYPE, Some(&tag)), None);

    let second = pass(TYPE, "A-1", "two");
    replace(&file, &second);
    eventually("the change is listed", || {
        service.list("D", TYPE, Some(&tag)).is_some()
    });
    let (serials, newer) = service.list("D", TYPE, Some(&tag)).unwrap();
    assert_eq!(serials, ["A-1"]);
    let answer = service.get(TYPE, "A-1", Some(&date));
    assert_eq!(answer.status, 200);
    assert!(answer.body == second);
    assert_eq!(
        service
            .get(TYPE, "A-1", answer.header("last-modified"))
            .status,
        304
    );
    assert_eq!(service.list("D", TYPE, Some(&newer)), None);

    assert_eq!(service.unregister("D", TYPE, "A-1"), 200);
    assert_eq!(service.unregister("D", TYPE, "A-1"), 200);
    assert_eq!(service.list("D", TYPE, None), None);
    assert_eq!(service.stop("TERM").code(), Some(0));
}

#[test]
fn what_can_not_work_is_logged_once_for_each_version() {
    let mut service = Service::with_arguments(&["--allow-unsigned"]);
    let file = service.passes().join("a.pkpass");
    // Phones append /v1 themselves.
    let version = |number: usize| {
        let url = format!("https://wallet.example.com/{number}/v1");
        archives::with_url(TYPE, "A", &url)
    };
    fs::write(&file, version(1)).unwrap();
    service.start();
    let warnings = |service: &Service| service.said().matches("can't work: ").count();
    for number in 2..=3 {
        for _ in 0..5 {
            assert_eq!(service.get(TYPE, "A", None).status, 200);
        }
        assert_eq!(warnings(&service), number - 1, "{}", service.said());
        replace(&file, &version(number));
        eventually("the change is served", || {
            service.get(TYPE, "A", None).body == version(number)
        });
    }
    let said = service.stop_and_hear();
    assert_eq!(said.matches("can't work: ").count(), 3, "{said}");
    assert!(said.contains("/v1"), "{said}");
}

#[test]
fn each_of_several_changes_is_listed() {
    let mut service = Service::new();
    let file = service.passes().join("a.pkpass");
    fs::write(&file, pass(TYPE, "A", "0")).unwrap();
    service.start();
    service.register("D", TYPE, "A");
    let (_, mut tag) = service.list("D", TYPE, None).unwrap();
    for version in 1..=5 {
        replace(&file, &pass(TYPE, "A", &version.to_string()));
        eventually("the change is listed", || {
            match service.list("D", TYPE, Some(&tag)) {
                Some((_, newer)) => {
                    tag = newer;
                    true
                }
                None => false,
            }
        });
    }
}

#[test]
fn orders_speak_their_own_words() {
    let mut service = Service::new();
    fs::write(
        service.orders().join("1.order"),
        order(ORDERS, "O/1", "one"),
    )
    .unwrap();
    service.start();
    let answer = service.get(ORDERS, "O/1", None);
    let media_type = Some("application/vnd.apple.finance.order");
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, media_type)
    );
    assert_eq!(service.register("D", ORDERS, "O/1"), 201);
    let (orders, tag) = service.list("D", ORDERS, None).unwrap();
    assert_eq!(orders, ["O/1"]);
    replace(
        &service.orders().join("1.order"),
        &order(ORDERS, "O/1", "two"),
    );
    eventually("the change is listed", || {
        service.list("D", ORDERS, Some(&tag)).is_some()
    });
    let path = format!("/v1/orders/{ORDERS}/O%2F1");
    let apple_pass = format!("ApplePass {}", token_of(ORDERS, "O/1"));
    assert_eq!(
        service
            .send("GET", &path, &[("Authorization", &apple_pass)], b"")
            .status,
        401
    );
}

#[test]
fn real_serial_numbers_are_served() {
    let mut service = Service::new();
    let serials = [
        "H8JP44-ORD07/09/25-MARTINEZ/LANI-UA987-en",
        "a b",
        "z\u{fc}rich",
        "100%",
        "..",
        "ABC.123_x~1",
    ];
    for (index, serial) in serials.iter().enumerate() {
        let folder = service.passes().join(format!("below/{index}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("x.PKPASS"), pass(TYPE, serial, "one")).unwrap();
    }
    service.start();
    for serial in serials {
        assert_eq!(service.register("D", TYPE, serial), 201, "{serial}");
        assert_eq!(service.get(TYPE, serial, None).status, 200, "{serial}");
    }
    let mut expected = serials.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(service.list("D", TYPE, None).unwrap().0, expected);
    // The airline's phones don't encode the slashes.
    let raw = format!("/v1/passes/{TYPE}/{}", serials[0]);
    let headers = [("Authorization", &*authorization(TYPE, serials[0]))];
    assert_eq!(service.send("GET", &raw, &headers, b"").status, 200);
    assert_eq!(
        service
            .send("GET", &format!("/{raw}/"), &headers, b"")
            .status,
        200
    );
}

#[test]
fn only_content_counts_as_a_change() {
    let mut service = Service::new();
    let file = service.passes().join("a.pkpass");
    let original = pass(TYPE, "A", "one");
    fs::write(&file, &original).unwrap();
    service.start();
    service.register("D", TYPE, "A");
    let (_, tag) = service.list("D", TYPE, None).unwrap();
    let modified = fs::metadata(&file).unwrap().modified().unwrap();

    // The file is written again, moved, and signed again. The content is the same, so nothing
    // changed.
    replace(&file, &original);
    let moved = service.passes().join("b.pkpass");
    fs::rename(&file, &moved).unwrap();
    let signed_anew = pass(TYPE, "A", "one");
    replace(&moved, &signed_anew);
    // A pass that changes later shows that the service has checked these files.
    fs::write(
        service.passes().join("last.pkpass"),
        pass(TYPE, "LAST", "one"),
    )
    .unwrap();
    eventually("the last file is served", || {
        service.get(TYPE, "LAST", None).status == 200
    });
    eventually("the newest signature is served", || {
        service.get(TYPE, "A", None).body == signed_anew
    });
    assert_eq!(service.list("D", TYPE, Some(&tag)), None);

    // The content changed, with the old size and time stamp.
    let changed = pass(TYPE, "A", "two");
    let mut file = fs::File::create(&moved).unwrap();
    std::io::Write::write_all(&mut file, &changed).unwrap();
    file.set_modified(modified).unwrap();
    drop(file);
    eventually("the change is listed", || {
        service.list("D", TYPE, Some(&tag)).is_some()
    });
    assert!(service.get(TYPE, "A", None).body == changed);
}

#[test]
fn a_change_made_while_it_was_down_is_noticed() {
    let mut service = Service::new();
    let file = service.passes().join("a.pkpass");
    fs::write(&file, pass(TYPE, "A", "one")).unwrap();
    fs::write(service.passes().join("b.pkpass"), pass(TYPE, "B", "one")).unwrap();
    service.start();
    service.register("D", TYPE, "A");
    service.register("D", TYPE, "B");
    let (_, tag) = service.list("D", TYPE, None).unwrap();
    assert_eq!(service.stop("INT").code(), Some(0));

    service.start();
    assert_eq!(
        service.list("D", TYPE, Some(&tag)),
        None,
        "nothing changed over a restart"
    );
    service.stop("TERM");

    fs::write(&file, pass(TYPE, "A", "two")).unwrap();
    service.start();
    assert_eq!(service.list("D", TYPE, Some(&tag)).unwrap().0, ["A"]);
}

#[test]
fn a_broken_file_never_replaces_the_version_being_served() {
    let mut service = Service::new();
    let file = service.passes().join("a.pkpass");
    let good = pass(TYPE, "A", "one");
    fs::write(&file, &good).unwrap();
    service.start();
    service.register("D", TYPE, "A");
    let (_, tag) = service.list("D", TYPE, None).unwrap();

    fs::write(&file, &pass(TYPE, "A", "two")[..1000]).unwrap();
    let refusal = format!("{}: refused: ", file.display());
    eventually("the refusal is logged", || {
        service.said().contains(&refusal)
    });
    let line = service
        .said()
        .lines()
        .find(|line| line.contains(&refusal))
        .unwrap()
        .to_owned();
    assert!(line.contains("the previous version stays"), "{line}");
    assert!(service.get(TYPE, "A", None).body == good);
    assert_eq!(service.list("D", TYPE, Some(&tag)), None);

    service.stop("TERM");
    service.start();
    assert!(
        service.get(TYPE, "A", None).body == good,
        "nor after a restart"
    );
    assert_eq!(service.list("D", TYPE, Some(&tag)), None);

    fs::write(&file, pass(TYPE, "A", "two")).unwrap();
    eventually("the repaired file is listed", || {
        service.list("D", TYPE, Some(&tag)).is_some()
    });
}

#[test]
fn a_file_that_is_written_slowly_is_served_when_it_is_complete() {
    let mut service = Service::new();
    let file = service.passes().join("a.pkpass");
    let first = pass(TYPE, "A", "one");
    fs::write(&file, &first).unwrap();
    service.start();
    service.register("D", TYPE, "A");
    let (_, tag) = service.list("D", TYPE, None).unwrap();
    let second = archives::signed(
        TYPE,
        "A",
        "two",
        &[(
            "strip.png",
            (0..100_000_u32)
                .map(|i| (i.wrapping_mul(i) >> 7) as u8)
                .collect(),
        )],
    );
    let mut writer = fs::File::create(&file).unwrap();
    for part in second.chunks(second.len() / 6 + 1) {
        std::io::Write::write_all(&mut writer, part).unwrap();
        // This is long enough for the watcher to check the file in between.
        std::thread::sleep(Duration::from_millis(200));
        let served = service.get(TYPE, "A", None).body;
        assert!(served == first || served == second);
    }
    eventually("the complete file is listed", || {
        service.list("D", TYPE, Some(&tag)).is_some()
    });
    assert!(service.get(TYPE, "A", None).body == second);
}

#[test]
fn of_two_files_with_one_pass_the_second_is_refused_until_the_first_is_gone() {
    let mut service = Service::new();
    let [a, b] = ["a.pkpass", "b.pkpass"].map(|name| service.passes().join(name));
    let (one, two) = (pass(TYPE, "A", "one"), pass(TYPE, "A", "two"));
    fs::write(&a, &one).unwrap();
    fs::write(&b, &two).unwrap();
    service.start();
    eventually("the refusal is logged", || {
        service.said().contains("refused")
    });
    let said = service.said();
    let line = said.lines().find(|line| line.contains("refused")).unwrap();
    assert!(
        line.contains(a.to_str().unwrap()) && line.contains(b.to_str().unwrap()),
        "{line}"
    );
    assert!(service.get(TYPE, "A", None).body == one);
    fs::remove_file(&a).unwrap();
    eventually("the second is served", || {
        service.get(TYPE, "A", None).body == two
    });
}

#[test]
fn a_removed_pass_is_unknown_but_can_be_unregistered_also_after_a_restart() {
    let mut service = Service::new();
    let file = service.passes().join("a.pkpass");
    let content = pass(TYPE, "A", "one");
    fs::write(&file, &content).unwrap();
    service.start();
    for device in ["D1", "D2", "D3"] {
        assert_eq!(service.register(device, TYPE, "A"), 201);
    }
    fs::remove_file(&file).unwrap();
    eventually("it is unknown", || {
        service.get(TYPE, "A", None).status == 401
    });
    // The copy is removed slightly earlier.
    eventually("no device can register", || {
        service.register("D4", TYPE, "A") == 401
    });
    assert_eq!(service.unregister("D1", TYPE, "A"), 200);
    assert_eq!(service.list("D1", TYPE, None), None);
    service.stop("TERM");
    service.start();
    assert_eq!(service.get(TYPE, "A", None).status, 401);
    assert_eq!(service.unregister("D2", TYPE, "A"), 200);

    fs::write(&file, &content).unwrap();
    eventually("it is served again", || {
        service.get(TYPE, "A", None).body == content
    });
    assert_eq!(
        service.list("D3", TYPE, None).unwrap().0,
        ["A"],
        "its registrations were kept"
    );
}

#[test]
fn a_file_that_comes_to_hold_another_pass_withdraws_the_one_it_held() {
    let mut service = Service::new();
    let file = service.passes().join("a.pkpass");
    fs::write(&file, pass(TYPE, "A", "one")).unwrap();
    service.start();
    replace(&file, &pass(TYPE, "B", "one"));
    eventually("the new pass is served", || {
        service.get(TYPE, "B", None).status == 200
    });
    assert_eq!(service.get(TYPE, "A", None).status, 401);
}

#[test]
fn a_token_of_an_old_copy_keeps_working() {
    let with_token = |token| archives::with_token(TYPE, "A", token);
    let mut service = Service::with_arguments(&["--allow-unsigned"]);
    let file = service.passes().join("a.pkpass");
    fs::write(&file, with_token("the-first-token-of-it")).unwrap();
    service.start();
    replace(&file, &with_token("the-second-token-of-it"));
    let status = |service: &Service, token: &str| {
        let headers = [("Authorization", &*format!("ApplePass {token}"))];
        service
            .send("GET", &format!("/v1/passes/{TYPE}/A"), &headers, b"")
            .status
    };
    eventually("the new token works", || {
        status(&service, "the-second-token-of-it") == 200
    });
    assert_eq!(status(&service, "the-first-token-of-it"), 200);
    service.stop("TERM");
    service.start();
    assert_eq!(status(&service, "the-first-token-of-it"), 200);
    assert_eq!(status(&service, "a-third-token-of-none"), 401);
}

#[test]
fn unsigned_passes_are_served_only_while_they_are_allowed() {
    let mut lenient = Service::with_arguments(&["--allow-unsigned"]);
    fs::write(
        lenient.passes().join("a.pkpass"),
        archives::unsigned(TYPE, "A", "one"),
    )
    .unwrap();
    fs::write(lenient.passes().join("b.pkpass"), pass(TYPE, "B", "one")).unwrap();
    lenient.start();
    assert_eq!(lenient.get(TYPE, "A", None).status, 200);
    lenient.stop("TERM");

    // The same folders, now with strict rules.
    let mut strict = Service::new();
    strict.set_store(lenient.store_url());
    strict.folder = lenient.folder;
    strict.start();
    eventually("the refusal is logged", || {
        strict.said().contains("a.pkpass: refused")
    });
    assert_eq!(strict.get(TYPE, "A", None).status, 401);
    assert_eq!(strict.get(TYPE, "B", None).status, 200);
}

#[test]
fn new_folders_and_moved_folders_are_followed() {
    let mut service = Service::new();
    service.start();
    let folder = service.passes().join("spring");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    eventually("it is served", || {
        service.get(TYPE, "A", None).status == 200
    });
    fs::rename(&folder, service.passes().join("summer")).unwrap();
    let two = pass(TYPE, "A", "two");
    fs::write(service.passes().join("summer/a.pkpass"), &two).unwrap();
    eventually("the change is served", || {
        service.get(TYPE, "A", None).body == two
    });
    fs::remove_dir_all(service.passes().join("summer")).unwrap();
    eventually("it is withdrawn", || {
        service.get(TYPE, "A", None).status == 401
    });
    fs::write(
        service.passes().join(".hidden.pkpass"),
        pass(TYPE, "H", "one"),
    )
    .unwrap();
    fs::write(service.passes().join("seen.pkpass"), pass(TYPE, "S", "one")).unwrap();
    eventually("the other is served", || {
        service.get(TYPE, "S", None).status == 200
    });
    assert_eq!(service.get(TYPE, "H", None).status, 401);
}

#[test]
fn a_large_archive_is_served_completely() {
    let mut service = Service::new();
    let noise = |seed: u64| {
        let mut state = seed;
        (0..600_000)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect::<Vec<u8>>()
    };
    let large = archives::signed(
        TYPE,
        "L",
        "one",
        &[("strip.png", noise(1)), ("strip@2x.png", noise(2))],
    );
    assert!(large.len() > 1_000_000);
    fs::write(service.passes().join("l.pkpass"), &large).unwrap();
    service.start();
    assert!(service.get(TYPE, "L", None).body == large);
    let path = format!("/v1/passes/{TYPE}/L");
    let head = service.send(
        "HEAD",
        &path,
        &[("Authorization", &authorization(TYPE, "L"))],
        b"",
    );
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(
        head.header("content-length"),
        Some(&*large.len().to_string())
    );
}

#[test]
fn files_may_swap_names() {
    let mut service = Service::new();
    let file =
        |service: &Service, number: usize| service.passes().join(format!("{number:02}.pkpass"));
    let archive: Vec<_> = (0..10)
        .map(|number| pass(TYPE, &format!("S-{number}"), "one"))
        .collect();
    for (number, content) in archive.iter().enumerate().skip(1) {
        fs::write(file(&service, number), content).unwrap();
    }
    service.start();
    service.register("D", TYPE, "S-1");
    let (_, tag) = service.list("D", TYPE, None).unwrap();
    let all_served = |service: &Service, numbers: std::ops::Range<usize>| {
        numbers
            .into_iter()
            .all(|number| service.get(TYPE, &format!("S-{number}"), None).body == archive[number])
    };

    // Two files swap their names.
    let aside = service.folder.path().join("aside");
    fs::rename(file(&service, 1), &aside).unwrap();
    fs::rename(file(&service, 2), file(&service, 1)).unwrap();
    fs::rename(&aside, file(&service, 2)).unwrap();
    fs::write(
        service.passes().join("last.pkpass"),
        pass(TYPE, "LAST", "one"),
    )
    .unwrap();
    eventually("the last is served", || {
        service.get(TYPE, "LAST", None).status == 200
    });
    eventually("all are served", || all_served(&service, 1..10));

    // All files move up by one while the service is down, and a new file comes first.
    service.stop("TERM");
    for number in (1..10).rev() {
        let holds = match number {
            1 => &archive[0],
            other => &archive[other - 1],
        };
        fs::write(file(&service, number), holds).unwrap();
    }
    fs::write(file(&service, 10), &archive[9]).unwrap();
    service.start();
    eventually("all are served", || all_served(&service, 0..10));
    assert_eq!(
        service.list("D", TYPE, Some(&tag)),
        None,
        "no content has changed"
    );
}

#[test]
fn unsigned_passes_of_an_interrupted_start_lose_their_leave_too() {
    let mut lenient = Service::with_arguments(&["--allow-unsigned"]);
    for number in 0..300 {
        let content = archives::unsigned(TYPE, &format!("S-{number}"), "one");
        fs::write(lenient.passes().join(format!("{number}.pkpass")), content).unwrap();
    }
    // The service is killed during its start, or after it.
    lenient.kill_when(|service| {
        fs::metadata(service.folder.path().join("copies/catalog.db-wal"))
            .is_ok_and(|file| file.len() > 300_000)
    });
    let mut strict = Service::new();
    strict.set_store(lenient.store_url());
    std::mem::swap(&mut strict.folder, &mut lenient.folder);
    strict.start();
    for number in 0..300 {
        assert_eq!(strict.get(TYPE, &format!("S-{number}"), None).status, 401);
    }
}

#[test]
fn many_replacements_at_once_are_noticed_and_do_not_hold_up_the_end() {
    let mut service = Service::new();
    let count = 400;
    for number in 0..count {
        fs::write(
            service.passes().join(format!("{number}.pkpass")),
            pass(TYPE, &format!("S-{number}"), "one"),
        )
        .unwrap();
    }
    service.start();
    for number in 0..count {
        replace(
            &service.passes().join(format!("{number}.pkpass")),
            &pass(TYPE, &format!("S-{number}"), "two"),
        );
    }
    let last = pass(TYPE, "LAST", "one");
    fs::write(service.passes().join("last.pkpass"), &last).unwrap();
    eventually("the last is served", || {
        service.get(TYPE, "LAST", None).body == last
    });
    let started = std::time::Instant::now();
    assert_eq!(service.stop("TERM").code(), Some(0));
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
}

/// Removes a file from another folder, and waits until the service has noticed it. The service has
/// then noticed all earlier removals too.
fn a_removal_is_noticed_elsewhere(service: &Service) {
    let file = service.orders().join("elsewhere.order");
    fs::write(&file, order(ORDERS, "elsewhere", "one")).unwrap();
    eventually("it is served", || {
        service.get(ORDERS, "elsewhere", None).status == 200
    });
    fs::remove_file(&file).unwrap();
    eventually("its removal is noticed", || {
        service.get(ORDERS, "elsewhere", None).status == 401
    });
}

/// Returns how many lines of the log contain these words.
fn lines_about(service: &Service, words: &str) -> usize {
    service
        .said()
        .lines()
        .filter(|line| line.contains(words))
        .count()
}

#[test]
fn everything_stays_while_the_folder_is_gone() {
    let mut service = Service::new();
    let passes = service.passes();
    fs::create_dir(passes.join("sub")).unwrap();
    let one = pass(TYPE, "A", "one");
    fs::write(passes.join("a.pkpass"), &one).unwrap();
    fs::write(passes.join("sub/b.pkpass"), pass(TYPE, "B", "one")).unwrap();
    service.start();
    let aside = service.folder.path().join("aside");
    let is_served = |service: &Service| {
        assert_eq!(service.get(TYPE, "A", None).body, one);
        assert_eq!(service.get(TYPE, "B", None).status, 200);
        assert_eq!(service.register("d1", TYPE, "A") / 100, 2);
    };
    type Act = fn(&Path, &Path);
    let ways: [(Act, Act); 4] = [
        // Renamed away.
        (
            |passes, aside| fs::rename(passes, aside).unwrap(),
            |passes, aside| fs::rename(aside, passes).unwrap(),
        ),
        // Deleted, and restored.
        (
            |passes, aside| {
                let copied = Command::new("cp").arg("-a").args([passes, aside]).status();
                assert!(copied.unwrap().success());
                fs::remove_dir_all(passes).unwrap();
            },
            |passes, aside| fs::rename(aside, passes).unwrap(),
        ),
        // An empty folder is in its place, as after an unmount.
        (
            |passes, aside| {
                fs::rename(passes, aside).unwrap();
                fs::create_dir(passes).unwrap();
            },
            |passes, aside| {
                fs::remove_dir(passes).unwrap();
                fs::rename(aside, passes).unwrap();
            },
        ),
        // A file is in its place.
        (
            |passes, aside| {
                fs::rename(passes, aside).unwrap();
                fs::write(passes, "").unwrap();
            },
            |passes, aside| {
                fs::remove_file(passes).unwrap();
                fs::rename(aside, passes).unwrap();
            },
        ),
    ];
    for (gone, (vanish, return_)) in (1..).zip(ways) {
        vanish(&passes, &aside);
        eventually("it is noticed", || {
            lines_about(&service, "is not there") == gone
        });
        a_removal_is_noticed_elsewhere(&service);
        is_served(&service);
        return_(&passes, &aside);
        eventually("its return is noticed", || {
            lines_about(&service, "is there again") == gone
        });
        is_served(&service);
        assert_eq!(lines_about(&service, "is not there"), gone);
        assert_eq!(
            lines_about(&service, &format!("no longer serves {TYPE}")),
            0,
            "{}",
            service.said()
        );
    }
    // Everything goes on as before.
    let two = pass(TYPE, "A", "two");
    replace(&passes.join("a.pkpass"), &two);
    eventually("a change is served", || {
        service.get(TYPE, "A", None).body == two
    });
    fs::remove_dir_all(passes.join("sub")).unwrap();
    eventually("a pass that was removed is withdrawn", || {
        service.get(TYPE, "B", None).status == 401
    });
    fs::remove_file(passes.join("a.pkpass")).unwrap();
    eventually("the last one is withdrawn", || {
        service.get(TYPE, "A", None).status == 401
    });
}

#[test]
fn what_was_removed_while_the_folder_was_gone_is_withdrawn_when_it_is_back() {
    let mut service = Service::new();
    let passes = service.passes();
    for serial in ["A", "B"] {
        fs::write(
            passes.join(format!("{serial}.pkpass")),
            pass(TYPE, serial, "one"),
        )
        .unwrap();
    }
    service.start();
    let aside = service.folder.path().join("aside");
    fs::rename(&passes, &aside).unwrap();
    eventually("it is noticed", || {
        lines_about(&service, "is not there") == 1
    });
    fs::remove_file(aside.join("A.pkpass")).unwrap();
    let two = pass(TYPE, "B", "two");
    fs::write(aside.join("B.pkpass"), &two).unwrap();
    assert_eq!(service.get(TYPE, "A", None).status, 200);
    fs::rename(&aside, &passes).unwrap();
    eventually("the change is served", || {
        service.get(TYPE, "B", None).body == two
    });
    eventually("the removal counts", || {
        service.get(TYPE, "A", None).status == 401
    });

    // It comes back without archives, like a mounted disk that is filled later.
    fs::rename(&passes, &aside).unwrap();
    eventually("it is noticed", || {
        lines_about(&service, "is not there") == 2
    });
    fs::remove_file(aside.join("B.pkpass")).unwrap();
    fs::rename(&aside, &passes).unwrap();
    a_removal_is_noticed_elsewhere(&service);
    assert_eq!(service.get(TYPE, "B", None).body, two);
    fs::write(passes.join("C.pkpass"), pass(TYPE, "C", "one")).unwrap();
    eventually("it counts as back", || {
        lines_about(&service, "is there again") == 2
    });
    eventually("the removal counts", || {
        service.get(TYPE, "B", None).status == 401
    });
    eventually("the new one is served", || {
        service.get(TYPE, "C", None).status == 200
    });
}

#[cfg(unix)]
#[test]
fn a_link_to_a_folder_may_come_to_point_elsewhere() {
    let mut service = Service::new();
    let [first, second, link] =
        ["first", "second", "passes"].map(|name| service.folder.path().join(name));
    fs::remove_dir(&link).unwrap();
    for (folder, version) in [(&first, "one"), (&second, "two")] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("a.pkpass"), pass(TYPE, "A", version)).unwrap();
    }
    std::os::unix::fs::symlink(&first, &link).unwrap();
    service.start();
    let two = fs::read(second.join("a.pkpass")).unwrap();
    let new_link = service.folder.path().join("link");
    std::os::unix::fs::symlink(&second, &new_link).unwrap();
    fs::rename(&new_link, &link).unwrap();
    eventually("the other folder is served", || {
        service.get(TYPE, "A", None).body == two
    });
    let three = pass(TYPE, "A", "three");
    fs::write(second.join("a.pkpass"), &three).unwrap();
    eventually("its change is served", || {
        service.get(TYPE, "A", None).body == three
    });
}
