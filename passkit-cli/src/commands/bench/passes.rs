use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use http::HeaderValue;
use passkit_conformance::service::TargetFile;
use passkit_server::{
    AuthToken, PassId,
    identifiers::{Kind, TypeIdentifier},
    text::OneLine,
};

use crate::failure::Failure;

/// The greatest number of passes that a phone holds.
pub(super) const HELD: usize = 3;
/// The folder of passes if no option names one.
const DEFAULT_FOLDER: &str = "./passes";

/// Where the passes on the phones come from.
#[derive(Args)]
pub(crate) struct Sources {
    /// A folder with .pkpass files that the service serves. The phones hold these passes. Default:
    /// ./passes.
    #[arg(long, env = "PASSKIT_PASSES", value_name = "DIR")]
    passes: Option<PathBuf>,

    /// A folder with .order files that the service serves.
    #[arg(long, env = "PASSKIT_ORDERS", value_name = "DIR")]
    orders: Option<PathBuf>,

    /// A file that lists passes and orders with their tokens, as for passkit conformance run.
    #[arg(long, value_name = "FILE.toml")]
    target: Option<PathBuf>,
}

/// A pass that the service serves, with its credentials.
pub(super) struct Subject {
    pub(super) id: PassId,
    /// The complete value of the header.
    pub(super) authorization: HeaderValue,
}

/// The passes for the phones, by type.
pub(super) struct Passes(Vec<(TypeIdentifier, Vec<Arc<Subject>>)>);

impl Sources {
    /// Reads the passes, at most as many as `devices` phones can hold.
    pub(super) fn read(&self, devices: usize) -> Result<Passes, Failure> {
        let mut found = Found {
            wanted: devices.saturating_mul(HELD),
            ..Found::default()
        };
        if let Some(file) = &self.target {
            let target = TargetFile::load(file).map_err(Failure::new)?;
            target
                .subjects()
                .iter()
                .for_each(|(id, token)| found.add(id, token));
        }
        let is_named = self.target.is_some() || self.passes.is_some() || self.orders.is_some();
        let default = PathBuf::from(DEFAULT_FOLDER);
        if !is_named && !default.is_dir() {
            return Err(Failure::new(format!(
                "no passes for the phones: there is no folder {DEFAULT_FOLDER}; name one with --passes DIR, or a \
                 --target FILE.toml"
            )));
        }
        let passes = if is_named {
            self.passes.as_ref()
        } else {
            Some(&default)
        };
        for (kind, root) in [(Kind::Pass, passes), (Kind::Order, self.orders.as_ref())] {
            if let Some(root) = root {
                found.read(kind, root)?;
            }
        }
        if found.types.is_empty() {
            return Err(Failure::new(
                "no passes for the phones: the named folders and files contain no passes; name the folder that is served \
                with --passes DIR, or a --target FILE.toml",
            ));
        }
        Ok(Passes(found.types.into_iter().collect()))
    }
}

#[derive(Default)]
struct Found {
    wanted: usize,
    known: HashSet<PassId>,
    types: BTreeMap<TypeIdentifier, Vec<Arc<Subject>>>,
}

impl Found {
    fn read(&mut self, kind: Kind, root: &Path) -> Result<(), Failure> {
        let read = passkit_folder::read_archives(kind, root, |file, content| {
            let path = OneLine::path(file.path());
            match content {
                Ok(archive) => match &archive.auth_token {
                    Some(token) => self.add(&archive.id, token),
                    None => eprintln!("passkit: {path}: has no web service; left out"),
                },
                Err(problem) => {
                    eprintln!("passkit: {path}: {problem}; left out");
                }
            }
            self.known.len() < self.wanted
        });
        read.map_err(|error| Failure::new(format!("can't read {}: {error}", root.display())))
    }

    fn add(&mut self, id: &PassId, token: &AuthToken) {
        let text = format!("{} {}", id.type_id.kind().auth_scheme(), token.as_str());
        let Ok(mut authorization) = HeaderValue::try_from(text) else {
            eprintln!("passkit: {id}: its token has characters that a header can't have; left out");
            return;
        };
        authorization.set_sensitive(true);
        if self.known.insert(id.clone()) {
            let subject = Arc::new(Subject {
                id: id.clone(),
                authorization,
            });
            self.types
                .entry(id.type_id.clone())
                .or_default()
                .push(subject);
        }
    }
}

impl Passes {
    /// Returns the number of passes.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|(_, passes)| passes.len()).sum()
    }

    /// Returns the passes on a phone. All of them have the same type. Types and passes are assigned
    /// to the phones in turn.
    pub(super) fn held_by(
        &self,
        phone: usize,
    ) -> (&TypeIdentifier, impl Iterator<Item = &Arc<Subject>>) {
        let (type_id, passes) = &self.0[phone % self.0.len()];
        let first = phone / self.0.len() * HELD;
        (
            type_id,
            (0..HELD.min(passes.len())).map(move |next| &passes[(first + next) % passes.len()]),
        )
    }
}
