//! What a table and a template may contain, and what the program refuses.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use passkit_archive::placeholder_icon;
use serde_json::json;

use crate::{
    making::{TABLE, TYPE, Workshop, made},
    program::run,
};

/// Checks that the command makes nothing, prints one line, and ends with exit code 2.
fn refused(workshop: &Workshop, command: &mut Command, mentions: &str) {
    let (code, out, said) = run(command);
    assert_eq!((code, &*out), (Some(2), ""), "{mentions}: {said}");
    assert!(
        said.lines().count() == 1 && said.contains(mentions),
        "{mentions}: {said}"
    );
    assert!(workshop.names().is_empty(), "{mentions}");
}

#[test]
fn every_kind_of_table_makes_the_same_passes() {
    let workshop = Workshop::new();
    made(&mut workshop.make());
    let mut tables = vec![
        ("bom.csv", format!("\u{feff}{TABLE}")),
        ("lines.csv", TABLE.replace('\n', "\r\n")),
        ("quotes.csv", TABLE.replace("Ada", "\"Ada\"")),
        ("blank.csv", TABLE.replace('\n', "\n\n,,,,,\n")),
        (
            "sep.csv",
            format!(
                "sep=;\r\n{}",
                TABLE
                    .replace(", ", "\0")
                    .replace(',', ";")
                    .replace('\0', ", ")
            ),
        ),
    ];
    for (name, separator) in [("a.tsv", "\t"), ("b.csv", ";"), ("c.csv", "|")] {
        // The comma in a name is not a separator.
        tables.push((
            name,
            TABLE
                .replace(", ", "\0")
                .replace(',', separator)
                .replace('\0', ", "),
        ));
    }
    let lines = [
        json!({"id": "A-1", "first": "Ada", "last": "Lovelace", "points": 12, "until": "2026-12-31", "seat": 4}),
        json!({"id": "a-1", "first": "Alan", "last": "Turing", "points": 7.5, "until": "2027-06-30 10:00", "seat": null}),
        json!({
            "id": "B 2/\u{fc}", "first": "Grace", "last": "Hopper, \"Amazing\"", "points": "0", "seat": "9", "more": [1],
            "until": "2027-01-31T23:00:00Z",
        }),
    ];
    tables.push((
        "members.jsonl",
        lines.map(|line| format!("{line}\n")).concat(),
    ));
    let unchanged = "3 rows: 0 new, 0 changed, 3 unchanged, 0 wrong; 0 voided\n";
    for (name, table) in tables {
        workshop.write(name, &table);
        assert_eq!(
            made(&mut workshop.make_from("card", name)),
            unchanged,
            "{name}"
        );
        let mut from_input = workshop.make_from("card", "-");
        let mut process = from_input
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        process
            .stdin
            .take()
            .unwrap()
            .write_all(table.as_bytes())
            .unwrap();
        let output = process.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            unchanged,
            "{name}"
        );
    }
}

