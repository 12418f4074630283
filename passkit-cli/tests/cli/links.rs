//! Every link in the project's Markdown leads somewhere. The test needs no network. It looks up
//! links into this repository in its files. It looks up links into the documentation of its crates
//! in `target/doc`, which `./test` makes first.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsStr,
    fs,
    path::{Component, Path, PathBuf},
};

use pulldown_cmark::{BrokenLink, Event, LinkType, Options, Parser, Tag, TagEnd};

use crate::clone::LEFT_OUT;

const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");

#[test]
fn every_link_leads_somewhere() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();

    let tree = Tree::read(workspace, &target.join("doc"));
    assert!(tree.pages.contains_key(Path::new("README.md")));
    let dead = tree.dead_links();
    assert!(dead.is_empty(), "these lead nowhere:\n{}", dead.join("\n"));
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let absolute = |path: &str| format!("{REPOSITORY}/blob/main/{path}");
    write(
        "docs/page.md",
        "# One, `two` & three_4\n\n## Twice\n\n## Twice\n",
    );
    write("passkit-one/Cargo.toml", "[package]\n");
    write(
        "passkit-one/src/lib.rs",
        &format!("//! <{}>", absolute("gone.rs")),
    );
    write(
        "doc/passkit_one/struct.One.html",
        r#"<section id="method.open">"#,
    );
    let dead = |file: &str, links: &[&str]| -> Vec<String> {
        let text: Vec<String> = links.iter().map(|link| format!("[a]({link})\n")).collect();
        write(file, &text.concat());
        let tree = Tree::read(root.path(), &root.path().join("doc"));
        fs::remove_file(root.path().join(file)).unwrap();
        let found = tree.dead_links();
        let (first, found) = found.split_last().unwrap();
        assert!(first.contains("passkit-one/src/lib.rs:1:"), "{first}");
        found.to_vec()
    };

    let good = [
        "docs",
        "docs/page.md",
        "docs/page.md#one-two--three_4",
        "docs/page.md#twice-1",
        "https://example.com/gone.md",
        "https://docs.rs/passkit-one",
        "https://docs.rs/passkit-one/latest/passkit_one/struct.One.html#method.open",
        "https://docs.rs/other/latest/other/struct.Other.html",
        REPOSITORY,
        &absolute("docs/page.md#twice"),
    ];
    assert_eq!(dead("README.md", &good), [""; 0]);

    let bad = [
        "gone.md",
        "#gone",
        "docs/page.md#twice-2",
        "../outside.md",
        "some_crate::Type",
        &absolute("docs/gone.md"),
        &absolute("docs/page.md#gone"),
        &format!("{REPOSITORY}/blob/master/docs/page.md"),
        "https://docs.rs/passkit-gone",
        "https://docs.rs/passkit-one/latest/passkit_one/struct.Gone.html",
        "https://docs.rs/passkit-one/latest/passkit_one/struct.One.html#method.gone",
    ];
    for (dead, link) in dead("README.md", &bad).iter().zip(bad) {
        assert!(dead.contains(link), "{dead}");
    }
    assert_eq!(dead("README.md", &bad).len(), bad.len());
    assert_eq!(
        dead("passkit-one/README.md", &["../docs/page.md"]).len(),
        1,
        "a published README is also read elsewhere"
    );
    assert_eq!(
        dead("README.md", &["docs)\n[`Type`]\n[b][gone]\n[c](docs"]).len(),
        2
    );
}

/// The files of the project.
struct Tree {
    root: PathBuf,
    /// The folder with the documentation of the project's crates.
    docs: PathBuf,
    /// The Markdown files, by their paths below `root`.
    pages: BTreeMap<PathBuf, Page>,
    /// Links into this repository in Rust files.
    links: Vec<(PathBuf, Link)>,
}

#[derive(Default)]
struct Page {
    links: Vec<Link>,
    anchors: HashSet<String>,
}

struct Link {
    line: usize,
    to: String,
}

impl Tree {
    fn read(root: &Path, docs: &Path) -> Self {
        let mut tree = Self {
            root: root.to_owned(),
            docs: docs.to_owned(),
            pages: BTreeMap::new(),
            links: Vec::new(),
        };
        tree.add(Path::new(""));
        tree
    }

    fn add(&mut self, folder: &Path) {
        for entry in fs::read_dir(self.root.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if LEFT_OUT.into_iter().any(|out| name == OsStr::new(out)) {
                continue;
            }
            let path = folder.join(&name);
            if entry.file_type().unwrap().is_dir() {
                self.add(&path);
                continue;
            }
            match path.extension().and_then(OsStr::to_str) {
                Some("md") => {
                    let page = Page::read(&fs::read_to_string(entry.path()).unwrap());
                    self.pages.insert(path, page);
                }
                Some("rs") => {
                    let links = links_in_code(&fs::read_to_string(entry.path()).unwrap());
                    let links = links.into_iter().map(|link| (path.clone(), link));
                    self.links.extend(links);
                }
                _ => {}
            }
        }
    }

    /// Returns a line for each link that leads nowhere.
    fn dead_links(&self) -> Vec<String> {
        let in_pages = self
            .pages
            .iter()
            .flat_map(|(path, page)| page.links.iter().map(move |link| (path, link)));
        let in_code = self.links.iter().map(|(path, link)| (path, link));
        let dead = in_pages.chain(in_code).filter_map(|(path, link)| {
            let Link { line, to } = link;
            let problem = self.follow(path, to).err()?;
            Some(format!("{}:{line}: {to}: {problem}", path.display()))
        });
        dead.collect()
    }

