use std::{
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use passkit_archive::{Archive, Rules};
use passkit_conformance::{
    Client,
    phone::{Outcome, Person, Phone, State},
};
use passkit_server::{PassId, private_files};

use super::check::read_archive;
use crate::{
    failure::{Chain, Failure},
    local_pushes::LocalPushes,
    server,
};

/// Plays a phone against a web service, and prints the requests and answers.
///
/// The phone does what an iPhone does. When a pass is added, the phone registers and asks what
/// changed. At each sync, it asks again, fetches the changed passes, and verifies each archive. No
/// secrets are printed.
///
/// Exit code: 0 everything was right, 1 the service did something wrong, 2 the service could not be
/// tested.
#[derive(Args)]
pub(crate) struct Device {
    /// The file with the state of the phone.
    #[arg(
        long,
        env = "PASSKIT_DEVICE",
        default_value = "passkit-device.json",
        value_name = "FILE",
        global = true
    )]
    state: PathBuf,

    /// Accept development passes too: without a signature, and with a webServiceURL of http://.
    #[arg(long, global = true)]
    allow_unsigned: bool,

    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Adds a pass or order, as if its file were opened on a phone.
    Add {
        /// The archive: .pkpass or .order.
        file: PathBuf,
        /// The web service to use instead of the one that the archive names.
        #[arg(long)]
        url: Option<String>,
    },
    /// Asks what changed and fetches it, as a phone does after a push.
    Sync,
    /// Waits for pushes until Ctrl-C, and syncs when a push comes. The pushes come through a push
    /// service on this machine, which takes the place of APNs. The command prints the options with
    /// which a web service uses this push service.
    Listen,
    /// Deletes a pass from the phone.
    Remove {
        /// The serial number, the type and serial number, or the file of the pass. Not needed if
        /// the phone has only one pass.
        #[arg(num_args = 0..=2, value_name = "PASS")]
        pass: Vec<String>,
    },
    /// Enrols in the rewards programme of a pass, and fetches the personal version.
    Personalize {
        /// The serial number, the type and serial number, or the file of the pass. Not needed if
        /// the phone has only one pass.
        #[arg(num_args = 0..=2, value_name = "PASS")]
        pass: Vec<String>,
        #[command(flatten)]
        answers: Answers,
    },
    /// Lists the passes on the phone.
    List,
}

/// What the user answers in the form of a rewards programme.
#[derive(Args)]
struct Answers {
    /// The full name.
    #[arg(long)]
    name: Option<String>,
    /// The e-mail address.
    #[arg(long)]
    email: Option<String>,
    /// The postal code.
    #[arg(long, value_name = "CODE")]
    postal_code: Option<String>,
    /// The country, such as DE.
    #[arg(long)]
    country: Option<String>,
    /// The phone number, as digits.
    #[arg(long, value_name = "DIGITS")]
    phone: Option<String>,
}

impl Answers {
    fn person(&self) -> Person {
        let mut person = Person::default();
        person.full_name.clone_from(&self.name);
        person.email_address.clone_from(&self.email);
        person.postal_code.clone_from(&self.postal_code);
        person.country_code.clone_from(&self.country);
        person.phone_number.clone_from(&self.phone);
        person
    }
}

