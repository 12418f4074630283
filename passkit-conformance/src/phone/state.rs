use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use passkit_server::{
    AuthToken, PassId,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
    private_files,
};
use serde::{Deserialize, Serialize};

use super::Error;
use crate::random_hex;

/// What a phone remembers. Its serialised form contains secrets in clear text. Its `Debug` output
/// does not.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    #[serde(with = "text")]
    pub(super) push_token: PushToken,
    #[serde(default)]
    pub(super) services: Vec<Service>,
    #[serde(default)]
    pub(super) passes: Vec<HeldPass>,
}

/// What a phone remembers about one type of passes at one web service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    pub(super) url: String,
    #[serde(with = "text")]
    pub(super) type_id: TypeIdentifier,
    #[serde(with = "text")]
    pub(super) device: DeviceIdentifier,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tag: Option<String>,
}

/// A pass on the phone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldPass {
    #[serde(with = "text")]
    pub(super) type_id: TypeIdentifier,
    #[serde(with = "text")]
    pub(super) serial: SerialNumber,
    #[serde(with = "text")]
    pub(super) auth_token: AuthToken,
    pub(super) url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_modified: Option<String>,
    pub(super) registered: bool,
    pub(super) digest: String,
    pub(super) fetch_pending: bool,
    #[serde(default)]
    pub(super) offers_enrolment: bool,
}

impl State {
    /// Makes a new phone with a random push token and no passes.
    ///
    /// # Errors
    /// Fails if the system has no random numbers.
    pub fn new() -> Result<Self, Error> {
        let push_token = loop {
            // Hexadecimal digits are always a valid push token, so the loop runs once.
            if let Ok(token) = PushToken::new(&random_hex::<32>().map_err(Error::Random)?) {
                break token;
            }
        };
        Ok(Self {
            push_token,
            services: Vec::new(),
            passes: Vec::new(),
        })
    }

    /// The phone's push token. [`State::new`] makes it from 64 hexadecimal digits.
    #[must_use]
    pub fn push_token(&self) -> &PushToken {
        &self.push_token
    }

    /// Gives the phone another push token. The service learns of it when the phone registers again.
    pub fn set_push_token(&mut self, push_token: PushToken) {
        self.push_token = push_token;
    }

    /// What the phone remembers about each web service and type.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The passes on the phone, in the order in which they were added.
    #[must_use]
    pub fn passes(&self) -> &[HeldPass] {
        &self.passes
    }

    /// Reads a state that [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// Fails if the file can't be read or does not contain a state.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = fs::read(path).map_err(|source| file_error("read", path, source))?;
        serde_json::from_slice(&text).map_err(|error| Error::StateFormat {
            path: path.to_owned(),
            line: error.line().max(1),
        })
    }

    /// Writes the state as JSON into a file that only its owner can read. An existing file is
    /// replaced in one step, so after a crash the file has the old or the new state.
    ///
    /// # Errors
    ///
    /// Fails if the file, or a temporary file in the same folder, can't be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let wrong = |source| file_error("write", path, source);
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| wrong(error.into()))?;
        text.push(b'\n');
        let beside = private_files::beside(path).map_err(wrong)?;
        let written = write_new(&beside, &text).and_then(|()| fs::rename(&beside, path));
        written.map_err(|source| {
            // If the temporary file can't be removed, the write error is still the one to report.
            let _ = fs::remove_file(&beside);
            wrong(source)
        })
    }

    pub(super) fn find(&self, pass: &PassId) -> Option<&HeldPass> {
        self.passes.iter().find(|held| held.is(pass))
    }

    pub(super) fn find_mut(&mut self, pass: &PassId) -> Option<&mut HeldPass> {
        self.passes.iter_mut().find(|held| held.is(pass))
    }

    /// Returns the service of the type at `url`. If there is none, makes one with a new device
    /// identifier and no tag.
    pub(super) fn service(
        &mut self,
        url: &str,
        type_id: &TypeIdentifier,
    ) -> Result<&mut Service, Error> {
        let known = self
            .services
            .iter()
            .position(|one| one.url == url && one.type_id == *type_id);
        let at = match known {
            Some(at) => at,
            None => {
                let device = loop {
                    // Hexadecimal digits are always a valid identifier, so the loop runs once.
                    if let Ok(device) =
                        DeviceIdentifier::new(&random_hex::<16>().map_err(Error::Random)?)
                    {
                        break device;
                    }
                };
                let (url, type_id) = (url.to_owned(), type_id.clone());
                self.services.push(Service {
                    url,
                    type_id,
                    device,
                    tag: None,
                });
                self.services.len() - 1
            }
        };
        Ok(&mut self.services[at])
    }
}

