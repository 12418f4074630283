//! A template with its recipe and its certificate. It makes passes from rows.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use passkit_archive::{
    ArchiveBuilder, Findings, Level, MAX_ARCHIVE_BYTES, Report, Rules, Signer,
    template::{Draft, Template, TemplateError, TokenSecret},
};
use passkit_server::{
    AuthToken, PassId,
    identifiers::{Kind, SerialNumber, TypeIdentifier},
    text::{Chain, OneLine},
};

use super::{
    inputs::Seen,
    recipe::{self, Recipe, Serial, Token},
    row_error::{MakeError, RowError},
    table::{Columns, Row},
};
use crate::failure::Failure;

/// Makes passes or orders from rows. Threads can share a maker.
pub(crate) struct Maker {
    template: Template,
    /// The path of the template, for messages.
    path: PathBuf,
    recipe: Recipe,
    signer: Arc<Signer>,
    secret: Option<TokenSecret>,
    images: Option<PathBuf>,
}

/// A signed pass or order.
pub(crate) struct Made {
    /// Type and serial.
    pub(crate) pass: PassId,
    /// The content of the `.pkpass` or `.order` file.
    pub(crate) archive: Vec<u8>,
}

/// A pass that is filled in, but not checked or signed yet.
pub(crate) struct Filled<'a> {
    pub(crate) pass: PassId,
    pub(crate) token: Option<AuthToken>,
    maker: &'a Maker,
    draft: Draft<'a>,
    line: u64,
}

impl Maker {
    /// Opens a template. The passes are for the type and the team of the certificate.
    pub(crate) fn open(path: &Path, signer: Arc<Signer>) -> Result<Self, Failure> {
        let shown = OneLine::path(path);
        let opened = Template::open(path);
        let template = opened.map_err(|error| {
            let text = Chain(&error).to_string();
            // Errors about a file in the template name it already.
            if text.contains(&shown.to_string()) {
                Failure::new(text)
            } else {
                Failure::new(format!("{shown}: {text}"))
            }
        })?;
        if template.kind() != signer.type_id().kind() {
            let (has, wants) = match template.kind() {
                Kind::Pass => ("pass.json", "a Pass Type ID"),
                Kind::Order => ("order.json", "an Order Type ID"),
            };
            return Err(Failure::new(format!(
                "{shown}: has {has}, but the certificate is for {}; use the certificate of {wants}",
                signer.type_id()
            )));
        }
        let type_id = template.text(template.type_key());
        let type_id = type_id.map(TypeIdentifier::new).transpose();
        let type_id = type_id.map_err(|error| Failure::from_error(&shown, &error))?;
        let team = template.text("teamIdentifier").or_else(|| signer.team());
        signer
            .check_for(
                type_id.as_ref().unwrap_or(signer.type_id()),
                team.unwrap_or_default(),
            )
            .map_err(|error| {
                Failure::new(format!(
                    "{shown}: {error}, or remove {} and teamIdentifier from the template",
                    template.type_key()
                ))
            })?;
        let recipe = match template.recipe() {
            Some(text) => recipe::read(text, &template)
                .map_err(|error| Failure::new(format!("{}:{error}", recipe_of(path))))?,
            None => Recipe::of_columns(&template),
        };
        Ok(Self {
            template,
            path: path.to_owned(),
            recipe,
            signer,
            secret: None,
            images: None,
        })
    }

