//! The data that most benches load. The data are the same for every store. One device has 10,000
//! passes, and every other device has three passes. No pass is on two devices.

use std::path::PathBuf;

use passkit_server::{
    PassId,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
    maintenance::Registration,
};

/// The type of all passes.
pub const TYPE: &str = "pass.com.example.bench";

/// Another type. It sorts before [`TYPE`].
pub const OTHER_TYPE: &str = "pass.com.example.another";

/// How many passes a device has.
pub const EACH: usize = 3;

/// The number of passes on the device with many passes.
pub const MANY: usize = 10_000;

/// The largest number of registrations without `PASSKIT_BENCH_MAX`.
const MAX: usize = 1_000_000;

/// Returns the type of all passes.
#[must_use]
pub fn type_id() -> TypeIdentifier {
    TypeIdentifier::new(TYPE).expect("a type")
}

/// Returns the device with this number.
#[must_use]
pub fn device(index: usize) -> DeviceIdentifier {
    DeviceIdentifier::new(&format!("{index:032x}")).expect("a device")
}

/// Returns the device with 10,000 passes.
#[must_use]
pub fn device_with_many() -> DeviceIdentifier {
    device(usize::MAX)
}

/// Returns the serial number of the pass with this number.
#[must_use]
pub fn serial(index: usize) -> SerialNumber {
    SerialNumber::new(&format!("SERIAL-{index:08}")).expect("a serial number")
}

/// Returns a serial number of the device with 10,000 passes.
#[must_use]
pub fn serial_of_many(index: usize) -> SerialNumber {
    SerialNumber::new(&format!("MANY-{index:05}")).expect("a serial number")
}

/// Returns the pass with this number.
#[must_use]
pub fn pass(index: usize) -> PassId {
    PassId {
        type_id: type_id(),
        serial: serial(index),
    }
}

/// Returns a push token, as long as Apple's.
#[must_use]
pub fn token() -> PushToken {
    PushToken::new(&"ab".repeat(32)).expect("a push token")
}

/// Returns the registrations with these numbers.
#[must_use]
pub fn registrations(range: std::ops::Range<usize>) -> Vec<Registration> {
    let one = |i| Registration {
        device: device(i / EACH),
        push_token: token(),
        pass: pass(i),
    };
    range.map(one).collect()
}

/// Returns the registrations of the device with 10,000 passes.
#[must_use]
pub fn registrations_of_many() -> Vec<Registration> {
    let pass = |i| PassId {
        type_id: type_id(),
        serial: serial_of_many(i),
    };
    let one = |i| Registration {
        device: device_with_many(),
        push_token: token(),
        pass: pass(i),
    };
    (0..MANY).map(one).collect()
}

/// Returns the numbers of registrations: 10,000 and 1 M, and 10 M with `PASSKIT_BENCH_MAX=10000000`.
#[must_use]
pub fn sizes() -> Vec<usize> {
    let max = std::env::var("PASSKIT_BENCH_MAX").map_or(MAX, |max| {
        max.parse()
            .expect("PASSKIT_BENCH_MAX is a number of registrations")
    });
    [10_000, 1_000_000, 10_000_000]
        .into_iter()
        .filter(|size| *size <= max)
        .collect()
}

/// Returns the folder `target/passkit-bench` for results. Its subfolder `data` keeps data for the
/// next run.
#[must_use]
pub fn folder() -> PathBuf {
    let program = std::env::current_exe().expect("this program's path");
    // The program is in target/release/deps.
    let target = program.ancestors().nth(3).expect("the target folder");
    target.join("passkit-bench")
}

/// Returns a number with commas, such as 1,000,000.
#[must_use]
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Prints progress in place of the last progress line.
pub fn progress(what: &str, done: usize, all: usize) {
    let end = if done >= all { "\n" } else { "" };
    eprint!("\r{what}: {:3} %{end}", done * 100 / all.max(1));
}
