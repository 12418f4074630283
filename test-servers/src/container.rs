//! PostgreSQL in a container, for machines that lack its programs.

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
    process,
    wait::{self, Outcome, TIME_LIMIT},
};

/// A container. It is removed when this value is dropped, or at the latest when this process ends.
#[derive(Debug)]
pub(crate) struct Container {
    guard: Child,
    // The container needs the runtime on which it was started.
    _runtime: Runtime,
    _container: ContainerAsync<GenericImage>,
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ended = self.guard.wait();
    }
}

/// Returns whether a Docker engine answers.
pub(crate) fn engine_answers() -> bool {
    let mut version = Command::new("docker");
    version
        .arg("version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// Starts the image that `PASSKIT_TEST_POSTGRES_IMAGE` names, or else `postgres:17`. Also returns
/// its address.
pub(crate) fn postgres() -> Outcome<(String, Container)> {
    let image =
        std::env::var("PASSKIT_TEST_POSTGRES_IMAGE").unwrap_or_else(|_| "postgres:17".into());
    // This needs a separate thread, because the caller may be inside a runtime.
    let started = thread::spawn(move || start(&image)).join();
    started.map_err(|_| "the thread that starts a container panicked")?
}

fn start(image: &str) -> Outcome<(String, Container)> {
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
    let address = format!("postgres://postgres:passkit@127.0.0.1:{port}");
    // The server refuses connections from outside until its set-up is complete.
    let url = format!("{address}/postgres");
    let mut refusal = None;
    let ready = wait::until(TIME_LIMIT, || {
        refusal = runtime.block_on(PgConnection::connect(&url)).err();
        refusal.is_none()
    });
    let container = Container {
        guard,
        _runtime: runtime,
        _container: container,
    };
    match refusal {
        Some(refusal) if !ready => {
            Err(format!("the container of {image} refuses connections: {refusal}").into())
        }
        _ => Ok((address, container)),
    }
}