    /// Derives tokens from this secret.
    pub(crate) fn with_secret(mut self, secret: TokenSecret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Allows images in this folder.
    pub(crate) fn with_images(mut self, folder: &Path) -> Result<Self, Failure> {
        let folder = folder.canonicalize().map_err(|error| {
            Failure::new(format!("can't read {}: {error}", OneLine::path(folder)))
        })?;
        self.images = Some(folder);
        Ok(self)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.template.kind()
    }

    pub(crate) fn type_id(&self) -> &TypeIdentifier {
        self.signer.type_id()
    }

    pub(super) fn shared_signer(&self) -> Arc<Signer> {
        self.signer.clone()
    }

    pub(crate) fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Returns whether the template says which columns to use.
    pub(crate) fn has_recipe(&self) -> bool {
        self.template.recipe().is_some()
    }

    /// Returns whether phones update the passes.
    pub(crate) fn has_web_service(&self) -> bool {
        self.recipe.sets("/webServiceURL") || self.template.text("webServiceURL").is_some()
    }

    /// Returns whether passes offer rewards enrolment, and rows can say that a pass is enrolled.
    pub(super) fn can_enrol(&self) -> bool {
        self.template.offers_enrolment() && self.recipe.can_enrol()
    }

    /// Checks that a row does not end the enrolment of a pass whose file has this manifest. Its customer
    /// would lose a personal pass, for example because the table does not have the new values yet.
    pub(super) fn check_still_enrolled(&self, row: &Row, manifest: &[u8]) -> Result<(), RowError> {
        let name = b"\"personalization.json\"";
        if !self.can_enrol() || manifest.windows(name.len()).any(|part| part == name) {
            return Ok(());
        }
        self.recipe.check_enrolled(row)
    }

    /// Checks that a row is for this pass, and that the pass was enrolled.
    pub(super) fn check_enrolled(&self, row: &Row, pass: &PassId) -> Result<(), RowError> {
        let found = self.pass(row)?;
        if found != *pass {
            let message = format!("is for the pass {}, not for {}", found.serial, pass.serial);
            return Err(RowError::new(row.line, message));
        }
        self.recipe.check_enrolled(row)
    }

    /// Returns whether tokens are derived from a secret, for a table with these columns.
    pub(crate) fn needs_secret(&self, columns: Option<&Columns>) -> bool {
        let is_derived = match self.recipe.token {
            Token::Secret => true,
            Token::Text(_) => false,
            Token::Column(name) => !columns.is_some_and(|columns| columns.contains(name)),
        };
        is_derived && self.has_web_service()
    }

    /// Returns whether the token of a row is derived from the secret.
    pub(super) fn is_derived(&self, row: &Row) -> bool {
        match self.recipe.token {
            Token::Secret => true,
            Token::Text(_) => false,
            Token::Column(name) => !row.has(name),
        }
    }

    /// Checks that a table has all columns that the template needs.
    pub(crate) fn check_columns(&self, columns: &Columns) -> Result<(), Failure> {
        let text = self.template.recipe().unwrap_or_default();
        let text = std::str::from_utf8(text).unwrap_or_default();
        self.recipe.check_columns(columns, text).map_err(|error| {
            if self.has_recipe() {
                Failure::new(format!("{}:{error}", recipe_of(&self.path)))
            } else {
                Failure::new(format!(
                    "{}: {}",
                    OneLine::path(&self.path),
                    error.message()
                ))
            }
        })
    }

    /// Returns the columns that the template does not use.
    pub(crate) fn unused<'a>(&self, columns: &'a Columns) -> Vec<&'a str> {
        let used = self.recipe.used_columns();
        columns
            .names()
            .filter(|name| !used.contains(name))
            .collect()
    }

    /// Makes and signs the pass for a row.
    pub(crate) fn make(&self, row: &Row, seen: &Seen) -> Result<Made, MakeError> {
        self.fill(row, seen)?.sign()
    }

    /// Signs a pass that is filled in. If this fails, no other pass can be signed either, because the
    /// certificate has expired or the key does not work.
    pub(super) fn sign(&self, builder: &ArchiveBuilder) -> Result<Vec<u8>, Failure> {
        let signed = builder.build_signed(&self.signer);
        signed.map_err(|error| Failure::from_error("can't sign the passes", &error))
    }

    /// Fills in the pass for a row. `seen` gets the images that it names.
    pub(crate) fn fill(&self, row: &Row, seen: &Seen) -> Result<Filled<'_>, RowError> {
        let pass = self.pass(row)?;
        let token = self.token(row, &pass)?;
        let mut draft = self
            .template
            .fill()
            .set(
                &format!("/{}", self.template.type_key()),
                self.type_id().as_str(),
            )
            .serial(pass.serial.as_str());
        if let Some(team) = self.signer.team() {
            draft = draft.set("/teamIdentifier", team);
        }
        if let Some(token) = &token {
            draft = draft.set("/authenticationToken", token.as_str());
        }
        let draft = self
            .recipe
            .fill(draft, row, |path| self.image(path, seen))?;
        Ok(Filled {
            pass,
            token,
            maker: self,
            draft,
            line: row.line,
        })
    }

    /// Returns the identity of the pass for a row.
    pub(crate) fn pass(&self, row: &Row) -> Result<PassId, RowError> {
        let wrong = |column: Option<&str>, message: String| match column {
            Some(column) => RowError::in_column(row.line, column, message),
            None => RowError::new(row.line, message),
        };
        let serial = match &self.recipe.serial {
            Serial::Text(text) => {
                let serial = text.fill(row)?;
                SerialNumber::new(&serial).map_err(|error| text.error(row, error.to_string()))?
            }
            Serial::Column(names) => {
                let name = names.iter().copied().find(|name| row.has(name));
                let Some(name) = name else {
                    let message = format!("has no {}; add the serial number", names.join(" or "));
                    return Err(wrong(None, message));
                };
                let serial = SerialNumber::new(row.cell(name)?);
                serial.map_err(|error| wrong(Some(name), error.to_string()))?
            }
        };
        Ok(PassId {
            type_id: self.type_id().clone(),
            serial,
        })
    }

    fn token(&self, row: &Row, pass: &PassId) -> Result<Option<AuthToken>, RowError> {
        // Messages never contain the token.
        match &self.recipe.token {
            _ if !self.has_web_service() => Ok(None),
            Token::Text(text) => {
                let token = AuthToken::new(&text.fill(row)?);
                token
                    .map(Some)
                    .map_err(|error| text.error(row, error.to_string()))
            }
            Token::Column(name) if row.has(name) => {
                let token = AuthToken::new(row.cell(name)?);
                token
                    .map(Some)
                    .map_err(|error| RowError::in_column(row.line, name, error.to_string()))
            }
            Token::Secret | Token::Column(_) => {
                let Some(secret) = &self.secret else {
                    return Err(RowError::new(
                        row.line,
                        "needs a secret for its token; name one with --token-secret",
                    ));
                };
                let token = secret.token(pass);
                token
                    .map(Some)
                    .map_err(|error| RowError::new(row.line, error.to_string()))
            }
        }
    }

    /// Reads an image. Its path must lead to a file in the folder of the table.
    fn image(&self, path: &str, seen: &Seen) -> Result<Vec<u8>, String> {
        let shown = OneLine::of(path).to_string();
        let wrong = |message: &str| format!("{shown:?} {message}");
        let Some(folder) = &self.images else {
            return Err(wrong(
                "is a file, but the rows have no folder; use a table in a file",
            ));
        };
        let outside = || wrong("is outside the folder of the table; put the image into it");
        let is_plain = |part| {
            matches!(
                part,
                std::path::Component::Normal(_) | std::path::Component::CurDir
            )
        };
        if !Path::new(path).components().all(is_plain) {
            return Err(outside());
        }
        seen.add(&folder.join(path));
        let unreadable = |error: std::io::Error| wrong(&format!("can't be read: {error}"));
        let file = folder.join(path).canonicalize().map_err(unreadable)?;
        if !file.starts_with(folder) {
            return Err(outside());
        }
        if !fs::metadata(&file).map_err(unreadable)?.is_file() {
            return Err(wrong("is not a file"));
        }
        let mut png = Vec::new();
        let limit = MAX_ARCHIVE_BYTES;
        let file = File::open(file).map_err(unreadable)?;
        file.take(limit as u64 + 1)
            .read_to_end(&mut png)
            .map_err(unreadable)?;
        if png.len() > limit {
            return Err(wrong("is larger than a pass may be (15 MiB)"));
        }
        Ok(png)
    }
}

