use std::{fmt, time::SystemTime};

use passkit_server::{AuthToken, PassId, identifiers::Kind};

use crate::{
    contents::{self, Contents, Part},
    dates,
    description::{self, Description},
    finding::{Finding, Findings},
    layout::{Layout, MANIFEST, PERSONALIZATION, SIGNATURE},
    manifest,
    rules::{self, Level},
    signature::{self, Required},
};

/// The parts that may be missing in an archive. By default, none may be missing.
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
}

impl Rules {
    /// Returns the rules of a phone.
    #[must_use]
    pub const fn strict() -> Self {
        Self {
            allow_unsigned: false,
        }
    }

    /// Returns rules for development, which require no signature.
    #[must_use]
    pub const fn development() -> Self {
        Self {
            allow_unsigned: true,
        }
    }
}

/// The content of an archive, and everything that was found in it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The archive, or `None` if it can't be read. In that case, a finding of the level
    /// [`Refused`](Level::Refused) says why.
    pub archive: Option<Archive>,
    /// The findings, the worst first.
    pub findings: Findings,
}

impl Report {
    /// Reads and checks the bytes of a `.pkpass` or `.order`. See [what is
    /// checked](crate#what-is-checked). Finds as many problems as possible. But if an archive can't
    /// be unpacked, nothing else in it is checked.
    #[must_use]
    pub fn of(bytes: &[u8], rules: Rules) -> Self {
        let mut findings = Vec::new();
        let archive = check(bytes, rules, &mut findings);
        Self {
            archive,
            findings: Findings::new(findings),
        }
    }
}

/// The description of an archive, as written in it.
///
/// `Debug` does not show the authentication token.
#[derive(Clone)]
#[non_exhaustive]
pub struct Archive {
    /// Type identifier and serial number, or order identifier.
    pub id: PassId,
    /// The team that signed: `teamIdentifier`. It is optional in orders and in unsigned archives.
    pub team_identifier: Option<String>,
    /// `organizationName` of a pass, `merchant.displayName` of an order.
    pub organization_name: Option<String>,
    /// The authentication token, which the pass shares with its web service. `None` if phones never
    /// update the pass.
    pub auth_token: Option<AuthToken>,
    /// The address where phones ask for updates: `webServiceURL`, unchanged. `None` if phones never
    /// ask.
    pub web_service_url: Option<String>,
    /// Whether the pass is marked as no longer valid. Always `false` for orders.
    pub voided: bool,
    /// When the pass stops being valid: `expirationDate`, in whole seconds. `None` for orders, and if
    /// there is no such date.
    pub expiration: Option<SystemTime>,
    /// Whether the archive has a signature.
    pub signed: bool,
    /// The SHA-256 over the names and contents of all files except `manifest.json` and `signature`.
    /// Files that macOS added are left out.
    ///
    /// The digest does not change if the same files are signed or zipped again. Its input has three
    /// parts for each file, in the order of the names: the length of the name in eight bytes
    /// (big-endian), the name, and the SHA-256 of the content.
    pub content_digest: [u8; 32],
}

impl Archive {
    /// Reads the bytes of a `.pkpass` or `.order`, if phones accept the archive. To get all
    /// findings, use [`Report::of`].
    ///
    /// # Errors
    /// Fails if there are findings of the level [`Refused`](Level::Refused). The error contains
    /// only these findings.
    pub fn check(bytes: &[u8], rules: Rules) -> Result<Self, Findings> {
        let Report { archive, findings } = Report::of(bytes, rules);
        let refused = findings.at_least(Level::Refused);
        match archive {
            Some(archive) if refused.is_empty() => Ok(archive),
            _ => Err(refused),
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
            .field("expiration", &self.expiration)
            .field("signed", &self.signed)
            .finish_non_exhaustive()
    }
}

/// Returns the archive if it can be read. Otherwise, a finding says why it can't.
fn check(bytes: &[u8], rules: Rules, findings: &mut Vec<Finding>) -> Option<Archive> {
    let mut contents = contents::read(bytes, findings)?;
    let needs_team = !(rules.allow_unsigned && matches!(contents.signature, Part::Missing));
    let description = match contents.description.take() {
        Some(text) => description::read(&contents, &text, needs_team, findings),
        None => Description::default(),
    };
    check_images(&contents, &description, findings);
    let signed = check_seal(&contents, &description, rules, findings);
    Some(Archive {
        id: description.id()?,
        team_identifier: description.team_identifier,
        organization_name: description.organization_name,
        auth_token: description.auth_token,
        web_service_url: description.web_service_url,
        voided: description.voided,
        expiration: description.expiration,
        signed,
        content_digest: contents.digest(),
    })
}

fn check_images(contents: &Contents, description: &Description, findings: &mut Vec<Finding>) {
    match (contents.kind, &description.logo) {
        (Kind::Pass, _) if !contents.has_image("icon") => findings.push(Finding::of_archive(
            &rules::ICON,
            "has no icon; add icon.png, icon@2x.png and icon@3x.png",
        )),
        (Kind::Order, Some(logo)) if !contents.has_image(logo) => {
            findings.push(Finding::of_archive(
                &rules::LOGO,
                format!("lacks the logo \"{logo}\" that order.json names; add the file"),
            ));
        }
        _ => {}
    }
}

/// Checks the manifest and the signature. Returns whether there is a signature.
fn check_seal(
    contents: &Contents,
    description: &Description,
    rules: Rules,
    findings: &mut Vec<Finding>,
) -> bool {
    let digest = Layout::of(contents.kind).digest;
    let is_sealed = !(rules.allow_unsigned && matches!(contents.signature, Part::Missing));
    let manifest = match &contents.manifest {
        Part::Present(manifest) => {
            manifest::check(manifest, contents, digest, findings);
            Some(&manifest[..])
        }
        Part::Unusable => None,
        Part::Missing => {
            let litter = contents.files.iter().filter(|file| file.litter.is_some());
            findings.extend(litter.map(|file| {
                let (rule, message) = manifest::macos();
                Finding::in_file(rule, &file.name, message)
            }));
            if is_sealed {
                findings.push(Finding::of_archive(
                    &rules::MANIFEST_MISSING,
                    format!(
                        "has no {MANIFEST}; add a manifest that lists the {} of every file",
                        digest.name()
                    ),
                ));
            }
            None
        }
    };
    match &contents.signature {
        Part::Present(signature) => {
            let required = Required {
                kind: contents.kind,
                description,
                needs_nfc: description.uses_nfc || contents.has(PERSONALIZATION),
                now: dates::now(),
            };
            signature::check(signature, manifest, &required, findings);
            true
        }
        // There is already a finding about the problem.
        Part::Unusable => true,
        Part::Missing => {
            if is_sealed {
                findings.push(Finding::of_archive(
                    &rules::SIGNATURE_MISSING,
                    format!("has no {SIGNATURE}; sign {MANIFEST}"),
                ));
            }
            false
        }
    }
}
