//! The messages of `passkit serve` to systemd, over the socket in NOTIFY_SOCKET.

use std::{os::unix::net::UnixDatagram, time::Duration};

use crate::program::Service;

/// A socket that takes the place of systemd, and the service that reports to this socket.
struct Managed {
    socket: UnixDatagram,
    service: Service,
}

impl Managed {
    fn new() -> Self {
        let mut service = Service::new();
        let path = service.folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        service.set_variable("NOTIFY_SOCKET", path.to_str().unwrap());
        Self { socket, service }
    }

    /// Returns the next message.
    fn hear(&self) -> String {
        let mut message = [0; 1_024];
        let length = self.socket.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    }
}

#[test]
fn systemd_hears_when_the_service_answers_and_when_it_stops() {
    let mut managed = Managed::new();
    managed.service.start();
    assert_eq!(managed.hear(), "READY=1\n");
    assert!(managed.service.stop("TERM").success());
    assert_eq!(managed.hear(), "STOPPING=1\n");
}

#[test]
fn the_watchdog_of_systemd_hears_that_the_service_runs() {
    let mut managed = Managed::new();
    managed.service.set_variable("WATCHDOG_USEC", "300000");
    managed.service.start();
    assert_eq!(managed.hear(), "READY=1\n");
    for _ in 0..3 {
        assert_eq!(managed.hear(), "WATCHDOG=1\n");
    }
}

#[test]
fn the_service_runs_without_its_service_manager() {
    let mut service = Service::new();
    let nowhere = service.folder.path().join("nowhere");
    service.set_variable("NOTIFY_SOCKET", nowhere.to_str().unwrap());
    service.start();
    assert_eq!(service.send("GET", "/v1/log", &[], b"").status, 405);
    assert!(service.stop_and_hear().contains("NOTIFY_SOCKET"));
}
