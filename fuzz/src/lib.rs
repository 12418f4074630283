//! The fuzzed code, as functions of bytes. `fuzz_targets` gives these functions to libFuzzer, and `tests/replay.rs` calls
//! them with their corpora.
//!
//! No function may panic. Assertions check everything else that must hold.

use std::io::Write as _;

// `passkit` is not a library, so this includes its file.
#[allow(dead_code, clippy::duplicate_mod)]
#[path = "../../passkit-cli/src/commands/csv.rs"]
mod csv;
#[allow(dead_code)]
#[path = "../../passkit-cli/src/failure.rs"]
mod failure;

/// What `passkit make` reads.
#[allow(dead_code, unused_imports)]
#[path = "../../passkit-cli/src/making"]
mod making {
    mod dates;
    mod recipe;
    mod row_error;
    mod table;

    use std::io::Cursor;

    use passkit_archive::template::{Style, Template};
    use serde_json::json;

    use self::{
        recipe::Recipe,
        row_error::RowError,
        table::{Row, Table},
    };

    fn template() -> Template {
        let field = |key: &str, style: &str| json!({ "key": key, "value": "", style: "x" });
        let bare = Template::new(Style::StoreCard);
        bare.fill()
            .set("/storeCard/primaryFields/-", field("name", "label"))
            .set("/storeCard/primaryFields/-", field("points", "numberStyle"))
            .set("/storeCard/backFields/-", field("until", "dateStyle"))
            .set("/barcodes/-", json!({ "message": "sample" }))
            .into_template()
            .expect("a template")
    }

    fn fill(recipe: &Recipe, template: &Template, row: &Row) -> Result<Vec<u8>, RowError> {
        let no_image = |_: &str| Err("is no image".into());
        let mut draft = recipe.fill(template.fill(), row, no_image)?;
        Ok(draft.manifest().expect("no step has a problem"))
    }

    fn check(error: &RowError) {
        let line = error.to_string();
        assert!(!line.contains(char::is_control), "an error is one line");
    }

    /// Reads any bytes as a table, and fills in its rows.
    pub(super) fn table(input: &[u8]) {
        let reader = Box::new(Cursor::new(input.to_vec()));
        let Ok(mut table) = Table::read("table".into(), reader, None, None) else {
            return;
        };
        let template = template();
        let recipe = Recipe::of_columns(&template);
        let mut last = 0;
        while let Some(row) = table.next().expect("memory can be read") {
            let line = match row {
                Ok(row) => {
                    fill(&recipe, &template, &row).err().iter().for_each(check);
                    assert!(row.size() <= 64 * table::MAX_ROW_BYTES);
                    row.line
                }
                Err(error) => {
                    check(&error);
                    error.line
                }
            };
            assert!(line > last, "each row begins on another line");
            last = line;
        }
        // A byte order mark and a line with the separator are not counted.
        assert!(table.bytes <= input.len() as u64);
    }

    /// Reads any text as `passkit.toml`. The row comes after a zero byte.
    pub(super) fn recipe(input: &[u8]) {
        let mut parts = input.splitn(2, |byte| *byte == 0);
        let text = parts.next().unwrap_or_default();
        let row = parts
            .next()
            .unwrap_or(br#"{"id":"1","name":"A","points":"2","until":"2030-01-01"}"#);
        let template = template();
        let recipe = match recipe::read(text, &template) {
            Ok(recipe) => recipe,
            Err(error) => {
                let line = error.to_string();
                assert!(!line.contains(char::is_control), "an error is one line");
                return;
            }
        };
        if let Ok(row) = Row::of_json(1, row) {
            fill(&recipe, &template, &row).err().iter().for_each(check);
        }
    }
}

use http_body_util::{BodyExt as _, Empty};
use passkit_archive::{
    Archive, ArchiveBuilder, Bundle, Level, PassFiles, Report, Rules, placeholder_icon,
};
use passkit_conformance::{load::ListAnswer, service::TargetFile};
use passkit_identity::{Identity, pem};
use passkit_picture::{Drawing, MAX_SVG_BYTES, Side};
use passkit_server::{
    ArchiveBody, AuthToken, Credentials, PassId, PassSource, PassState, SourceError, WalletService,
    async_trait,
    identifiers::Kind,
    store::{MemoryStore, UpdateTag},
};
use tower_service::Service as _;

/// Reads any bytes as an archive. Also reads them as a bundle, with the passes in it.
pub fn archive(input: &[u8]) {
    report(input);
    if let Some(mut bundle) = Bundle::open(input) {
        bundle.passes().take(3).for_each(|(_, pass)| report(&pass));
    }
}

fn report(input: &[u8]) {
    for rules in [Rules::strict(), Rules::development()] {
        let Report {
            archive, findings, ..
        } = Report::of(input, rules);
        let refused = findings.worst() == Some(Level::Refused);
        assert!(
            archive.is_some() || refused,
            "what can't be read has a finding"
        );
        assert_eq!(Archive::check(input, rules).is_err(), refused);
        let shown = findings.to_string();
        assert_eq!(
            shown.lines().count(),
            findings.len(),
            "each finding is a line"
        );
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'));
    }
}

/// Reads any bytes as the `pass.json` of an archive.
pub fn json(input: &[u8]) {
    for kind in Kind::ALL {
        let builder = ArchiveBuilder::new(kind, input).file("icon.png", placeholder_icon(1));
        report(&builder.build_unsigned().expect("a small archive"));
    }
}

/// Draws any bytes as the `pass.json` of a pass, and as its logo and its translations.
pub fn picture(input: &[u8]) {
    let fixed = r#"{"storeCard":{"primaryFields":[{"key":"a","value":"a"}]}}"#;
    let builders = [
        ArchiveBuilder::new(Kind::Pass, input),
        ArchiveBuilder::new(Kind::Pass, fixed)
            .file("logo.png", input)
            .file("en.lproj/pass.strings", input),
    ];
    for builder in builders {
        let archive = builder.build_unsigned().expect("a small archive");
        let Ok(files) = PassFiles::of_archive(&archive) else {
            continue;
        };
        for classic in [false, true] {
            if let Ok(picture) = Drawing::new(Side::Both).classic(classic).draw(&files) {
                assert!(picture.svg.len() <= MAX_SVG_BYTES);
                // A tag that the crate does not write itself would come from the input.
                assert!(!picture.svg.contains("<script") && !picture.svg.contains('\0'));
            }
        }
    }
}

/// Reads any bytes as the signature of an archive.
pub fn cms(input: &[u8]) {
    let builder = ArchiveBuilder::new(Kind::Pass, "{}").file("signature", input);
    report(&builder.build_unsigned().expect("a small archive"));
}

/// Reads any bytes as a certificate and a key.
pub fn pem(input: &[u8]) {
    let errors = [
        pem::certificates(input).err(),
        pem::private_key(input).err(),
    ];
    for error in errors.into_iter().flatten() {
        assert!(error.to_string().len() < 200, "no error repeats the input");
    }
    let _ = Identity::from_pem(None, input, input);
    let _ = Identity::from_pem_with_password(None, input, input, "password");
}

/// Reads any bytes as PKCS #12.
pub fn pkcs12(input: &[u8]) {
    let _ = Identity::from_pkcs12(None, input, "password");
}

struct Nothing;

#[async_trait]
impl PassSource for Nothing {
    async fn credentials(&self, _: &PassId) -> Result<Option<Credentials>, SourceError> {
        let token = AuthToken::new("0123456789abcdef").ok();
        Ok(token.map(|token| Credentials::from(&token)))
    }