#[test]
fn a_wrong_row_is_one_line_and_makes_no_pass() {
    let workshop = Workshop::new();
    workshop.edit("card/passkit.toml", "[barcode]", "[set]\n\"/voided\" = { boolean = \"{gone}\", if-empty = \"keep\" }\n\"/expirationDate\" = { date = \"{until}\", zone = \"{zone}\" }\n\n[images]\nthumbnail = { value = \"{photo}\", if-empty = \"keep\" }\n\n[barcode]");
    fs::create_dir(workshop.path("photos")).unwrap();
    workshop.write("outside.png", placeholder_icon(90));
    let png = placeholder_icon(90);
    workshop.write("tables/good.png", &png);
    workshop.write("tables/cut.png", &png[..png.len() - 20]);
    workshop.write("tables/not.png", "GIF89a");
    std::os::unix::fs::symlink("../outside.png", workshop.path("tables/link.png")).unwrap();
    let rows = [
        ("good-1,A,B,1,2026-12-31,1,no,Europe/Berlin,good.png", ""),
        (
            "word,A,B,many,2026-12-31,1,,UTC,",
            "column \"points\": \"many\" is not a number",
        ),
        (
            "comma,A,B,\"1,5\",2026-12-31,1,,UTC,",
            "column \"points\": \"1,5\" is not a number",
        ),
        (
            "date,A,B,1,31.12.2026,1,,UTC,",
            "column \"until\": \"31.12.2026\" is not a date",
        ),
        (
            "gap,A,B,1,2026-03-29 02:30,1,,UTC,",
            "column \"until\": \"2026-03-29 02:30\" does not exist in Europe/Berlin",
        ),
        (
            "zone,A,B,1,2026-12-31,1,,Berlin,",
            "column \"zone\": \"Berlin\" is not a time zone",
        ),
        (
            "empty,A,B,,2026-12-31,1,,UTC,",
            "column \"points\": is empty",
        ),
        (
            "no-name,,,1,2026-12-31,1,,UTC,",
            "column \"first\": is empty",
        ),
        (
            "voided,A,B,1,2026-12-31,1,perhaps,UTC,",
            "column \"gone\": \"perhaps\" is neither true nor false",
        ),
        (
            "good-1,A,B,1,2026-12-31,1,,UTC,",
            "an earlier row has the serial number \"good-1\" too",
        ),
        (",A,B,1,2026-12-31,1,,UTC,", "column \"id\": is empty"),
        ("few,A,B", "has 3 cells instead of 9"),
        (
            "many,A,B,1,2026-12-31,1,,UTC,,,",
            "has 11 cells instead of 9",
        ),
        (
            "missing,A,B,1,2026-12-31,1,,UTC,none.png",
            "column \"photo\": \"none.png\" can't be read",
        ),
        (
            "cut,A,B,1,2026-12-31,1,,UTC,cut.png",
            "column \"photo\": thumbnail: is cut off",
        ),
        (
            "gif,A,B,1,2026-12-31,1,,UTC,not.png",
            "column \"photo\": thumbnail: is not a PNG file",
        ),
        (
            "up,A,B,1,2026-12-31,1,,UTC,../outside.png",
            "is outside the folder of the table",
        ),
        (
            "root,A,B,1,2026-12-31,1,,UTC,/etc/passwd",
            "is outside the folder of the table",
        ),
        (
            "link,A,B,1,2026-12-31,1,,UTC,link.png",
            "is outside the folder of the table",
        ),
        ("folder,A,B,1,2026-12-31,1,,UTC,.", "is not a file"),
        ("good-2,A,B,1,2026-12-31,1,,UTC,", ""),
    ];
    let mut table = b"id,first,last,points,until,seat,gone,zone,photo\n".to_vec();
    for (row, _) in rows {
        table.extend(format!("{row}\n").as_bytes());
    }
    table.extend(b"latin,Andr\xe9,B,1,2026-12-31,1,,UTC,\n");
    table.extend(b"good-3,A,B,1,2026-12-31,1,,UTC,\n");
    workshop.write("tables/t.csv", table);
    let (code, out, said) = run(&mut workshop.make_from("card", "tables/t.csv"));
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(
        out,
        "23 rows: 3 new, 0 changed, 0 unchanged, 20 wrong; 0 voided\n"
    );
    let names = ["good-1.pkpass", "good-2.pkpass", "good-3.pkpass"];
    assert_eq!(workshop.names(), names);
    let lines = rows
        .iter()
        .map(|(_, mentions)| *mentions)
        .chain(["column \"first\": is not UTF-8"]);
    let mut wrong = 0;
    for (at, mentions) in lines
        .enumerate()
        .filter(|(_, mentions)| !mentions.is_empty())
    {
        let start = format!("passkit: tables/t.csv:{}: ", at + 2);
        let mut found = said.lines().filter(|line| line.starts_with(&start));
        let line = found
            .next()
            .unwrap_or_else(|| panic!("{mentions} is not in {said}"));
        assert!(
            line.contains(mentions) && found.next().is_none(),
            "{mentions}: {line}"
        );
        wrong += 1;
    }
    assert_eq!(wrong, 20);
    assert!(workshop.unzip(names[0], "thumbnail.png") == png);
    assert_eq!(
        workshop.json(names[0])["expirationDate"],
        json!("2026-12-31T00:00:00+01:00")
    );

    // Files of wrong rows stay as they are.
    let before = workshop.files();
    workshop.write(
        "tables/t.csv",
        "id,first,last,points,until,seat,gone,zone,photo\ngood-1,A,B,x,2026-12-31,1,no,UTC,\n",
    );
    let (code, ..) = run(&mut workshop.make_from("card", "tables/t.csv"));
    assert_eq!(code, Some(1));
    assert!(workshop.files() == before);
}

