use std::{io, path::PathBuf, process::Command};

use tempfile::TempDir;

/// A certificate authority of our own, in files, with certificates for a server on 127.0.0.1 and for a client.
#[derive(Debug)]
pub struct Tls {
    folder: TempDir,
}

const CONFIG: &str = "\
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[leaf]
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1
";

impl Tls {
    /// Makes the certificates.
    ///
    /// # Errors
    /// If there is no `openssl`.
    pub fn make() -> io::Result<Self> {
        let tls = Self { folder: tempfile::tempdir()? };
        std::fs::write(tls.file("openssl.cnf"), CONFIG)?;
        tls.certify("ca", "-extensions ca")?;
        tls.certify("server", "-extensions leaf -CA ca.crt -CAkey ca.key")?;
        tls.certify("client", "-extensions leaf -CA ca.crt -CAkey ca.key")?;
        Ok(tls)
    }

    fn certify(&self, name: &str, how: &str) -> io::Result<()> {
        let command = format!(
            "req -config openssl.cnf -x509 {how} -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
             -subj /CN={name} -keyout {name}.key -out {name}.crt"
        );
        let made = Command::new("openssl")
            .args(command.split_whitespace())
            .current_dir(self.folder.path())
            .output()?;
        if made.status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("openssl: {}", String::from_utf8_lossy(&made.stderr).trim())))
    }

    /// A file: `ca.crt`, `client.crt` or `client.key`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What makes nodes speak TLS with clients and with one another, and ask clients for a certificate or not.
    #[must_use]
    pub fn options(&self, asks_clients: bool) -> Vec<String> {
        let file = |name: &str| self.file(name).to_string_lossy().into_owned();
        let asks_clients = if asks_clients { "yes" } else { "no" };
        let options = [
            ("--tls-cert-file", file("server.crt")),
            ("--tls-key-file", file("server.key")),
            ("--tls-ca-cert-file", file("ca.crt")),
            ("--tls-auth-clients", asks_clients.to_owned()),
            ("--tls-replication", "yes".to_owned()),
            ("--tls-cluster", "yes".to_owned()),
        ];
        options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }
}
