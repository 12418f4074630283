//! A server in a container, where the machine has none of its own.

use std::{
    process::{Child, Command, Stdio},
    thread,
};

use sqlx::{Connection as _, PgConnection};
use testcontainers::{
    ContainerAsync, GenericImage, ImageExt as _, core::IntoContainerPort as _,
    runners::AsyncRunner as _,
};
use tokio::runtime::Runtime;

use crate::{
    postgres::{Outcome, PATIENCE, Server},
    process,
};

/// Ends with this process, or before.
#[derive(Debug)]
pub(crate) struct Container {
    guard: Child,
    // Keeps the runtime that the container was started with.
    _runtime: Runtime,
    _container: ContainerAsync<GenericImage>,
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ended = self.guard.wait();
    }
}

/// Whether a Docker engine answers.
pub(crate) fn engine_answers() -> bool {
    let mut version = Command::new("docker");
    version
        .arg("version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// PostgreSQL from the image that `PASSKIT_TEST_POSTGRES_IMAGE` names, `postgres:17` where it names none.
pub(crate) fn postgres() -> Outcome<Server> {
    let image =
        std::env::var("PASSKIT_TEST_POSTGRES_IMAGE").unwrap_or_else(|_| "postgres:17".into());
    // A thread of its own, for the caller may be inside of a runtime.
    let started = thread::spawn(move || start(&image)).join();
    started.map_err(|_| "the thread that starts a container panicked")?
}

fn start(image: &str) -> Outcome<Server> {
    let (name, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
    let runtime = Runtime::new()?;
    let (container, port) = runtime.block_on(async {
        let container = GenericImage::new(name, tag)
            .with_exposed_port(5432.tcp())
            .with_env_var("POSTGRES_PASSWORD", "passkit")
            .with_cmd(["postgres", "-c", "fsync=off", "-c", "max_connections=200"])
            .start()
            .await?;
        let port = container.get_host_port_ipv4(5432).await?;
        Ok::<_, testcontainers::TestcontainersError>((container, port))
    })?;
    let mut remove = Command::new("docker");
    remove.args(["rm", "-fv", container.id()]);
    let guard = process::at_end(&remove)?;
    let mut server = Server::at(format!("postgres://postgres:passkit@127.0.0.1:{port}"));
    // While it sets itself up, it lets nobody in from outside.
    let url = server.url("postgres");
    let mut refusal = None;
    let ready = process::wait_until(PATIENCE, || {
        refusal = runtime.block_on(PgConnection::connect(&url)).err();
        refusal.is_none()
    });
    server.container = Some(Container {
        guard,
        _runtime: runtime,
        _container: container,
    });
    match refusal {
        Some(refusal) if !ready => {
            Err(format!("the container of {image} lets nobody in: {refusal}").into())
        }
        _ => Ok(server),
    }
}
