//! The way of a change from a row to the phone that has its pass.

use std::{fs, time::SystemTime};

use passkit_conformance::{
    Client,
    phone::{Phone, State},
};

use crate::{
    authority::P256,
    making::{Workshop, made},
    program::{Service, eventually},
    push::{Local, METRICS, TYPE, quiet},
};

#[test]
fn only_the_phones_of_changed_rows_get_a_push() {
    let local = Local::start();
    let mut service = Service::new().given(&local.arguments()).given(&METRICS);
    let workshop = Workshop::certified(TYPE, P256);
    let out = service.passes();
    let row =
        |number: usize, points: usize| format!("{number},Ada,{number},{points},2026-12-31,1\n");
    let write = |rows: &[(usize, usize)]| {
        let rows: String = rows
            .iter()
            .map(|(number, points)| row(*number, *points))
            .collect();
        workshop.write(
            "table.csv",
            format!("id,first,last,points,until,seat\n{rows}"),
        );
    };
    let make = |arguments: &[&str]| {
        made(
            workshop
                .make_into("card", "table.csv", &out)
                .args(arguments),
        )
    };
    write(&[(0, 5), (1, 5), (2, 5), (3, 5), (4, 5)]);
    assert!(make(&[]).starts_with("5 rows: 5 new"));
    service.start();
    quiet(&service);
    let mut phones: Vec<Phone> = (0..5)
        .map(|_| Phone::new(State::new().unwrap(), Client::default()))
        .collect();
    for (number, phone) in phones.iter_mut().enumerate() {
        let pass = fs::read(out.join(format!("{number}.pkpass"))).unwrap();
        let added = local
            .runtime
            .block_on(phone.add(&pass, Some(&service.url())))
            .unwrap();
        assert!(added.complaints.is_empty(), "{:?}", added.complaints);
    }

    // Two rows change, and the other rows only move.
    let mut expect =
        |rows: &[(usize, usize)], arguments: &[&str], numbers: &str, changed: &[usize]| {
            let since = SystemTime::now();
            write(rows);
            let said = make(arguments);
            assert!(said.contains(numbers), "{said}");
            eventually("the phones get pushes", || {
                local.pushed(since).len() >= changed.len()
            });
            quiet(&service);
            let pushed = local.pushed(since);
            for (number, phone) in phones.iter_mut().enumerate() {
                let count = pushed.get(phone.state().push_token().as_str()).copied();
                let is_changed = changed.contains(&number);
                assert_eq!(count, is_changed.then_some(1), "{number}");
                let outcome = local.runtime.block_on(phone.sync()).unwrap();
                assert!(outcome.complaints.is_empty(), "{:?}", outcome.complaints);
                assert_eq!(outcome.updated.len(), usize::from(is_changed), "{number}");
                if is_changed {
                    let fetched = fs::read(out.join(format!("{number}.pkpass"))).unwrap();
                    let answer = service.send(
                        "GET",
                        &format!("/v1/passes/{TYPE}/{number}"),
                        &[("Authorization", &authorization(&workshop, &fetched))],
                        b"",
                    );
                    assert!(answer.status == 200 && answer.body == fetched);
                }
            }
        };
    expect(
        &[(4, 5), (0, 5), (1, 6), (2, 5), (3, 7)],
        &[],
        "2 changed, 3 unchanged",
        &[1, 3],
    );
    expect(
        &[(0, 5), (1, 6), (2, 5), (3, 7), (4, 5)],
        &[],
        "0 changed, 5 unchanged",
        &[],
    );
    expect(
        &[(0, 5), (1, 6), (3, 7), (4, 8)],
        &["--void-missing"],
        "1 changed, 3 unchanged, 0 wrong; 1 voided",
        &[2, 4],
    );
    assert!(
        service.said().lines().all(|line| !line.contains("ERROR")),
        "{}",
        service.said()
    );
    local.no_violation();
}

/// Returns the header with the token of a pass.
fn authorization(workshop: &Workshop, pass: &[u8]) -> String {
    workshop.write("passes/one.pkpass", pass);
    let token = workshop.json("one.pkpass")["authenticationToken"].clone();
    format!("ApplePass {}", token.as_str().unwrap())
}
