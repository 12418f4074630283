//! Several instances over one store.

use std::{fs, time::Duration};

use crate::{
    archives::{pass, replace},
    program::{Service, eventually},
};

const TYPE: &str = "pass.com.example.shared";

/// Two instances over this store and one folder agree on what changed and on what it is; so does a third one that starts
/// later.
pub(crate) fn agree(store: &str) {
    let mut one = Service::over(store);
    let file = one.passes().join("a.pkpass");
    fs::write(&file, pass(TYPE, "A-1", "0")).unwrap();
    fs::write(one.passes().join("b.pkpass"), pass(TYPE, "B-1", "0")).unwrap();
    let mut two = one.sibling();
    one.start();
    two.start();

    assert_eq!(one.register("D", TYPE, "A-1"), 201);
    assert_eq!(two.register("D", TYPE, "A-1"), 200);
    let (_, mut tag) = two.list("D", TYPE, None).unwrap();
    let mut date = one.get(TYPE, "A-1", None).header("last-modified").unwrap().to_owned();
    assert_eq!(two.get(TYPE, "A-1", Some(&date)).status, 304);
    for version in 1..=4 {
        let content = pass(TYPE, "A-1", &version.to_string());
        replace(&file, &content);
        eventually("the change is listed", || one.list("D", TYPE, Some(&tag)).is_some());
        // At once: whichever noticed it first, both serve it.
        for service in [&two, &one] {
            let answer = service.get(TYPE, "A-1", Some(&date));
            assert_eq!(answer.status, 200, "{}", service.said());
            assert!(answer.body == content, "old content under a new date");
        }
        let (serials, newer) = two.list("D", TYPE, Some(&tag)).unwrap();
        assert_eq!(serials, ["A-1"]);
        date = one.get(TYPE, "A-1", None).header("last-modified").unwrap().to_owned();
        // Both have noticed by now, and one mark was made.
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(one.list("D", TYPE, Some(&newer)), None, "marked twice");
        assert_eq!(two.get(TYPE, "A-1", Some(&date)).status, 304);
        tag = newer;
    }

    // A third one, which starts from nothing, changes nothing.
    let mut three = one.sibling();
    three.start();
    assert_eq!(three.list("D", TYPE, Some(&tag)), None);
    assert_eq!(three.get(TYPE, "A-1", Some(&date)).status, 304);
    assert_eq!(one.stop("TERM").code(), Some(0));
    assert_eq!(three.unregister("D", TYPE, "A-1"), 200);
    assert_eq!(two.list("D", TYPE, None), None);
}
