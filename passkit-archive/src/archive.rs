use std::fmt;

use passkit_server::{AuthToken, PassId, identifiers::Kind};
use serde_json::Value;

use crate::{
    contents::{self, Contents, Part},
    description::{self, Description},
    layout::{Layout, MANIFEST, SIGNATURE},
    manifest,
    problem::{Problem, Problems},
    signature,
};

/// What may be missing in an archive. By default, nothing.
///
/// ```
/// use passkit_archive::Rules;
///
/// let mut rules = Rules::default();
/// rules.allow_unsigned = true;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rules {
    /// Accept an archive without signature, or without manifest and signature. Parts that are
    /// present must still be right.
    pub allow_unsigned: bool,
    /// Accept a `webServiceURL` that starts with `http://`. Phones do so if a switch in their
    /// developer settings is on.
    pub allow_http: bool,
}

impl Rules {
    /// The rules of a phone.
    #[must_use]
    pub const fn strict() -> Self {
        Self {
            allow_unsigned: false,
            allow_http: false,
        }
    }

    /// Rules for development: neither a signature nor TLS is required.
    #[must_use]
    pub const fn development() -> Self {
        Self {
            allow_unsigned: true,
            allow_http: true,
        }
    }
}

/// An archive that passed the check.
///
/// `Debug` shows neither the authentication token nor the description, which repeats it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Archive {
    /// Type identifier and serial number, or order identifier.
    pub id: PassId,
    /// The team that signs: `teamIdentifier`. It is optional in orders and in unsigned archives.
    pub team_identifier: Option<String>,
    /// `organizationName` of a pass, `merchant.displayName` of an order.
    pub organization_name: String,
    /// The secret that the pass shares with its web service.
    pub auth_token: AuthToken,
    /// Where phones ask for updates: `webServiceURL`, unchanged.
    pub web_service_url: String,
    /// Whether the pass is marked as no longer valid. Always `false` for orders.
    pub voided: bool,
    /// Whether the archive has a signature. If so, the signature was verified.
    pub signed: bool,
    /// The SHA-256 over the names and contents of all files except `manifest.json` and `signature`.
    ///
    /// It does not change if the same files are signed or zipped again. The input has, for each
    /// file in the order of the names: the length of the name in eight bytes (big-endian), the
    /// name, and the SHA-256 of the content.
    pub content_digest: [u8; 32],
    /// The content of `pass.json` or `order.json`.
    pub description: Value,
}

impl Archive {
    /// Reads and checks the bytes of a `.pkpass` or `.order`. See [what is
    /// checked](crate#what-is-checked).
    ///
    /// # Errors
    /// Returns all problems that can be found. In an archive that can't be unpacked, for example,
    /// nothing else is checked.
    pub fn check(bytes: &[u8], rules: Rules) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let archive = check(bytes, rules, &mut problems);
        match archive {
            Some(archive) if problems.is_empty() => Ok(archive),
            _ => Err(Problems::new(problems)),
        }
    }

    /// Returns whether this is a pass or an order.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.id.type_id.kind()
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive")
            .field("id", &self.id)
            .field("team_identifier", &self.team_identifier)
            .field("organization_name", &self.organization_name)
            .field("web_service_url", &self.web_service_url)
            .field("voided", &self.voided)
            .field("signed", &self.signed)
            .finish_non_exhaustive()
    }
}

/// Returns the archive, if it has all parts that are needed. It is good only if no problem was
/// found.
fn check(bytes: &[u8], rules: Rules, problems: &mut Vec<Problem>) -> Option<Archive> {
    let contents = contents::read(bytes, problems)?;
    let needs_team = !(rules.allow_unsigned && matches!(contents.signature, Part::Missing));
    let description = match &contents.description {
        Some(bytes) => description::read(contents.kind, bytes, rules, needs_team, problems),
        None => Description::default(),
    };
    let signed = check_seal(&contents, &description, rules, problems);
    Some(Archive {
        id: description.id()?,
        team_identifier: description.team_identifier,
        organization_name: description.organization_name?,
        auth_token: description.auth_token?,
        web_service_url: description.web_service_url?,
        voided: description.voided,
        signed,
        content_digest: contents.digest(),
        description: Value::Object(description.json),
    })
}

/// Checks manifest and signature. Returns whether there is a signature.
fn check_seal(
    contents: &Contents,
    description: &Description,
    rules: Rules,
    problems: &mut Vec<Problem>,
) -> bool {
    match &contents.manifest {
        Part::Present(manifest) => {
            manifest::check(
                manifest,
                contents,
                Layout::of(contents.kind).digest,
                problems,
            );
        }
        Part::Unusable => {}
        Part::Missing if rules.allow_unsigned && matches!(contents.signature, Part::Missing) => {}
        Part::Missing => problems.push(Problem::of_archive(format!(
            "has no {MANIFEST}; add one that lists the {} of every file",
            Layout::of(contents.kind).digest.name()
        ))),
    }
    match (&contents.signature, &contents.manifest) {
        (Part::Present(signature), Part::Present(manifest)) => {
            match signature::verify(signature, manifest) {
                Ok(signer) => check_signer(&signer, contents.kind, description, problems),
                Err(error) => problems.push(Problem::in_file(SIGNATURE, error.to_string())),
            }
            true
        }
        (Part::Missing, _) => {
            if !rules.allow_unsigned {
                problems.push(Problem::of_archive(format!(
                    "has no {SIGNATURE}; sign {MANIFEST}"
                )));
            }
            false
        }
        // One of the two already has a problem.
        (Part::Present(_) | Part::Unusable, _) => true,
    }
}

/// Checks that the certificate is for this type and team.
fn check_signer(
    signer: &signature::Subject,
    kind: Kind,
    description: &Description,
    problems: &mut Vec<Problem>,
) {
    let layout = Layout::of(kind);
    let file = layout.description_file;
    if let Some(type_id) = &description.type_id
        && signer.user_id.as_deref() != Some(type_id.as_str())
    {
        let certified = signer.user_id.as_deref().unwrap_or_default();
        problems.push(Problem::in_file(
            SIGNATURE,
            format!(
                "is by a certificate for \"{certified}\" (its UID), but {} in {file} is \"{type_id}\"; \
                 sign with the certificate of that type",
                layout.type_key
            ),
        ));
    }
    if let Some(team) = &description.team_identifier
        && !signer.units.contains(team)
    {
        let certified = signer.units.join("\", \"");
        problems.push(Problem::in_file(
            SIGNATURE,
            format!(
                "is by a certificate of the team \"{certified}\" (its OU), but teamIdentifier in {file} is \
                 \"{team}\"; write the team of the certificate there"
            ),
        ));
    }
}
