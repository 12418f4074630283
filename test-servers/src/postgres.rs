//! PostgreSQL, and PgBouncer in front of it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::{
    process,
    wait::{self, Outcome, TIME_LIMIT, lock},
};

const NO_SERVER: &str = "no PostgreSQL: set PASSKIT_TEST_POSTGRES_URL, or install it (Debian: apt-get install \
    postgresql), or start Docker and use the feature \"containers\" of passkit-test-servers";

/// A server on which tests may make databases.
#[derive(Debug)]
pub struct Server {
    /// The address, without a database at its end.
    url: String,
    temporary: Option<Temporary>,
    #[cfg(feature = "containers")]
    container: Option<crate::container::Container>,
}

impl Server {
    /// Returns the server at `PASSKIT_TEST_POSTGRES_URL`. If the variable is not set, starts a
    /// temporary server that is not durable, or else a container.
    ///
    /// # Errors
    ///
    /// Fails if none of these is available. The error says how to get each of them.
    pub fn find() -> Outcome<Self> {
        if let Ok(url) = std::env::var("PASSKIT_TEST_POSTGRES_URL") {
            let url = url
                .rsplit_once('/')
                .filter(|(before, _)| !before.ends_with('/'))
                .map_or(&*url, |it| it.0);
            return Ok(Self::at(url.to_owned()));
        }
        if programs().is_some() {
            return Self::throwaway(&[
                "fsync=off",
                "synchronous_commit=off",
                "full_page_writes=off",
            ]);
        }
        #[cfg(feature = "containers")]
        return Self::in_container();
        #[cfg(not(feature = "containers"))]
        Err(NO_SERVER.into())
    }

    /// Starts a temporary server with these settings from the programs on this machine. It ends with this process.
    ///
    /// # Errors
    /// Fails if PostgreSQL is not installed, or does not start.
    pub fn throwaway(settings: &[&str]) -> Outcome<Self> {
        // The programs are looked up first, so that no folder is left if there are no programs.
        let _there = programs().ok_or(NO_SERVER)?;
        let folder = tempfile::Builder::new()
            .prefix("passkit-postgres-")
            .tempdir()?;
        Self::own_in(folder.keep(), false, settings)
    }

    /// Starts a server with the data in this folder. The data stay there. The server ends with this
    /// process.
    ///
    /// # Errors
    /// Fails if PostgreSQL is not installed or does not start, or if another process uses the folder.
    pub fn kept(folder: &Path, settings: &[&str]) -> Outcome<Self> {
        fs::create_dir_all(folder)?;
        Self::own_in(folder.canonicalize()?, true, settings)
    }

    fn own_in(folder: PathBuf, is_kept: bool, settings: &[&str]) -> Outcome<Self> {
        let programs = programs().ok_or(NO_SERVER)?;
        let user = process::unprivileged(&["postgres", "nobody"]);
        if let Some((user, group)) = user {
            std::os::unix::fs::chown(&folder, Some(user), Some(group))?;
        }
        let temporary = Temporary {
            programs,
            user,
            port: process::free_port()?,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            folder,
            is_kept,
            guard: Mutex::default(),
        };
        if temporary.folder.join("data/PG_VERSION").exists() {
            temporary.forget_last_run()?;
        } else {
            temporary.make()?;
        }
        temporary.start()?;
        let mut server = Self::at(format!("postgres://postgres@127.0.0.1:{}", temporary.port));
        server.temporary = Some(temporary);
        Ok(server)
    }

    /// Starts a container of the image that `PASSKIT_TEST_POSTGRES_IMAGE` names. Returns `None` if
    /// no Docker engine answers.
    ///
    /// # Errors
    /// Fails if there is no such image, or the server in it does not start.
    #[cfg(feature = "containers")]
    pub fn container() -> Outcome<Option<Self>> {
        if crate::container::engine_answers() {
            Self::in_container().map(Some)
        } else {
            Ok(None)
        }
    }

    #[cfg(feature = "containers")]
    fn in_container() -> Outcome<Self> {
        let (url, container) = crate::container::postgres()?;
        let mut server = Self::at(url);
        server.container = Some(container);
        Ok(server)
    }

    fn at(url: String) -> Self {
        Self {
            url,
            temporary: None,
            #[cfg(feature = "containers")]
            container: None,
        }
    }

