use std::{fs, io, path::PathBuf, process::Command};

use tempfile::TempDir;

/// A certificate authority in files, with a certificate for a server on 127.0.0.1 and a certificate for a client.
#[derive(Debug)]
pub struct Tls {
    folder: TempDir,
    options: String,
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
    /// Fails if `openssl` is not installed.
    pub fn make() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = folder.path().display();
        let options = format!(
            "--tls-cert-file {at}/server.crt --tls-key-file {at}/server.key --tls-ca-cert-file {at}/ca.crt \
             --tls-replication yes --tls-cluster yes"
        );
        let tls = Self { folder, options };
        fs::write(tls.file("openssl.cnf"), CONFIG)?;
        tls.certify("ca", "-extensions ca")?;
        tls.certify("server", "-extensions leaf -CA ca.crt -CAkey ca.key")?;
        tls.certify("client", "-extensions leaf -CA ca.crt -CAkey ca.key")?;
        let client = [
            fs::read(tls.file("client.crt"))?,
            fs::read(tls.file("client.key"))?,
        ];
        fs::write(tls.file("client.pem"), client.concat())?;
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
        Err(io::Error::other(format!(
            "openssl: {}",
            String::from_utf8_lossy(&made.stderr).trim()
        )))
    }

    /// Returns the path of `ca.crt`, `client.crt`, `client.key` or `client.pem`. The last file has the client's certificate
    /// and key together.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the options that make nodes use TLS with clients and with each other. `asks_clients` says whether a node asks
    /// clients for a certificate.
    #[must_use]
    pub fn options(&self, asks_clients: bool) -> Vec<&str> {
        let all = self.options.split_whitespace();
        all.chain([
            "--tls-auth-clients",
            if asks_clients { "yes" } else { "no" },
        ])
        .collect()
    }
}