impl Filled<'_> {
    /// Returns the `manifest.json` that the archive will have.
    pub(crate) fn manifest(&mut self) -> Result<Vec<u8>, RowError> {
        self.draft
            .manifest()
            .map_err(|error| refusal(self.line, &error))
    }

    /// Checks and signs the pass.
    pub(crate) fn sign(self) -> Result<Made, MakeError> {
        let line = self.line;
        let builder = self.draft.finish();
        let builder = builder.map_err(|error| refusal(line, &error))?;
        let archive = self.maker.sign(&builder)?;
        if archive.len() > MAX_ARCHIVE_BYTES {
            let message = "makes a pass of more than 15 MiB; use smaller images";
            return Err(RowError::new(line, message).into());
        }
        Ok(Made {
            pass: self.pass,
            archive,
        })
    }

    /// Checks the pass without signing it.
    pub(crate) fn check(self) -> Result<(), RowError> {
        let line = self.line;
        self.draft
            .finish()
            .map(drop)
            .map_err(|error| refusal(line, &error))
    }
}

impl Made {
    /// Returns what `passkit check` finds, without notes.
    pub(crate) fn findings(&self) -> Findings {
        Report::of(&self.archive, Rules::strict())
            .findings
            .at_least(Level::Warning)
    }
}

fn refusal(line: u64, error: &TemplateError) -> RowError {
    match error {
        TemplateError::Pass(findings) => {
            let found: Vec<String> = findings.iter().map(ToString::to_string).collect();
            RowError::refused(
                line,
                format!("makes a pass that can't work: {}", found.join("; ")),
            )
        }
        error => RowError::new(line, error.to_string()),
    }
}

/// The name of the recipe in a template, for messages.
fn recipe_of(template: &Path) -> String {
    OneLine::path(&template.join(recipe::FILE)).to_string()
}
