//! A full disk. The test fills a small file system, which only root can mount.

use std::{collections::BTreeSet, fs, io::Write as _, path::Path, process::Command};

use crate::{
    archives::pass,
    program::{Service, authorization, eventually, registration, send},
};

const TYPE: &str = "pass.com.example.full";

/// A mounted file system of 12 MiB.
pub(crate) struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    /// Returns `None` if this user is not root or the environment forbids it. If root can't mount, the test fails.
    pub(crate) fn mount(path: &'a Path) -> Option<Self> {
        let id = Command::new("id").arg("-u").output().unwrap();
        if id.stdout != b"0\n" || std::env::var_os("PASSKIT_NO_MOUNT").is_some() {
            eprintln!("left out: only root may mount the small file system that this test fills");
            return None;
        }
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"])
            .arg(path)
            .output();
        assert!(
            mounted.as_ref().is_ok_and(|mount| mount.status.success()),
            "cannot mount a tmpfs as root; allow it, for example with \"docker run --privileged\", or set \
             PASSKIT_NO_MOUNT=1: {mounted:?}"
        );
        Some(Self(path))
    }

    /// Makes room.
    pub(crate) fn grow(&self) {
        let mount = Command::new("mount")
            .args(["-o", "remount,size=200m"])
            .arg(self.0)
            .status();
        assert!(mount.unwrap().success());
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn registrations_answer_503_while_the_disk_is_full_and_go_on_when_there_is_room() {
    let mut service = Service::new();
    let store = service.store();
    let Some(_disk) = SmallDisk::mount(&store) else {
        return;
    };
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A", "one")).unwrap();
    service.start();
    assert_eq!(service.register("first", TYPE, "A"), 201);

    let ballast = store.join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);

    let mut acknowledged: BTreeSet<String> = ["first".to_owned()].into();
    let mut refused = 0;
    let address = service.address();
    let headers = [("Authorization", &*authorization(TYPE, "A"))];
    for number in 0..20_000 {
        let device = format!("D-{number}");
        let path = registration(&device, TYPE, "A");
        let answer = send(
            &address,
            "POST",
            &path,
            &headers,
            br#"{"pushToken":"c0ffee"}"#,
        )
        .unwrap();
        match answer.status {
            201 => drop(acknowledged.insert(device)),
            503 => {
                assert!(
                    answer.header("retry-after").is_some() && answer.body.is_empty(),
                    "{answer:?}"
                );
                refused += 1;
            }
            status => panic!("answered {status}; the service said {}", service.said()),
        }
        if refused >= 20 {
            break;
        }
    }
    assert!(refused >= 20, "the disk never was full");
    let (listed, tag) = service.list("first", TYPE, None).unwrap();
    assert_eq!(listed, ["A"], "reading goes on");
    assert!(service.list("first", TYPE, Some(&tag)).is_none());
    assert_eq!(service.get(TYPE, "A", None).status, 200);

    fs::remove_file(&ballast).unwrap();
    eventually("it goes on by itself", || {
        service.register("last", TYPE, "A") == 201
    });
    acknowledged.insert("last".to_owned());
    for restarted in [false, true] {
        for device in &acknowledged {
            let listed = service.list(device, TYPE, None);
            assert!(
                listed.is_some(),
                "{device} was acknowledged and is lost (restarted: {restarted})"
            );
        }
        if !restarted {
            service.kill();
            service.start();
        }
    }
    service.stop("TERM");
}
