//! PostgreSQL, and PgBouncer in front of it.

use std::{
    error::Error,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::process;

/// What comes of it, or one line that says why not.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const NO_SERVER: &str = "no PostgreSQL: set PASSKIT_TEST_POSTGRES_URL, or install it (Debian: apt-get install \
    postgresql), or start Docker and use the feature \"containers\" of passkit-test-servers";

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A server, and the right to make databases on it.
#[derive(Debug)]
pub struct Server {
    /// Without a database at its end.
    url: String,
    throwaway: Option<Throwaway>,
    #[cfg(feature = "containers")]
    pub(crate) container: Option<crate::container::Container>,
}

impl Server {
    /// The server of the environment, or else a throw-away that forgets everything in a crash, or else a container.
    ///
    /// # Errors
    /// If there is none, and where to get one.
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
        return crate::container::postgres();
        #[cfg(not(feature = "containers"))]
        Err(NO_SERVER.into())
    }

    /// A server of our own, from the programs on this machine, with these settings. It ends with this process.
    ///
    /// # Errors
    /// If there are no programs, or they do not work.
    pub fn throwaway(settings: &[&str]) -> Outcome<Self> {
        // Asked first, so that no folder is left where there are none.
        let _there = programs().ok_or(NO_SERVER)?;
        let folder = tempfile::Builder::new()
            .prefix("passkit-postgres-")
            .tempdir()?;
        Self::own_in(folder.keep(), false, settings)
    }

    /// A server of our own with the data of this folder, which stay there. It ends with this process.
    ///
    /// # Errors
    /// If there are no programs, they do not work, or another process has the folder.
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
        let throwaway = Throwaway {
            programs,
            user,
            port: process::free_port()?,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            folder,
            is_kept,
            guard: Mutex::default(),
        };
        if throwaway.folder.join("data/PG_VERSION").exists() {
            throwaway.forget_last_run()?;
        } else {
            throwaway.make()?;
        }
        throwaway.start()?;
        let mut server = Self::at(format!("postgres://postgres@127.0.0.1:{}", throwaway.port));
        server.throwaway = Some(throwaway);
        Ok(server)
    }

    /// A server in a container, from the image that `PASSKIT_TEST_POSTGRES_IMAGE` names; `None` where no Docker engine
    /// answers.
    ///
    /// # Errors
    /// If there is no such image, or it does not work.
    #[cfg(feature = "containers")]
    pub fn container() -> Outcome<Option<Self>> {
        if crate::container::engine_answers() {
            crate::container::postgres().map(Some)
        } else {
            Ok(None)
        }
    }

    pub(crate) fn at(url: String) -> Self {
        Self {
            url,
            throwaway: None,
            #[cfg(feature = "containers")]
            container: None,
        }
    }

    /// The address of a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("{}/{database}", self.url)
    }

    /// Makes an empty database, and gives its name.
    ///
    /// # Errors
    /// If the server does not.
    pub async fn new_database(&self) -> Outcome<String> {
        self.make_database("").await
    }

    /// Makes a database with the tables and rows of another one that nobody is connected to, and gives its name.
    ///
    /// # Errors
    /// If the server does not.
    pub async fn copy_database(&self, database: &str) -> Outcome<String> {
        self.make_database(&format!(" template {database}")).await
    }

    async fn make_database(&self, options: &str) -> Outcome<String> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("passkit_test_{}_{count}", std::process::id());
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        // One may be left of a process that had our number.
        connection
            .execute(AssertSqlSafe(format!("drop database if exists {name}")))
            .await?;
        connection
            .execute(AssertSqlSafe(format!("create database {name}{options}")))
            .await?;
        connection.close().await?;
        Ok(name)
    }

    /// Starts a throw-away again.
    ///
    /// # Errors
    /// If it does not start, or is none.
    pub fn start(&self) -> Outcome<()> {
        self.own()?.start()
    }

    /// Stops a throw-away as its owner would: connections are cut, everything is on disk.
    ///
    /// # Errors
    /// If it is no throw-away, or does not run.
    pub fn stop(&self) -> Outcome<()> {
        let own = self.own()?;
        let postmaster = own.postmaster()?;
        signal("INT", &[postmaster])?;
        own.wait_for_end(&[postmaster])
    }

    /// Kills all processes of a throw-away at one time: what a crash leaves.
    ///
    /// # Errors
    /// If it is no throw-away, or does not run.
    pub fn kill(&self) -> Outcome<()> {
        let own = self.own()?;
        let postmaster = own.postmaster()?;
        let mut processes = process::children(postmaster)?;
        // First, so that it starts no others.
        processes.insert(0, postmaster);
        signal("KILL", &processes)?;
        own.wait_for_end(&processes)
    }

    /// Gives a folder to the user that a throw-away runs as.
    ///
    /// # Errors
    /// If it is no throw-away.
    pub fn give(&self, folder: &Path) -> Outcome<()> {
        match self.own()?.user {
            Some((user, group)) => Ok(std::os::unix::fs::chown(folder, Some(user), Some(group))?),
            None => Ok(()),
        }
    }

    fn own(&self) -> Outcome<&Throwaway> {
        self.throwaway
            .as_ref()
            .ok_or_else(|| "only a throw-away server can be started and stopped".into())
    }
}