#[test]
fn json_lines_are_checked_row_by_row() {
    let workshop = Workshop::new();
    let good =
        json!({"id": 7, "first": "A", "last": "B", "points": 1, "until": "2026-12-31", "seat": 1});
    let without = json!({"id": 8, "first": "A", "last": "B", "until": "2026-12-31", "seat": 1});
    let nested = json!({"id": 9, "first": "A", "last": ["B"], "points": 1, "until": "2026-12-31", "seat": 1});
    workshop.write(
        "t.jsonl",
        format!("{good}\n{without}\n{nested}\n[]\n{{\"id\":\n"),
    );
    let (code, out, said) = run(&mut workshop.make_from("card", "t.jsonl"));
    assert_eq!(code, Some(1));
    assert!(
        out.starts_with("5 rows: 1 new, 0 changed, 0 unchanged, 4 wrong"),
        "{out}"
    );
    for mentions in [
        "t.jsonl:2: column \"points\": is missing in this row",
        "t.jsonl:3: column \"last\": is a list or an object",
        "t.jsonl:4: is not a JSON object",
        "t.jsonl:5: is not a JSON object",
    ] {
        assert!(said.contains(mentions), "{mentions}: {said}");
    }
    assert_eq!(workshop.names(), ["7.pkpass"]);
}

#[test]
fn a_recipe_that_does_not_fit_is_refused_with_its_place() {
    let workshop = Workshop::new();
    let recipe = |text: &str, mentions: &str| {
        workshop.write("card/passkit.toml", text);
        refused(&workshop, &mut workshop.make(), mentions);
    };
    recipe(
        "serial = \"{id}\"\n[fields]\npionts = \"{points}\"",
        "card/passkit.toml:3:1: there is no field \"pionts\"; did you mean points?",
    );
    recipe(
        "serial = \"{id}\"\n[fields]\npoints = \"{pionts}\"",
        "card/passkit.toml:3:10: the table has no column \"pionts\"; did you mean {points}?",
    );
    recipe(
        "serial = \"{member}\"",
        "card/passkit.toml:1:10: the table has no column \"member\"; it has id, first",
    );
    recipe(
        "serial = \"{id}\"\nfeilds = 1",
        "2:1: there is no key \"feilds\"; did you mean fields?",
    );
    recipe(
        "serial = \"{id}\"\n[fields]\npoints = { numbr = \"{points}\" }",
        "3:12: there is no key of a value \"numbr\"; did you mean number?",
    );
    recipe(
        "serial = \"{id}\"\n[fields]\nuntil = { date = \"{until}\", zone = \"Europe/Berlim\" }",
        "\"Europe/Berlim\" is not a time zone",
    );
    recipe(
        "serial = \"{id}\"\n[fields]\nname = { value = \"{first}\", zone = \"UTC\" }",
        "zone is only for a date",
    );
    recipe(
        "serial = \"{id}\"\n[fields]\nname = { value = \"{first}\", if-empty = \"skip\" }",
        "if-empty must be",
    );
    recipe(
        "serial = \"{id}\"\n[fields]\nname = { value = \"{first}\", number = \"{last}\" }",
        "one of the keys value, number, date and boolean",
    );
    recipe(
        "serial = \"{id}\"\n[fields]\nname = { if-empty = \"keep\" }",
        "has no value",
    );
    recipe(
        "serial = \"{id}\"\n[fields]\nname = \"{first\"",
        "has a brace without its partner",
    );
    recipe(
        "serial = \"{id}\"\n[fields]\nname = \"{}\"",
        "braces without a column",
    );
    recipe(
        "serial = \"{id}\"\n[fields]\nname = []",
        "must be a text such as",
    );
    recipe("serial = \"{id}\"\nfields = 1", "2:10: must be a table");
    recipe("serial = \"1\"", "all passes would be the same");
    recipe("token = \"{id}\"", "lacks serial");
    recipe(
        "serial = \"{id}\"\n[set]\n\"/barcodes/7/message\" = \"{id}\"",
        "leads nowhere",
    );
    recipe(
        "serial = \"{id}\"\n[set]\n\"/serialNumber\" = \"{id}\"",
        "has its own key; write serial",
    );
    recipe(
        "serial = \"{id}\"\n[set]\n\"/teamIdentifier\" = \"{id}\"",
        "comes from the certificate",
    );
    recipe(
        "serial = \"{id}\"\n[barcode]\nmesage = \"{id}\"",
        "did you mean message?",
    );
    recipe(
        "serial = \"{id}\"\n[images]\n\"../x\" = \"{id}\"",
        "is not the name of an image",
    );
    recipe(
        "serial = \"{id}\"\n[strings.\"d/e\"]\na = \"{id}\"",
        "is not a language",
    );
    recipe(
        "serial = \"{id}\"\n[strings.de]\na = { value = \"{id}\", if-empty = \"remove\" }",
        "can't be removed",
    );
    recipe("serial = \"{id}\nx", "card/passkit.toml:2:2: ");
    recipe(
        &format!("serial = \"{{id}}\"\n# {}", "x".repeat(300_000)),
        "larger than 256 KiB",
    );
    workshop.write("card/passkit.toml", b"serial = \"\xff\"");
    refused(&workshop, &mut workshop.make(), "is not UTF-8");
    workshop.write("card/passkit.toml", "serial = \"{id}\"");
    workshop.edit("card/pass.json", "\"barcodes\"", "\"userInfo\"");
    recipe(
        "serial = \"{id}\"\n[barcode]\nmessage = \"{id}\"",
        "/barcodes: is missing in the template",
    );
}