impl Device {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let turn = self.turn()?;
        let mut phone = self.phone()?;
        let outcome = match &self.action {
            Action::Add { file, url } => {
                let archive = read_archive(file)?;
                let added = phone.add(&archive, url.as_deref()).await;
                added.map_err(|error| {
                    Failure::from_error(format!("can't add {}", file.display()), &error)
                })?
            }
            Action::Sync => phone
                .sync()
                .await
                .map_err(|error| Failure::from_error("can't sync", &error))?,
            Action::Remove { pass } => {
                let pass = find(&phone, pass)?;
                phone
                    .remove(&pass)
                    .await
                    .map_err(|error| Failure::from_error("can't remove the pass", &error))?
            }
            Action::Personalize { pass, answers } => {
                let pass = find(&phone, pass)?;
                phone
                    .personalize(&pass, &answers.person())
                    .await
                    .map_err(|error| Failure::from_error("can't enrol", &error))?
            }
            Action::Listen => {
                // A new phone is saved before it registers, so that it keeps its push token.
                save(&phone, &self.state)?;
                drop(turn);
                return self.listen().await;
            }
            Action::List => {
                list(&phone);
                return Ok(ExitCode::SUCCESS);
            }
        };
        save(&phone, &self.state)?;
        print_outcome(&outcome);
        Ok(if outcome.complaints.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// Lets only one command run at a time, from reading the state until it is saved. Otherwise the
    /// changes of another command would be lost.
    fn turn(&self) -> Result<File, Failure> {
        let mut path = self.state.clone().into_os_string();
        path.push(".lock");
        let locked =
            private_files::open(Path::new(&path)).and_then(|file| file.lock().map(|()| file));
        locked.map_err(|error| {
            Failure::new(format!(
                "can't lock {}: {error}",
                Path::new(&path).display()
            ))
        })
    }

    fn phone(&self) -> Result<Phone, Failure> {
        let state = if self.state.exists() {
            State::load(&self.state)
        } else {
            State::new()
        };
        let state =
            state.map_err(|error| Failure::from_error("can't read the phone's state", &error))?;
        let mut phone = Phone::new(state, Client::default());
        if self.allow_unsigned {
            phone.set_rules(Rules::development());
        }
        phone.observe(|exchange| say!("{exchange}"));
        Ok(phone)
    }

    async fn listen(&self) -> Result<ExitCode, Failure> {
        let mut stop = std::pin::pin!(server::stop_signal());
        let folder = self.state.with_extension("push");
        if folder.is_symlink() {
            let folder = folder.display();
            return Err(Failure::new(format!("{folder} is a link; remove it")));
        }
        private_files::create_folder(&folder)
            .map_err(|error| Failure::new(format!("can't make {}: {error}", folder.display())))?;
        let mut pushes = LocalPushes::start(&folder).await?;
        say!(
            "listening for pushes; start the web service with these options:\n\n{}\n",
            pushes.arguments
        );
        let mut code = ExitCode::SUCCESS;
        loop {
            let push = tokio::select! {
                push = pushes.next() => push,
                () = &mut stop => return Ok(code),
            };
            // Other commands may have added passes in the meantime.
            let _turn = self.turn()?;
            let mut phone = self.phone()?;
            if push.token != phone.state().push_token().as_str() {
                say!("push of {} to another phone", push.topic);
                continue;
            }
            say!("push of {} to the phone", push.topic);
            let synced = tokio::select! {
                synced = phone.sync() => synced,
                () = &mut stop => return Ok(code),
            };
            save(&phone, &self.state)?;
            match synced {
                Ok(outcome) => {
                    print_outcome(&outcome);
                    if !outcome.complaints.is_empty() {
                        code = ExitCode::FAILURE;
                    }
                }
                Err(error) => {
                    say!("wrong: can't sync: {}", Chain(&error));
                    code = ExitCode::FAILURE;
                }
            }
        }
    }
}

pub(crate) fn save(phone: &Phone, path: &Path) -> Result<(), Failure> {
    phone
        .state()
        .save(path)
        .map_err(|error| Failure::from_error("can't save the phone's state", &error))
}

pub(crate) fn print_outcome(outcome: &Outcome) {
    let lines = [
        ("registered", &outcome.registered),
        ("enrolled", &outcome.enrolled),
        ("updated", &outcome.updated),
        ("unchanged", &outcome.unchanged),
        ("removed", &outcome.unregistered),
    ];
    for (what, passes) in lines {
        passes.iter().for_each(|pass| say!("{what}: {pass}"));
    }
    if lines.iter().all(|(_, passes)| passes.is_empty()) && outcome.complaints.is_empty() {
        say!("nothing changed");
    }
    outcome
        .complaints
        .iter()
        .for_each(|complaint| say!("wrong: {complaint}"));
}

fn list(phone: &Phone) {
    if phone.list().is_empty() {
        say!("no passes; add one with: passkit device add FILE");
    }
    for held in phone.list() {
        let registered = if held.is_registered() {
            "registered"
        } else {
            "not registered"
        };
        let date = held.last_modified().unwrap_or("never fetched");
        say!("{}  {registered}  {}  {date}", held.id(), held.url());
    }
}

/// Finds the pass on the phone that the words name.
fn find(phone: &Phone, words: &[String]) -> Result<PassId, Failure> {
    let held: Vec<PassId> = phone
        .list()
        .iter()
        .map(passkit_conformance::phone::HeldPass::id)
        .collect();
    let named: Vec<&PassId> = match words {
        [] => held.iter().collect(),
        [serial] => held
            .iter()
            .filter(|pass| pass.serial.as_str() == serial)
            .collect(),
        [type_id, serial, ..] => held
            .iter()
            .filter(|pass| pass.type_id.as_str() == type_id && pass.serial.as_str() == serial)
            .collect(),
    };
    if let [pass] = named[..] {
        return Ok(pass.clone());
    }
    if let [file] = words
        && Path::new(file).is_file()
        && let Ok(archive) = Archive::check(&read_archive(Path::new(file))?, Rules::development())
        && held.contains(&archive.id)
    {
        return Ok(archive.id);
    }
    let choice: Vec<String> = held.iter().map(ToString::to_string).collect();
    Err(Failure::new(match choice.len() {
        0 => "there is no pass on the phone".to_owned(),
        _ => format!("which pass? the phone has: {}", choice.join(", ")),
    }))
}
