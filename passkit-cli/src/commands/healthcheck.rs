use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use passkit_server::text::OneLine;

use crate::{
    failure::Failure,
    health::Report,
    metrics::{ALIVE, READY},
};

/// How long to wait for an answer from the service. The service gives its store two seconds.
const TIME: Duration = Duration::from_secs(5);
/// How many bytes of the answer are read.
const ANSWER_LIMIT: u64 = 64 * 1024;

/// Asks a running service whether it is ready, and prints one line. The exit code is 0 if the
/// service is ready, and otherwise 1.
#[derive(Args, Debug)]
pub(crate) struct Healthcheck {
    /// The address of the service's metrics, as in its option `--metrics`.
    #[arg(
        long,
        env = "PASSKIT_METRICS",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9090"
    )]
    metrics: SocketAddr,

    /// The file that the service gets with its option `--config`.
    #[arg(long = "config", env = "PASSKIT_CONFIG", value_name = "FILE.toml")]
    config_file: Option<PathBuf>,

    /// Only ask whether the service is alive. A service can be alive but not ready, for example
    /// while its store is down.
    #[arg(long)]
    alive: bool,
}

impl Healthcheck {
    pub(crate) fn run(&self) -> Result<ExitCode, Failure> {
        if self.metrics.port() == 0 {
            return Err(Failure::new(
                "the port can't be 0; start the service with a fixed port in --metrics ADDRESS:PORT, and name the same \
                 address here (or set PASSKIT_METRICS for both)",
            ));
        }
        let address = reachable(self.metrics);
        let path = if self.alive { ALIVE } else { READY };
        let answer = match ask(address, path) {
            Ok(answer) => answer,
            Err(error) => {
                eprintln!(
                    "passkit: the service does not answer at http://{address}{path}: {error}"
                );
                return Ok(ExitCode::FAILURE);
            }
        };
        let (line, is_good) = judged(&answer, self.alive);
        if is_good {
            say!("{}", OneLine::of(&line));
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!("passkit: {}", OneLine::of(&line));
        Ok(ExitCode::FAILURE)
    }
}

/// Returns the address at which a client on this machine reaches the listener. A service may listen
/// on all addresses.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Returns the answer, including its head.
fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let deadline = Instant::now() + TIME;
    let mut stream = TcpStream::connect_timeout(&address, TIME)?;
    stream.set_write_timeout(Some(TIME))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let read = stream.read(&mut part)?;
        answer.extend_from_slice(&part[..read]);
        if read == 0 || answer.len() as u64 > ANSWER_LIMIT {
            return Ok(String::from_utf8_lossy(&answer).into_owned());
        }
    }
}

/// Returns the line to print, and whether the answer is good.
fn judged(answer: &str, alive: bool) -> (String, bool) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let is_ok = head.split(' ').nth(1) == Some("200");
    if alive && is_ok {
        return ("alive".into(), true);
    }
    let Ok(report) = serde_json::from_str::<Report>(body) else {
        let first = head.lines().next().unwrap_or_default();
        return (
            format!("a server other than passkit answered: {first}"),
            false,
        );
    };
    let is_good = is_ok && report.ready;
    let state = if is_good { "ready" } else { "not ready" };
    let mut line = [state.to_owned()]
        .into_iter()
        .chain(report.problems)
        .collect::<Vec<_>>()
        .join(": ");
    if !report.warnings.is_empty() {
        line.push_str(&format!(" (warnings: {})", report.warnings.join("; ")));
    }
    (line, is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_on_all_addresses_is_asked_on_this_machine() {
        for (given, asked) in [
            ("0.0.0.0:9090", "127.0.0.1:9090"),
            ("[::]:9090", "[::1]:9090"),
            ("10.0.0.1:9090", "10.0.0.1:9090"),
        ] {
            assert_eq!(reachable(given.parse().unwrap()).to_string(), asked);
        }
    }

    #[test]
    fn the_answer_becomes_one_line() {
        let ready =
            "HTTP/1.1 200 OK\r\na: b\r\n\r\n{\"ready\":true,\"problems\":[],\"warnings\":[\"w\"]}";
        assert_eq!(judged(ready, false), ("ready (warnings: w)".into(), true));
        let not = "HTTP/1.1 503 no\r\n\r\n{\"ready\":false,\"problems\":[\"p\"],\"warnings\":[]}";
        assert_eq!(judged(not, false), ("not ready: p".into(), false));
        assert_eq!(
            judged("HTTP/1.1 200 OK\r\n\r\nalive\n", true),
            ("alive".into(), true)
        );
        for other in [
            "HTTP/1.1 200 OK\r\n\r\n<html>",
            "",
            "SSH-2.0\r\n",
            "HTTP/1.1 404 x\r\n\r\n{}",
        ] {
            assert!(!judged(other, false).1, "{other}");
        }
        assert!(!judged("HTTP/1.1 404 x\r\n\r\n", true).1);
    }
}
