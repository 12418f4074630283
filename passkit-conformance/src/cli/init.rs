//! The subcommand `init`, which writes a target file to start from.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use passkit_archive::{Report, Rules};
use passkit_server::{AuthToken, PassId, identifiers::Kind, text::OneLine};

use super::{pushes_to, say};
use crate::{service::TargetFile, service_url::ServiceUrl};

/// Where to write a target file, and what to write into it.
#[derive(Args, Debug)]
#[non_exhaustive]
pub struct Init {
    /// The URL of the web service, which is the webServiceURL of its passes.
    #[arg(long)]
    url: String,

    /// The file to write. The file must not exist yet.
    #[arg(long, value_name = "FILE.toml", default_value = "target.toml")]
    target: PathBuf,

    /// Use the kit as the push service of the web service. The target file then has the table
    /// `push`, and the kit makes the certificates that the web service needs.
    #[arg(long)]
    push: bool,

    /// Archives of passes and orders that the service serves
    #[arg(value_name = "ARCHIVE")]
    archives: Vec<PathBuf>,
}

impl Init {
    pub(super) async fn run(self) -> Result<ExitCode, String> {
        let url = ServiceUrl::new(&self.url)
            .map_err(|problem| format!("the url \"{}\" {problem}", OneLine::url(&self.url)))?;
        if let Some(base) = url.as_str().strip_suffix("/v1") {
            return Err(format!(
                "the url \"{}\" ends in /v1, which phones append themselves; use --url {base}/",
                OneLine::url(&self.url)
            ));
        }
        let subjects = self
            .archives
            .iter()
            .map(|path| subject(path))
            .collect::<Result<Vec<_>, _>>()?;
        let text = target_file(&self.url, &self.target, &subjects, self.push);
        // The tokens in the file are secrets, so only the owner can read it.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.target);
        let name = self.target.display();
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists => {
                    format!("{name} exists already; remove it, or name another file with --target")
                }
                _ => format!("can't write {name}: {error}"),
            })?;
        say(&format!("wrote {name}; its comments say what to fill in"));
        // Starting the push service writes its certificates.
        if let Some((pushes, folder)) = TargetFile::load(&self.target)?.push_service().await? {
            say(&pushes_to(&pushes, &folder));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the pass or order in an archive, and its authentication token.
fn subject(path: &Path) -> Result<(PassId, AuthToken), String> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|error| format!("can't read {name}: {error}"))?;
    let report = Report::of(&bytes, Rules::development());
    let Some(archive) = report.archive else {
        let finding = report.findings.first().map(ToString::to_string);
        let finding = finding.unwrap_or_default().replace('\n', " ");
        return Err(format!(
            "{name} is not an archive of a pass or order: {finding}"
        ));
    };
    let token = archive.auth_token.ok_or_else(|| {
        format!("{name} has no authenticationToken, so phones never ask a web service about it")
    })?;
    Ok((archive.id, token))
}