#[test]
fn templates_that_make_no_good_pass_are_refused_before_the_first_pass() {
    let workshop = Workshop::new();
    let json = |key: &str, value: serde_json::Value| {
        let mut pass = Workshop::pass();
        pass[key] = value;
        workshop.write("card/pass.json", pass.to_string());
    };
    json("description", serde_json::Value::Null);
    refused(
        &workshop,
        &mut workshop.make(),
        "none of the first passes would work. table.csv:2: makes a pass that can't work: pass.json",
    );
    json("passTypeIdentifier", json!("pass.com.example.other"));
    refused(
        &workshop,
        &mut workshop.make(),
        "not for pass.com.example.other",
    );
    json("teamIdentifier", json!("OTHER12345"));
    refused(&workshop, &mut workshop.make(), "not to \"OTHER12345\"");
    json("nfc", json!({"message": "x", "encryptionPublicKey": "x"}));
    refused(&workshop, &mut workshop.make(), "no pass was made");
    json("passTypeIdentifier", json!(TYPE));
    fs::remove_file(workshop.path("card/icon.png")).unwrap();
    for scale in ["@2x", "@3x"] {
        fs::remove_file(workshop.path(&format!("card/icon{scale}.png"))).unwrap();
    }
    refused(&workshop, &mut workshop.make(), "has no icon");
    fs::remove_file(workshop.path("card/pass.json")).unwrap();
    refused(
        &workshop,
        &mut workshop.make(),
        "neither pass.json nor order.json",
    );
    workshop.write("card/order.json", "{}");
    refused(
        &workshop,
        &mut workshop.make(),
        "use the certificate of an Order Type ID",
    );
    refused(
        &workshop,
        &mut workshop.make_from("none", "table.csv"),
        "none",
    );
}

#[test]
fn tables_that_cannot_be_read_are_refused() {
    let workshop = Workshop::new();
    for (content, mentions) in [
        (&b""[..], "t: is empty"),
        (b"\xff\xfei\0d\0", "is UTF-16"),
        (b"[{}]", "is one JSON list"),
        (b"id,id\n", "the column \"id\" twice"),
        (&[b'x'; 300_000], "more than 256 KiB"),
        (b"id\n1\n", "the table has no column \"first\""),
    ] {
        workshop.write("t", content);
        refused(&workshop, &mut workshop.make_from("card", "t"), mentions);
    }
    refused(
        &workshop,
        &mut workshop.make_from("card", "none.csv"),
        "can't read none.csv",
    );
    refused(
        &workshop,
        &mut workshop.make_from("card", "card"),
        "can't read card",
    );
    let mut watch = workshop.make_from("card", "-");
    refused(
        &workshop,
        watch.arg("--watch"),
        "standard input can't be watched",
    );
}