/// The folder of PostgreSQL's programs; of several versions the newest.
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
    // Some may have gone before.
    let _some_gone = kill.status()?;
    Ok(())
}

#[derive(Debug)]
struct Throwaway {
    programs: PathBuf,
    user: Option<(u32, u32)>,
    port: u16,
    settings: Vec<String>,
    folder: PathBuf,
    /// Whether the folder outlives this process.
    is_kept: bool,
    guard: Mutex<Option<Child>>,
}

impl Throwaway {
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
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
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
        let ready = process::wait_until(PATIENCE, || {
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

    /// What a server left that was killed would look like one that is ready.
    fn forget_last_run(&self) -> Outcome<()> {
        match self.postmaster() {
            Ok(postmaster) if process::is_alive(postmaster) => {
                Err(format!("process {postmaster} has {} open", self.folder.display()).into())
            }
            Ok(_) => Ok(fs::remove_file(self.folder.join("data/postmaster.pid"))?),
            Err(_) => Ok(()),
        }
    }

    fn status(&self) -> Option<String> {
        fs::read_to_string(self.folder.join("data/postmaster.pid")).ok()
    }

    fn postmaster(&self) -> Outcome<u32> {
        let status = self.status().ok_or("the server does not run")?;
        Ok(status.lines().next().unwrap_or_default().trim().parse()?)
    }

    fn wait_for_end(&self, processes: &[u32]) -> Outcome<()> {
        let ended = process::wait_until(PATIENCE, || {
            !processes.iter().any(|&id| process::is_alive(id))
        });
        if !ended {
            return Err("the server does not end".into());
        }
        // What a killed server left would look like a server that runs.
        let left = self.folder.join("data/postmaster.pid");
        if left.exists() {
            Ok(fs::remove_file(left)?)
        } else {
            Ok(())
        }
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        let guard = self.guard.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut guard) = guard.take() {
            drop(guard.stdin.take());
            let _ended = guard.wait();
        }
    }
}

/// PgBouncer in front of a server, handing out connections for one transaction at a time. It ends with this process.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    guard: Child,
}

impl PgBouncer {
    /// Starts one, with so many connections to the server.
    ///
    /// # Errors
    /// If PgBouncer is not installed, or the server is no throw-away.
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
        let up = process::wait_until(PATIENCE, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        if up {
            Ok(Self { port, guard })
        } else {
            Err("PgBouncer does not start".into())
        }
    }

    /// The address of a database.
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

/// Where a program of PostgreSQL is, `pgbench` for one.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    process::find(name, programs().as_deref().map(Path::to_owned))
}
