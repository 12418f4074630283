//! `passkit preview`.

use std::fs;

use serde_json::json;

use crate::{
    archives::{order, pass, signed, with_json},
    program::{passkit, run},
};

const TYPE: &str = "pass.com.example.preview";

fn preview(arguments: &[&str]) -> (Option<i32>, String, String) {
    run(passkit().arg("preview").args(arguments))
}

#[test]
fn a_pass_is_drawn_to_standard_output_or_into_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.pkpass");
    fs::write(&file, pass(TYPE, "A", "version <1>")).unwrap();
    let file = file.to_str().unwrap();
    let (code, svg, said) = preview(&[file]);
    assert_eq!((code, &*said), (Some(0), ""));
    assert!(
        svg.starts_with("<svg ")
            && svg.contains("version &lt;1&gt;")
            && svg.contains("Approximate"),
        "{svg}"
    );
    let output = folder.path().join("a.svg");
    let (code, out, said) = preview(&[file, "-o", output.to_str().unwrap()]);
    assert_eq!((code, &*out, &*said), (Some(0), "", ""));
    assert!(fs::read_to_string(&output).unwrap() == svg);
    // A picture is not written over the pass.
    let (code, _, said) = preview(&[file, "-o", file]);
    assert!(
        code == Some(2) && said.contains("overwrite") && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn a_template_is_drawn_in_a_language_and_by_side() {
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/templates/storeCard");
    let (code, front, _) = preview(&[template, "--side", "front", "--language", "de"]);
    assert_eq!(code, Some(0));
    assert!(
        front.contains(">Punkte<") && front.contains(">31.12.2036<"),
        "{front}"
    );
    let (_, back, _) = preview(&[template, "--side", "back"]);
    assert!(
        !front.contains("https://example.org/terms") && back.contains("https://example.org/terms")
    );
    let poster = concat!(env!("CARGO_MANIFEST_DIR"), "/templates/posterGeneric");
    let (_, new, _) = preview(&[poster]);
    let (_, classic, _) = preview(&[poster, "--classic"]);
    assert!(
        new != classic && new.contains("linearGradient") && !classic.contains("linearGradient")
    );
}

#[test]
fn what_is_missing_in_a_picture_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.pkpass");
    fs::write(
        &file,
        signed(TYPE, "A", "one", &[("logo.png", b"no image".to_vec())]),
    )
    .unwrap();
    let (code, svg, said) = preview(&[file.to_str().unwrap()]);
    assert!(code == Some(0) && svg.starts_with("<svg "));
    assert!(
        said.lines().count() == 1 && said.contains("logo.png is left out"),
        "{said}"
    );
}

#[test]
fn what_can_not_be_drawn_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let written = |name: &str, content: Vec<u8>| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let order = written("a.order", order("order.com.example.preview", "O", "one"));
    let damaged = written("b.pkpass", b"PK".to_vec());
    let plain = written("c.pkpass", with_json(TYPE, &json!({ "generic": 7 })));
    let missing = folder.path().join("d.pkpass");
    for (file, mention) in [
        (&*order, "only passes have a picture"),
        (&*damaged, "b.pkpass"),
        (missing.to_str().unwrap(), "can't read"),
    ] {
        let (code, out, said) = preview(&[file]);
        assert_eq!(
            (code, &*out, said.lines().count()),
            (Some(2), "", 1),
            "{said}"
        );
        assert!(said.contains(mention), "{said}");
    }
    // A style of a wrong type has no fields.
    assert_eq!(preview(&[&plain]).0, Some(0));
}