    fn follow(&self, from: &Path, to: &str) -> Result<(), &'static str> {
        if let Some(path) = to.strip_prefix(REPOSITORY) {
            let path = path.trim_start_matches('/');
            let main = path
                .strip_prefix("blob/main/")
                .or_else(|| path.strip_prefix("tree/main/"));
            return match main {
                Some(path) => self.find(Path::new(""), path),
                None if path.is_empty() => Ok(()),
                None => Err("not a file on the branch main"),
            };
        }
        if let Some(path) = to.strip_prefix("https://docs.rs/") {
            return self.find_docs(path.trim_start_matches("crate/"));
        }
        if to.contains("://") || to.starts_with("mailto:") {
            return Ok(());
        }
        if to.starts_with('#') {
            return self.find_anchor(from, to);
        }
        let folder = from.parent().unwrap_or(Path::new(""));
        if from.ends_with("README.md") && self.is_published(folder) {
            return Err("a published README needs absolute links");
        }
        self.find(folder, to)
    }

    fn is_published(&self, folder: &Path) -> bool {
        fs::read_to_string(self.root.join(folder).join("Cargo.toml"))
            .is_ok_and(|text| text.contains("[package]") && !text.contains("publish = false"))
    }

    fn find(&self, folder: &Path, to: &str) -> Result<(), &'static str> {
        let (path, anchor) = to.split_at(to.find('#').unwrap_or(to.len()));
        let mut file = folder.to_owned();
        for part in Path::new(path).components() {
            match part {
                Component::Normal(name) => file.push(name),
                Component::CurDir => {}
                Component::ParentDir if file.pop() => {}
                _ => return Err("outside of the project"),
            }
        }
        let kept = !file
            .iter()
            .any(|part| LEFT_OUT.into_iter().any(|out| part == OsStr::new(out)));
        if !kept || !self.root.join(&file).exists() {
            return Err("no such file");
        }
        if self.root.join(&file).is_dir() {
            file.push("README.md");
            if anchor == "#readme" && self.pages.contains_key(&file) {
                return Ok(());
            }
        }
        self.find_anchor(&file, anchor)
    }

    fn find_anchor(&self, file: &Path, anchor: &str) -> Result<(), &'static str> {
        let Some(anchor) = anchor.strip_prefix('#') else {
            return Ok(());
        };
        let page = self.pages.get(file);
        if page.is_some_and(|page| page.anchors.contains(anchor)) {
            Ok(())
        } else {
            Err("no such heading")
        }
    }

    /// Looks up links into the documentation of our crates. Accepts links to other documentation.
    fn find_docs(&self, to: &str) -> Result<(), &'static str> {
        let (path, anchor) = to.split_at(to.find('#').unwrap_or(to.len()));
        let mut parts = path.trim_end_matches('/').splitn(3, '/');
        let name = parts.next().unwrap_or_default();
        if !name.starts_with("passkit-") {
            return Ok(());
        }
        if !self.is_published(Path::new(name)) {
            return Err("no such crate");
        }
        let Some(page) = parts.nth(1) else {
            return Ok(());
        };
        let mut file = self.docs.join(page);
        if file.is_dir() {
            file.push("index.html");
        }
        let page = fs::read_to_string(file).map_err(
            |_| "no such page in target/doc; `cargo doc --workspace --no-deps` makes it",
        )?;
        match anchor.strip_prefix('#') {
            Some(anchor) if !page.contains(&format!("id=\"{anchor}\"")) => Err("no such item"),
            _ => Ok(()),
        }
    }
}

impl Page {
    fn read(text: &str) -> Self {
        let line_of = |offset: usize| text[..offset].lines().count().max(1);
        // Links as in rustdoc, and links without a definition. Other brackets are text.
        let undefined = RefCell::new(Vec::new());
        let note = |link: BrokenLink<'_>| {
            if link.link_type != LinkType::Shortcut || link.reference.starts_with('`') {
                undefined.borrow_mut().push(Link {
                    line: line_of(link.span.start),
                    to: format!("[{}]", link.reference),
                });
            }
            None
        };
        let parser =
            Parser::new_with_broken_link_callback(text, Options::ENABLE_TABLES, Some(note));
        let mut page = Self::default();
        let mut same = HashMap::new();
        let mut heading = None;
        for (event, span) in parser.into_offset_iter() {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(Link {
                        line: line_of(span.start + 1),
                        to: dest_url.into_string(),
                    });
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::Text(part) | Event::Code(part) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&part);
                    }
                }
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor_of(&heading.take().unwrap());
                    let count = same.entry(anchor.clone()).or_insert(0);
                    page.anchors.insert(match *count {
                        0 => anchor,
                        count => format!("{anchor}-{count}"),
                    });
                    *count += 1;
                }
                _ => {}
            }
        }
        page.links.extend(undefined.into_inner());
        page
    }
}

/// Returns the anchor that GitHub gives a heading.
fn anchor_of(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn links_in_code(text: &str) -> Vec<Link> {
    let start = format!("{REPOSITORY}/");
    let mut links = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices(&start) {
            let end = |c: char| c.is_whitespace() || "<>()[]{}\"'`".contains(c);
            let to = line[at..].split(end).next().unwrap_or_default();
            links.push(Link {
                line: number + 1,
                to: to.trim_end_matches(['.', ',']).to_owned(),
            });
        }
    }
    links
}
