//! The only place where the phone reads archives.

use passkit_archive::{Archive, Findings, PassFiles, Rules};
use passkit_server::{AuthToken, PassId};

/// What a phone needs to know about a pass.
pub(super) struct ReadPass {
    pub(super) id: PassId,
    /// `None` if the pass has no web service. `web_service_url` is then `None` too.
    pub(super) auth_token: Option<AuthToken>,
    pub(super) web_service_url: Option<String>,
    pub(super) offers_enrolment: bool,
    /// Equal for equal content, even if it was signed again.
    pub(super) digest: String,
}

/// Reads an archive and checks its digests and its signature.
pub(super) fn read(bytes: &[u8], rules: Rules) -> Result<ReadPass, Findings> {
    let archive = Archive::check(bytes, rules)?;
    let files = PassFiles::of_archive(bytes);
    Ok(ReadPass {
        offers_enrolment: files.is_ok_and(|files| files.get("personalization.json").is_some()),
        digest: archive
            .content_digest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        id: archive.id,
        auth_token: archive.auth_token,
        web_service_url: archive.web_service_url,
    })
}
