use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

use crate::wait::lock;

/// A proxy in front of a server. It can stop all traffic. Connections then stay open and data
/// waits, as if a cable were cut.
#[derive(Debug)]
pub struct Gate {
    pub(super) port: u16,
    is_open: Arc<(Mutex<bool>, Condvar)>,
}

impl Gate {
    pub(super) fn to(server: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let gate = Self {
            port: listener.local_addr()?.port(),
            is_open: Arc::new((true.into(), Condvar::new())),
        };
        let is_open = Arc::clone(&gate.is_open);
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else {
                    continue;
                };
                for (from, to) in [(&caller, &server), (&server, &caller)] {
                    if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
                        let is_open = Arc::clone(&is_open);
                        thread::spawn(move || pass_on(&from, &to, &is_open));
                    }
                }
            }
        });
        Ok(gate)
    }

    /// Stops all traffic until [`open`](Self::open).
    pub fn shut(&self) {
        *lock(&self.is_open.0) = false;
    }

    /// Lets all traffic through, starting with the data that waited.
    pub fn open(&self) {
        *lock(&self.is_open.0) = true;
        self.is_open.1.notify_all();
    }
}

impl Drop for Gate {
    /// Without this `drop`, the threads of the gate would wait forever.
    fn drop(&mut self) {
        self.open();
    }
}

fn pass_on(mut from: &TcpStream, mut to: &TcpStream, (is_open, opened): &(Mutex<bool>, Condvar)) {
    let mut bytes = [0; 4_096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        drop(opened.wait_while(lock(is_open), |is_open| !*is_open));
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
