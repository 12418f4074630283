//! Redis: one node, a set with Sentinels, or a Cluster.
//!
//! Every function here blocks.

// Each file uses only earlier files of this list: tls, gate, network, node, sentinel, cluster.
mod cluster;
mod gate;
mod network;
mod node;
mod sentinel;
mod tls;

use std::{env, io};

pub use self::{
    cluster::Cluster, gate::Gate, network::Network, node::Node, sentinel::SentinelSet, tls::Tls,
};
/// A Redis node. It is a server that was already running, or a server that was started for the
/// tests.
#[derive(Debug)]
pub struct Single {
    url: String,
    node: Option<Node>,
    #[cfg(feature = "containers")]
    _container: Option<testcontainers::Container<testcontainers::GenericImage>>,
}

impl Single {
    /// Returns the server at `PASSKIT_TEST_REDIS_URL`. If the variable is not set, starts a
    /// `redis-server`, or else a container.
    ///
    /// # Errors
    ///
    /// Fails if none of these is available. The error says how to get each of them.
    pub fn start() -> io::Result<Self> {
        if let Ok(url) = env::var("PASSKIT_TEST_REDIS_URL") {
            return Ok(Self {
                url,
                node: None,
                #[cfg(feature = "containers")]
                _container: None,
            });
        }
        match Node::start(&[]) {
            Ok(node) => Ok(Self {
                url: node.url(),
                node: Some(node),
                #[cfg(feature = "containers")]
                _container: None,
            }),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Err(missing) => Self::in_container(missing),
        }
    }

    #[cfg(feature = "containers")]
    fn in_container(missing: io::Error) -> io::Result<Self> {
        use testcontainers::{
            GenericImage, core::IntoContainerPort as _, core::WaitFor, runners::SyncRunner as _,
        };
        let image = env::var("PASSKIT_TEST_REDIS_IMAGE").unwrap_or_else(|_| "redis:7".into());
        let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
        let container = GenericImage::new(name, tag)
            .with_exposed_port(6379.tcp())
            .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"))
            .start()
            .map_err(|error| {
                io::Error::other(format!("{missing}; the container failed: {error}"))
            })?;
        let port = container
            .get_host_port_ipv4(6379)
            .map_err(io::Error::other)?;
        Ok(Self {
            url: format!("redis://127.0.0.1:{port}/"),
            node: None,
            _container: Some(container),
        })
    }

    #[cfg(not(feature = "containers"))]
    fn in_container(missing: io::Error) -> io::Result<Self> {
        Err(missing)
    }

    /// Returns the address, `redis://host:port/`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the process, if it was started here.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }
}