    async fn archive(&self, _: &PassId, _: &PassState) -> Result<Option<ArchiveBody>, SourceError> {
        Ok(None)
    }
}

/// Reads any text as the path and query of a request.
pub fn routes(input: &[u8]) {
    let Ok(uri) = http::Uri::try_from(input) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for method in [http::Method::GET, http::Method::POST, http::Method::DELETE] {
            let request = http::Request::builder()
                .method(method)
                .uri(uri.clone())
                .header("authorization", "ApplePass 0123456789abcdef")
                .body(Empty::<&[u8]>::new())
                .expect("a request");
            let mut service = WalletService::new(MemoryStore::new(), Nothing);
            let answer = service.call(request).await.expect("an answer");
            let status = answer.status().as_u16();
            assert!(status < 500, "{status} for {uri}");
            let _ = answer.into_body().collect().await;
        }
    });
}

/// Reads any text as the tag of a list.
pub fn tags(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input)
        && let Some(tag) = UpdateTag::parse(text)
    {
        let again = UpdateTag::parse(&tag.to_string());
        assert_eq!(again.as_ref(), Some(&tag), "a tag is read as it is written");
    }
}

/// Reads any text as a target file of the conformance kit.
pub fn target_file(input: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(input).expect("a file");
    let _ = TargetFile::load(file.path());
}

/// Reads any bytes as a file for `passkit import`.
pub fn csv(input: &[u8]) {
    let mut lines = csv::Lines::new(std::io::Cursor::new(input.to_vec()), None);
    while let Some((_, record)) = lines.next().expect("memory can be read") {
        assert!(lines.raw().len() <= 16 * 1024);
        let Ok((registration, _)) = record
            .and_then(|record| csv::to_registration(&record).map_err(|error| error.to_string()))
        else {
            continue;
        };
        let written = format!("{}{}", csv::NAMES_LINE, csv::line(&registration));
        let mut again = csv::Lines::new(std::io::Cursor::new(written), None);
        let read = again.next().expect("memory can be read").expect("a line").1;
        let (read, token) =
            csv::to_registration(&read.expect("a good line")).expect("a registration");
        assert!(
            token.is_none(),
            "a written file has no authentication tokens"
        );
        assert_eq!(
            read, registration,
            "a registration is read as it is written"
        );
    }
}

/// Reads any bytes as a table of `passkit make`.
pub fn table(input: &[u8]) {
    making::table(input);
}

/// Reads any bytes as `passkit.toml`, and a row for it.
pub fn recipe(input: &[u8]) {
    making::recipe(input);
}

/// Reads any bytes as the answer of a service that was asked for the changed passes.
pub fn list(input: &[u8]) {
    for kind in Kind::ALL {
        let Some(answer) = ListAnswer::read(kind, input) else {
            continue;
        };
        let mut serials = answer.serials.clone();
        serials.sort();
        serials.dedup();
        assert_eq!(serials.len(), answer.serials.len(), "each is named once");
        // There is a remark for each of ten faults, one for the number of other faults, and one if
        // the list is empty.
        assert!(answer.remarks.len() <= 12, "remarks are bounded");
    }
}
