//! The manual pages, and the completion of commands in a shell.

use std::process::Command;

use crate::program::passkit;

#[test]
fn each_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man");
    assert!(passkit().arg("man").arg(&pages).status().unwrap().success());
    let help = passkit().arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .map_while(|line| line.strip_prefix("  "))
        .filter_map(|line| {
            line.split_whitespace()
                .next()
                .filter(|_| !line.starts_with(' '))
        })
        .filter(|name| *name != "help");
    let mut count = 0;
    for name in commands {
        let page = std::fs::read_to_string(pages.join(format!("passkit-{name}.1"))).unwrap();
        assert!(
            page.contains(&format!(".TH passkit-{name} 1")),
            "{name}: {page}"
        );
        count += 1;
    }
    assert!(count > 10, "{help}");
    let page = std::fs::read_to_string(pages.join("passkit-serve.1")).unwrap();
    assert!(page.contains("passes"), "{page}");
    // Everyone may read a manual page.
    let mode =
        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(pages.join("passkit.1")).unwrap());
    assert_eq!(mode & 0o444, 0o444);
}

#[test]
fn manual_pages_that_cannot_be_written_are_one_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = passkit().arg("man").arg(file.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("can't write the manual pages"), "{said}");
}

#[test]
fn bash_completes_a_command() {
    let script = passkit().args(["completions", "bash"]).output().unwrap();
    let script = String::from_utf8(script.stdout).unwrap();
    let ask = "COMP_WORDS=(passkit ser); COMP_CWORD=1; _passkit passkit ser passkit; echo \"${COMPREPLY[@]}\"";
    let output = Command::new("bash")
        .args(["-c", &format!("{script}\n{ask}")])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(output.stdout.clone()).unwrap(),
        "serve\n",
        "{output:?}"
    );
}

#[test]
fn each_shell_has_a_script() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = passkit().args(["completions", shell]).output().unwrap();
        assert!(output.status.success(), "{shell}");
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("conformance"), "{shell}: {script}");
    }
    let output = passkit().args(["completions", "cmd"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
