use std::{net::SocketAddr, sync::Arc};

use http::Uri;
use passkit_conformance::load::ServiceUrl;
use passkit_server::text::OneLine;

use crate::failure::Failure;

/// The web service to test, and its addresses. The name of the host is looked up only once.
pub(super) struct Address {
    pub(super) url: ServiceUrl,
    pub(super) addresses: Arc<[SocketAddr]>,
}

impl Address {
    /// Finds the addresses of a service. Refuses a service that is not on this machine, unless
    /// `is_owned` is set.
    pub(super) async fn find(url: &str, is_owned: bool) -> Result<Self, Failure> {
        let wrong = |problem: &str| {
            Failure::new(format!(
                "--url: the url \"{}\" {problem}",
                OneLine::url(url)
            ))
        };
        let service = ServiceUrl::new(url).map_err(wrong)?;
        let uri: Uri = service
            .as_str()
            .parse()
            .map_err(|_| wrong("is not a url"))?;
        let host = uri.host().ok_or_else(|| wrong("names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let default_port = if uri.scheme_str() == Some("https") {
            443
        } else {
            80
        };
        let port = uri.port_u16().unwrap_or(default_port);
        let addresses: Arc<[SocketAddr]> = tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| Failure::new(format!("can't find the host of {url}: {error}")))?
            .collect();
        let elsewhere = addresses
            .iter()
            .find(|address| !address.ip().to_canonical().is_loopback());
        match elsewhere {
            Some(address) if !is_owned => Err(Failure::new(format!(
                "{url} is at {}, which is not this machine: a load test can bring a service down; if the service is yours, \
                 add --yes-i-own-this",
                address.ip()
            ))),
            _ if addresses.is_empty() => {
                Err(Failure::new(format!("the host of {url} has no address")))
            }
            _ => Ok(Self {
                url: service,
                addresses,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_this_machine_is_put_under_load_by_default() {
        for here in [
            "http://127.0.0.1:8080",
            "http://127.8.7.6/a/",
            "https://[::1]:1",
            "http://[::ffff:127.0.0.1]",
        ] {
            assert!(Address::find(here, false).await.is_ok(), "{here}");
        }
        for elsewhere in [
            "http://192.0.2.1",
            "http://0.0.0.0:8080",
            "https://[2001:db8::1]/",
            "http://[::]",
        ] {
            let refused = Address::find(elsewhere, false)
                .await
                .map(|_| ())
                .unwrap_err()
                .to_string();
            assert!(refused.contains("--yes-i-own-this"), "{refused}");
            assert!(Address::find(elsewhere, true).await.is_ok(), "{elsewhere}");
        }
        for wrong in [
            "127.0.0.1:8080",
            "ftp://127.0.0.1",
            "http://127.0.0.1/?x",
            "http://host.invalid",
        ] {
            assert!(Address::find(wrong, true).await.is_err(), "{wrong}");
        }
    }
}