    /// Returns the address of a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("{}/{database}", self.url)
    }

    /// Makes an empty database, and returns its name.
    ///
    /// # Errors
    /// Fails if the server refuses.
    pub async fn new_database(&self) -> Outcome<String> {
        self.make_database("").await
    }

    /// Makes a copy of a database, and returns its name.
    ///
    /// # Errors
    /// Fails if the server refuses, for example because someone is connected to that database.
    pub async fn copy_database(&self, database: &str) -> Outcome<String> {
        self.make_database(&format!(" template {database}")).await
    }

    async fn make_database(&self, options: &str) -> Outcome<String> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("passkit_test_{}_{count}", std::process::id());
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        // An earlier process with the same number may have left a database with this name.
        connection
            .execute(AssertSqlSafe(format!("drop database if exists {name}")))
            .await?;
        connection
            .execute(AssertSqlSafe(format!("create database {name}{options}")))
            .await?;
        connection.close().await?;
        Ok(name)
    }

    /// Starts a temporary server again.
    ///
    /// # Errors
    /// Fails if the server does not start, or is not temporary.
    pub fn start(&self) -> Outcome<()> {
        self.own()?.start()
    }

    /// Shuts down a temporary server. The server cuts its connections, and writes everything to
    /// disk.
    ///
    /// # Errors
    /// Fails if the server is not temporary, or does not run.
    pub fn stop(&self) -> Outcome<()> {
        let own = self.own()?;
        let postmaster = own.postmaster()?;
        signal("INT", &[postmaster])?;
        own.wait_for_end(&[postmaster])
    }

    /// Kills all processes of a temporary server at the same time, as a crash would.
    ///
    /// # Errors
    /// Fails if the server is not temporary, or does not run.
    pub fn kill(&self) -> Outcome<()> {
        let own = self.own()?;
        let postmaster = own.postmaster()?;
        let mut processes = process::children(postmaster)?;
        // The first process starts the others.
        processes.insert(0, postmaster);
        signal("KILL", &processes)?;
        own.wait_for_end(&processes)
    }

    /// Makes the user of a temporary server the owner of a folder.
    ///
    /// # Errors
    /// Fails if the server is not temporary.
    pub fn give(&self, folder: &Path) -> Outcome<()> {
        match self.own()?.user {
            Some((user, group)) => Ok(std::os::unix::fs::chown(folder, Some(user), Some(group))?),
            None => Ok(()),
        }
    }

    fn own(&self) -> Outcome<&Temporary> {
        self.temporary
            .as_ref()
            .ok_or_else(|| "only a temporary server can be started and stopped".into())
    }
}

/// Returns the folder of PostgreSQL's programs. If there are several versions, returns the newest.
fn programs() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|folder| {
            folder
                .flatten()
                .map(|version| version.path().join("bin"))
                .collect()
        })
        .unwrap_or_default();
    versions.sort();
    let initdb = fs::canonicalize(process::find("initdb", versions.into_iter().rev())?).ok()?;
    let folder = initdb.parent()?;
    folder.join("postgres").is_file().then(|| folder.to_owned())
}

fn signal(name: &str, processes: &[u32]) -> Outcome<()> {
    let mut kill = Command::new("kill");
    kill.arg(format!("-{name}"))
        .args(processes.iter().map(u32::to_string))
        .stderr(Stdio::null());
    // Some processes may already have ended.
    let _some_ended = kill.status()?;
    Ok(())
}

#[derive(Debug)]
struct Temporary {
    programs: PathBuf,
    user: Option<(u32, u32)>,
    port: u16,
    settings: Vec<String>,
    folder: PathBuf,
    /// Whether the folder outlives this process.
    is_kept: bool,
    guard: Mutex<Option<Child>>,
}