impl Service {
    /// The web service URL from the pass.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The type of the passes.
    #[must_use]
    pub fn type_id(&self) -> &TypeIdentifier {
        &self.type_id
    }

    /// The phone's identifier at this service.
    #[must_use]
    pub fn device(&self) -> &DeviceIdentifier {
        &self.device
    }

    /// The update tag of the last list answer.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
}

impl HeldPass {
    pub(super) fn new(id: PassId, auth_token: AuthToken, url: String, digest: String) -> Self {
        let PassId { type_id, serial } = id;
        Self {
            type_id,
            serial,
            auth_token,
            url,
            last_modified: None,
            registered: false,
            digest,
            fetch_pending: false,
            offers_enrolment: false,
        }
    }

    pub(super) fn is(&self, pass: &PassId) -> bool {
        self.serial == pass.serial && self.type_id == pass.type_id
    }

    /// The type and serial number.
    #[must_use]
    pub fn id(&self) -> PassId {
        PassId {
            type_id: self.type_id.clone(),
            serial: self.serial.clone(),
        }
    }

    /// The authentication token of the pass.
    #[must_use]
    pub fn auth_token(&self) -> &AuthToken {
        &self.auth_token
    }

    /// The web service URL of the pass.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The `Last-Modified` of the last fetch, byte for byte.
    #[must_use]
    pub fn last_modified(&self) -> Option<&str> {
        self.last_modified.as_deref()
    }

    /// Returns whether the service accepted the registration.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.registered
    }

    /// The digest of the content on the phone, in hexadecimal. Equal content has equal digests.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Returns whether the phone still has to fetch a change.
    #[must_use]
    pub fn is_fetch_pending(&self) -> bool {
        self.fetch_pending
    }

    /// Returns whether the version on the phone offers rewards enrolment: whether it contains
    /// `personalization.json`.
    #[must_use]
    pub fn offers_enrolment(&self) -> bool {
        self.offers_enrolment
    }
}

fn file_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::StateFile {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Writes a file that must not exist.
fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = private_files::create_new(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Identifiers as JSON strings.
mod text {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<T: AsRef<str>, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(value.as_ref())
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_its_file_and_shows_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("phone.json");
        let mut state = State::new().unwrap();
        let pass = PassId::new("pass.t", "A/1").unwrap();
        let token = AuthToken::new("0123456789abcdef").unwrap();
        state.service("https://h/", &pass.type_id).unwrap().tag = Some("\"odd\" tag".into());
        state.passes.push(HeldPass::new(
            pass.clone(),
            token,
            "https://h/".into(),
            "d1".into(),
        ));
        state.save(&path).unwrap();
        state.passes[0].last_modified = Some("Fri, 18 Sep 2026 08:00:41 GMT".into());
        state.save(&path).unwrap();

        let read = State::load(&path).unwrap();
        assert_eq!(
            serde_json::to_value(&read).unwrap(),
            serde_json::to_value(&state).unwrap()
        );
        assert_eq!(read.push_token().as_str().len(), 64);
        assert_eq!(read.services()[0].device().as_str().len(), 32);
        assert_eq!(
            read.find(&pass).unwrap().last_modified(),
            Some("Fri, 18 Sep 2026 08:00:41 GMT")
        );
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no other file is left in the folder"
        );
        let shown = format!("{state:?}");
        for secret in [
            state.push_token.as_str(),
            "0123456789abcdef",
            state.services[0].device.as_str(),
        ] {
            assert!(!shown.contains(secret), "{shown}");
        }
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_error_is_one_line_with_the_file_and_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("no").join("phone.json");
        for error in [
            State::load(&path).unwrap_err(),
            State::new().unwrap().save(&path).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(
                text.contains("phone.json")
                    && text.contains("No such file")
                    && !text.contains('\n'),
                "{text}"
            );
        }
        let path = folder.path().join("phone.json");
        fs::write(&path, "{\"pushToken\":\"z z\"}").unwrap();
        let text = State::load(&path).unwrap_err().to_string();
        assert!(
            text.contains("phone.json") && text.contains("line 1 ") && !text.contains("z z"),
            "{text}"
        );
    }
}