fn target_file(url: &str, target: &Path, subjects: &[(PassId, AuthToken)], push: bool) -> String {
    let push = if push { "" } else { "# " };
    let mut text = format!(
        "# A target of the conformance kit:\n\
         #   passkit-conformance run --url {url} --target {}\n\
         \n\
         # Gives a pass new content. change is a command, which runs in the folder of this file. change_url is a URL to POST to.\n\
         # Either must return after the new content is published. Without both, the cases about changes are skipped.\n\
         # change = \"sh change.sh {{type}} {{serial}}\"\n\
         # change_url = \"http://127.0.0.1:9000/change/{{type}}/{{serial}}\"\n\
         \n\
         # Seconds to wait after each change, if phones can fetch the change only some time after the command returned.\n\
         # change_wait = 2\n\
         \n\
         # A command or a URL that saves a pass without changing its content. Few cases need one.\n\
         # save = \"sh save.sh {{type}} {{serial}}\"\n\
         # save_url = \"http://127.0.0.1:9000/save/{{type}}/{{serial}}\"\n\
         \n\
         # With [push], the kit is the push service of the web service. Without it, the cases about pushes are skipped. The folder\n\
         # gets root.pem, which the web service must trust, and a client certificate for each type.\n\
         {push}[push]\n\
         {push}listen = \"127.0.0.1:2197\"\n\
         {push}folder = \"push\"\n\
         {push}wait = 30  # seconds from a change to its push\n\
         \n\
         # Passes and orders that the service serves. For most cases, three of one type and one of another type are enough.\n\
         # The token is the authenticationToken in the pass.\n",
        target.display()
    );
    let mut entry = |key: &str, type_id: &str, serial: &str, token: &str| {
        // Each JSON string is also a valid TOML string.
        let [type_id, serial, token] =
            [type_id, serial, token].map(|text| serde_json::Value::from(text).to_string());
        let _ = write!(
            text,
            "\n[[{key}]]\ntype = {type_id}\nserial = {serial}\ntoken = {token}\n"
        );
    };
    for (pass, token) in subjects {
        let key = match pass.type_id.kind() {
            Kind::Pass => "passes",
            Kind::Order => "orders",
        };
        entry(
            key,
            pass.type_id.as_str(),
            pass.serial.as_str(),
            token.as_str(),
        );
    }
    if subjects.is_empty() {
        for (type_id, serial) in [
            ("pass.com.example.a", "A-1"),
            ("pass.com.example.a", "A-2"),
            ("pass.com.example.a", "A-3"),
            ("pass.com.example.b", "B-1"),
        ] {
            entry("passes", type_id, serial, "0123456789abcdef");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    async fn init(folder: &Path, url: &str, archives: Vec<PathBuf>) -> Result<(), String> {
        let init = Init {
            push: false,
            url: url.to_owned(),
            target: folder.join("target.toml"),
            archives,
        };
        init.run().await.map(drop)
    }

    #[tokio::test]
    async fn the_file_can_be_read_and_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path(), "https://wallet.example.com/", Vec::new())
            .await
            .unwrap();
        let file = TargetFile::load(&folder.path().join("target.toml")).unwrap();
        assert_eq!(file.subjects().len(), 4);
        file.target("https://wallet.example.com/", Limits::default())
            .unwrap();
        let error = init(folder.path(), "https://h/", Vec::new())
            .await
            .unwrap_err();
        assert!(error.contains("exists already"), "{error}");
    }

    #[tokio::test]
    async fn a_wrong_url_or_archive_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = init(folder.path(), "https://h/v1/", Vec::new())
            .await
            .unwrap_err();
        assert!(error.ends_with("use --url https://h/"), "{error}");
        let error = init(folder.path(), "h", Vec::new()).await.unwrap_err();
        assert!(error.contains("\"h\""), "{error}");
        let odd = folder.path().join("odd.pkpass");
        std::fs::write(&odd, "odd").unwrap();
        let error = init(folder.path(), "https://h/", vec![odd])
            .await
            .unwrap_err();
        assert!(error.contains("odd.pkpass is not an archive"), "{error}");
        assert!(!folder.path().join("target.toml").exists());
    }

    #[test]
    fn the_push_table_is_active_only_if_asked_for() {
        for push in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let text = target_file("https://h/", Path::new("t.toml"), &[], push);
            std::fs::write(folder.path().join("t.toml"), &text).unwrap();
            TargetFile::load(&folder.path().join("t.toml")).unwrap();
            assert_eq!(
                text.contains("\n[push]\nlisten = \"127.0.0.1:2197\"\n"),
                push,
                "{text}"
            );
        }
    }

    #[test]
    fn odd_names_are_quoted() {
        let pass = PassId::new("pass.com.example.a", "H8/07 \"x\" \\ ü").unwrap();
        let token = AuthToken::new("0123456789abc\"ef").unwrap();
        let text = target_file(
            "https://h/",
            Path::new("t.toml"),
            &[(pass.clone(), token.clone())],
            false,
        );
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("t.toml"), text).unwrap();
        let file = TargetFile::load(&folder.path().join("t.toml")).unwrap();
        let (read, with) = &file.subjects()[0];
        assert_eq!((read, with.as_str()), (&pass, token.as_str()));
    }
}