impl Temporary {
    fn make(&self) -> Outcome<()> {
        use std::os::unix::process::CommandExt as _;
        let mut initdb = Command::new(self.programs.join("initdb"));
        initdb
            .current_dir(&self.folder)
            .arg("-D")
            .arg(self.folder.join("data"));
        initdb.args([
            "-U",
            "postgres",
            "--auth=trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]);
        if let Some((user, group)) = self.user {
            initdb.uid(user).gid(group);
        }
        let made = initdb.output()?;
        if made.status.success() {
            return Ok(());
        }
        if !self.is_kept {
            fs::remove_dir_all(&self.folder)?;
        }
        Err(format!(
            "initdb failed: {}",
            String::from_utf8_lossy(&made.stderr).trim()
        )
        .into())
    }

    fn start(&self) -> Outcome<()> {
        let mut postgres = Command::new(self.programs.join("postgres"));
        postgres
            .current_dir(&self.folder)
            .arg("-D")
            .arg(self.folder.join("data"));
        let mut set = |setting: String| {
            postgres.arg("-c").arg(setting);
        };
        set("listen_addresses=127.0.0.1".into());
        set(format!("port={}", self.port));
        set(format!("unix_socket_directories={}", self.folder.display()));
        set("max_connections=200".into());
        set("logging_collector=on".into());
        set("log_directory=log".into());
        self.settings.iter().cloned().for_each(set);
        let mut guard = lock(&self.guard);
        if let Some(mut last) = guard.take() {
            if let Some(mut stdin) = last.stdin.take() {
                stdin.write_all(b"keep the folder\n")?;
            }
            last.wait()?;
        }
        let to_remove = if self.is_kept {
            Path::new("")
        } else {
            &self.folder
        };
        *guard = Some(process::guarded(&postgres, to_remove, self.user)?);
        let ready = wait::until(TIME_LIMIT, || {
            self.status().is_some_and(|status| {
                status
                    .lines()
                    .nth(7)
                    .is_some_and(|line| line.trim() == "ready")
            })
        });
        if ready {
            Ok(())
        } else {
            Err(format!("PostgreSQL in {} does not start", self.folder.display()).into())
        }
    }

    /// Removes the state file of a killed server, because the file says that the server is ready.
    fn forget_last_run(&self) -> Outcome<()> {
        match self.postmaster() {
            Ok(postmaster) if process::is_alive(postmaster) => {
                Err(format!("process {postmaster} uses {}", self.folder.display()).into())
            }
            Ok(_) => Ok(fs::remove_file(self.folder.join("data/postmaster.pid"))?),
            Err(_) => Ok(()),
        }
    }

    fn status(&self) -> Option<String> {
        fs::read_to_string(self.folder.join("data/postmaster.pid")).ok()
    }

    fn postmaster(&self) -> Outcome<u32> {
        let status = self.status().ok_or("PostgreSQL does not run")?;
        Ok(status.lines().next().unwrap_or_default().trim().parse()?)
    }

    fn wait_for_end(&self, processes: &[u32]) -> Outcome<()> {
        let ended = wait::until(TIME_LIMIT, || {
            !processes.iter().any(|&id| process::is_alive(id))
        });
        if !ended {
            return Err("PostgreSQL does not stop".into());
        }
        // A killed server leaves this file, which says that the server is running.
        let left = self.folder.join("data/postmaster.pid");
        if left.exists() {
            Ok(fs::remove_file(left)?)
        } else {
            Ok(())
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(mut guard) = lock(&self.guard).take() {
            drop(guard.stdin.take());
            let _ended = guard.wait();
        }
    }
}

/// PgBouncer with `pool_mode = transaction` in front of a server. It ends with this process.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    guard: Child,
}

impl PgBouncer {
    /// Starts PgBouncer with this number of connections to the server.
    ///
    /// # Errors
    /// Fails if PgBouncer is not installed, or the server is not temporary.
    pub fn start(server: &Server, connections: usize) -> Outcome<Self> {
        let program = process::find("pgbouncer", ["/usr/sbin".into()])
            .ok_or("no PgBouncer: install it (Debian: apt-get install pgbouncer)")?;
        let own = server.own()?;
        let folder = tempfile::Builder::new()
            .prefix("passkit-pgbouncer-")
            .tempdir()?;
        if let Some((user, group)) = own.user {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(group))?;
        }
        let port = process::free_port()?;
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
            listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
            default_pool_size = {connections}\nmax_client_conn = 500\n",
            own.port
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, settings)?;
        let mut command = Command::new(program);
        command.arg("-q").arg(&file);
        let guard = process::guarded(&command, &folder.keep(), own.user)?;
        let up = wait::until(TIME_LIMIT, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        if up {
            Ok(Self { port, guard })
        } else {
            Err("PgBouncer does not start".into())
        }
    }

    /// Returns the address of a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ended = self.guard.wait();
    }
}

/// Returns the path of one of PostgreSQL's programs, such as `pgbench`.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    process::find(name, programs().as_deref().map(Path::to_owned))
}
