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

/// What an archive may lack. The default is strict: nothing.
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
    /// Accept an archive without signature, or without manifest and signature. Those that are there must be right.
    pub allow_unsigned: bool,
    /// Accept a `webServiceURL` that starts with `http://`, as phones do when a switch in their developer settings
    /// is on.
    pub allow_http: bool,
}

impl Rules {
    /// What a phone demands of a pass from a stranger.
    #[must_use]
    pub const fn strict() -> Self {
        Self { allow_unsigned: false, allow_http: false }
    }

    /// For development: no signature and no TLS are needed.
    #[must_use]
    pub const fn development() -> Self {
        Self { allow_unsigned: true, allow_http: true }
    }
}

/// An archive that was checked and found good.
///
/// `Debug` shows neither the authentication token nor the description, which repeats it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Archive {
    /// Type identifier and serial number, or order identifier.
    pub id: PassId,
    /// The team that signs: `teamIdentifier`. Orders need not say it, nor need what is unsigned.
    pub team_identifier: Option<String>,
    /// `organizationName` of a pass, `merchant.displayName` of an order.
    pub organization_name: String,
    /// The secret that the pass shares with its web service.
    pub auth_token: AuthToken,
    /// Where phones ask for updates: `webServiceURL`, as it stands there.
    pub web_service_url: String,
    /// Whether the pass is marked as no longer valid. Orders have no such mark.
    pub voided: bool,
    /// Whether there is a signature; then it was verified.
    pub signed: bool,
    /// A SHA-256 of the names and contents of all files other than `manifest.json` and `signature`.
    ///
    /// Equal exactly if those are: signing or zipping the same files again does not change it. For each file, sorted by
    /// name: the length of the name in eight bytes (big-endian), the name, the SHA-256 of the content.
    pub content_digest: [u8; 32],
    /// All of `pass.json` or `order.json`.
    pub description: Value,
}

impl Archive {
    /// Reads the bytes of a `.pkpass` or `.order` and checks them; see [what is checked](crate#what-is-checked).
    ///
    /// # Errors
    /// Everything that is wrong, as far as it can be seen: in an archive that cannot be unpacked, for instance, nothing
    /// else can.
    pub fn check(bytes: &[u8], rules: Rules) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let archive = check(bytes, rules, &mut problems);
        match archive {
            Some(archive) if problems.is_empty() => Ok(archive),
            _ => Err(Problems::new(problems)),
        }
    }

    /// Whether this is a pass or an order.
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

/// The archive, if enough of it is there for one. It is good only if no problem came up.
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

/// Checks manifest and signature. Says whether there is a signature.
fn check_seal(
    contents: &Contents,
    description: &Description,
    rules: Rules,
    problems: &mut Vec<Problem>,
) -> bool {
    match &contents.manifest {
        Part::Present(manifest) => {
            manifest::check(manifest, contents, Layout::of(contents.kind).digest, problems);
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
                problems.push(Problem::of_archive(format!("has no {SIGNATURE}; sign {MANIFEST}")));
            }
            false
        }
        // Then there is a problem already, with one of the two.
        (Part::Present(_) | Part::Unusable, _) => true,
    }
}

/// Checks that the certificate is the one for this type and team.
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