#[test]
fn a_huge_cell_takes_no_memory() {
    let workshop = Workshop::new();
    made(&mut workshop.make());
    let mut command = workshop.make_from("card", "-");
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = process.stdin.take().unwrap();
    input
        .write_all(b"id,first,last,points,until,seat\nx,\"")
        .unwrap();
    for _ in 0..200 {
        input.write_all(&vec![b'x'; 1 << 20]).unwrap();
    }
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    input
        .write_all(b"\",x,1,2026-12-31,1\nA-1,Ada,Lovelace,12,2026-12-31,4\n")
        .unwrap();
    drop(input);
    let output = process.wait_with_output().unwrap();
    let (out, said) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        out.starts_with("2 rows: 0 new, 0 changed, 1 unchanged, 1 wrong"),
        "{out}"
    );
    assert!(
        said.contains("standard input:2: is longer than 256 KiB"),
        "{said}"
    );
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 100 * 1024, "{peak} KiB");
}

#[test]
fn columns_with_the_names_of_fields_need_no_recipe() {
    let workshop = Workshop::new();
    fs::remove_file(workshop.path("card/passkit.toml")).unwrap();
    let mut pass = Workshop::pass();
    pass["webServiceURL"] = json!("https://wallet.example.org");
    workshop.write("card/pass.json", pass.to_string());
    workshop.write(
        "t.csv",
        "serialNumber,name,points,colour,authenticationToken\n1,Ada,5,red,0123456789abcdef0123\n",
    );
    let (code, _, said) = run(&mut workshop.make_from("card", "t.csv"));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("no field has their name: colour\n"), "{said}");
    let json = workshop.json("1.pkpass");
    assert_eq!(json["authenticationToken"], "0123456789abcdef0123");
    assert_eq!(json["storeCard"]["headerFields"][0]["value"], json!(5));
    assert_eq!(
        json["storeCard"]["auxiliaryFields"][1]["value"], "1A",
        "the template's own value stays"
    );
    assert!(
        !workshop.path("passes.token-secret").exists(),
        "no secret is needed"
    );
    workshop.write("t.csv", "number,name\n1,Ada\n");
    let (code, _, said) = run(&mut workshop.make_from("card", "t.csv"));
    assert_eq!(code, Some(2));
    assert!(
        said.contains("has no column serialNumber or serial"),
        "{said}"
    );
}

#[test]
fn everything_else_in_a_recipe_is_filled_in() {
    let workshop = Workshop::new();
    workshop.write("card/de.lproj/pass.strings", "\"Points\" = \"Punkte\";\n");
    workshop.write(
        "card/passkit.toml",
        r#"serial = "c-{id}"
token = "{token}"
web-service-url = "https://wallet.example.org"
[fields]
name = "{{{id}}}"
[set]
"/semantics/seats/0/seatRow" = "{row}"
"/semantics/seats/1/seatRow" = { value = "{row}", if-empty = "remove" }
"/maxDistance" = { number = "{id}" }
"/suppressStripShine" = true
"/barcodes" = { value = "", if-empty = "remove" }
"/userInfo/level" = 3
[images]
thumbnail = "{photo}"
[strings.de]
Points = "{word}"
New = { value = "{row}", if-empty = "keep" }
"#,
    );
    let mut pass = Workshop::pass();
    pass.as_object_mut().unwrap().remove("barcodes");
    workshop.write("card/pass.json", pass.to_string());
    workshop.edit(
        "card/passkit.toml",
        "\"/barcodes\" = { value = \"\", if-empty = \"remove\" }\n",
        "",
    );
    workshop.write("photo.png", placeholder_icon(90));
    workshop.write(
        "t.csv",
        "id,token,row,photo,word\n7,0123456789abcdef-7,R1,photo.png,\"Pun\"\"kte\"\"\"\n",
    );
    made(&mut workshop.make_from("card", "t.csv"));
    let json = workshop.json("c-7.pkpass");
    assert_eq!(json["storeCard"]["primaryFields"][0]["value"], "{7}");
    assert_eq!(
        json["semantics"]["seats"],
        json!([{ "seatRow": "R1" }, { "seatRow": "R1" }])
    );
    assert_eq!(json["maxDistance"], json!(7));
    assert_eq!(json["suppressStripShine"], json!(true));
    assert_eq!(json["userInfo"]["level"], json!(3));
    assert_eq!(json["authenticationToken"], "0123456789abcdef-7");
    let strings = String::from_utf8(workshop.unzip("c-7.pkpass", "de.lproj/pass.strings")).unwrap();
    assert_eq!(
        strings,
        "\"Points\" = \"Pun\\\"kte\\\"\";\n\"New\" = \"R1\";\n"
    );
    workshop.verify("c-7.pkpass");
}
