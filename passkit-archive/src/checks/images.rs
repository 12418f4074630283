//! Images: which images a style shows, and in which size. Only the headers of images are read.

use std::collections::{BTreeMap, BTreeSet};

use super::Pass;
use crate::{
    contents::File,
    finding::Finding,
    keys::Styles,
    layout::{PERSONALIZATION, is_image},
    rules,
    walk::Walk,
};

/// The size of the largest image without a finding, in bytes.
const MAX_BYTES: usize = 1_000_000;

/// The place of an image on a pass.
struct Slot {
    name: &'static str,
    /// The largest size in points. A point has 1, 2 or 3 pixels in each direction.
    width: u32,
    height: u32,
    styles: Styles,
}

const fn slot(name: &'static str, width: u32, height: u32, styles: Styles) -> Slot {
    Slot {
        name,
        width,
        height,
        styles,
    }
}

const POSTERS: Styles = Styles::POSTER_TICKET.and(Styles::POSTER_GENERIC);
const TICKETS: Styles = Styles::EVENT_TICKET.and(Styles::POSTER_TICKET);
const CLASSIC: Styles = Styles::ALL.without(POSTERS.and(Styles::SEMANTIC_BOARDING_PASS));

/// The images of a pass.
static SLOTS: [Slot; 10] = [
    slot("icon", 38, 38, Styles::ALL),
    slot("logo", 160, 50, CLASSIC),
    slot(
        "primaryLogo",
        126,
        30,
        POSTERS.and(Styles::SEMANTIC_BOARDING_PASS),
    ),
    slot(
        "secondaryLogo",
        135,
        12,
        POSTERS.and(Styles::SEMANTIC_BOARDING_PASS),
    ),
    slot(
        "strip",
        375,
        144,
        Styles::COUPON
            .and(Styles::STORE_CARD)
            .and(Styles::EVENT_TICKET),
    ),
    slot(
        "thumbnail",
        90,
        90,
        Styles::GENERIC.and(Styles::EVENT_TICKET),
    ),
    slot("background", 345, 505, TICKETS.and(POSTERS)),
    slot("artwork", 358, 448, POSTERS),
    slot("footer", 286, 15, Styles::BOARDING_PASS),
    slot(PERSONALIZATION_LOGO, 150, 40, Styles::ALL),
];

const PERSONALIZATION_LOGO: &str = "personalizationLogo";

/// An image file, with the parts of its name.
struct Image<'a> {
    file: &'a File,
    /// The language folder, such as `en.lproj`. This is empty at the top level.
    folder: &'a str,
    /// The name without scale and extension.
    stem: &'a str,
    scale: u32,
    is_png: bool,
}

impl<'a> Image<'a> {
    fn of(file: &'a File) -> Option<Self> {
        if !is_image(&file.name) || file.litter.is_some() {
            return None;
        }
        let (folder, name) = file.name.rsplit_once('/').unwrap_or(("", &file.name));
        // Phones look for images only at the top level and in language folders.
        if !folder.is_empty() && (folder.contains('/') || !folder.ends_with(".lproj")) {
            return None;
        }
        let (name, extension) = name.rsplit_once('.')?;
        let (stem, scale) = match (name.strip_suffix("@2x"), name.strip_suffix("@3x")) {
            (Some(stem), _) => (stem, 2),
            (_, Some(stem)) => (stem, 3),
            _ => (name, 1),
        };
        Some(Self {
            file,
            folder,
            stem,
            scale,
            is_png: extension == "png",
        })
    }

    fn slot(&self) -> Option<&'static Slot> {
        SLOTS.iter().find(|slot| slot.name == self.stem)
    }

    /// Returns the size of the image's place in pixels, if the image is larger.
    fn exceeded(&self) -> Option<(u32, u32)> {
        let slot = self.slot()?;
        let (width, height) = self.size()?;
        let most = (slot.width * self.scale, slot.height * self.scale);
        (width > most.0 || height > most.1).then_some(most)
    }

    /// Returns width and height in pixels.
    fn size(&self) -> Option<(u32, u32)> {
        let header = self.file.start.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
        let header = header.strip_prefix(b"\0\0\0\x0dIHDR")?;
        let (width, rest) = header.split_first_chunk()?;
        let (height, rest) = rest.split_first_chunk()?;
        let size = (u32::from_be_bytes(*width), u32::from_be_bytes(*height));
        // The other bytes are the bit depth, the colour type, and the methods of compression,
        // filter and interlace.
        (rest.len() == 5 && size.0 > 0 && size.1 > 0).then_some(size)
    }
}

/// Checks the images of a pass. Whether there is an icon is checked elsewhere, because orders need
/// an icon too.
pub(crate) fn check(pass: &Pass<'_>, walk: &mut Walk<'_, '_>) {
    let images: Vec<Image<'_>> = pass.contents.files.iter().filter_map(Image::of).collect();
    let mut stems: BTreeMap<(&str, &str), Vec<&Image<'_>>> = BTreeMap::new();
    for image in &images {
        stems
            .entry((image.folder, image.stem))
            .or_default()
            .push(image);
        check_file(image, walk);
    }
    for ((folder, stem), group) in &stems {
        check_scales(group, walk);
        let first = &group[..1];
        if !folder.is_empty() && stems.contains_key(&("", *stem)) {
            report(first, &rules::IMAGE_TWICE, walk, |_| {
                "is also at the top level, and phones show that image; remove the image at the top level".into()
            });
        }
        if let Some(problem) = unused(pass, stem) {
            report(first, &rules::IMAGE_UNUSED, walk, |_| problem);
        }
    }
    icon_scales(&images, walk);
    conflict(pass, &images, walk);
}

fn report(
    images: &[&Image<'_>],
    rule: &'static rules::Rule,
    walk: &mut Walk<'_, '_>,
    message: impl FnOnce(&Image<'_>) -> String,
) {
    if let Some(image) = images.first() {
        walk.add(Finding::in_file(rule, &image.file.name, message(image)));
    }
}

/// Checks one file: its format, and its size in pixels and bytes.
fn check_file(image: &Image<'_>, walk: &mut Walk<'_, '_>) {
    let mut found = |rule, message: String| {
        walk.add(Finding::in_file(rule, &image.file.name, message));
    };
    if image.file.size > MAX_BYTES {
        let size = image.file.size;
        let message = format!("has {size} bytes; save it smaller than 1 MB");
        found(&rules::IMAGE_LARGE, message);
    }
    if !image.is_png {
        // Phones ignore other names. This finding is only about images that somebody wants to show.
        if image.slot().is_some() {
            let stem = image.stem;
            let message =
                format!("is not PNG; save it as {stem}.png, {stem}@2x.png and {stem}@3x.png");
            found(&rules::IMAGE_FORMAT, message);
        }
        return;
    }
    let Some((width, height)) = image.size() else {
        let message = "is not a PNG image, or is damaged; save it again as PNG".to_owned();
        return found(&rules::IMAGE_FORMAT, message);
    };
    if let Some((most_wide, most_high)) = image.exceeded() {
        found(
            &rules::IMAGE_SIZE,
            format!(
                "has {width}×{height} pixels, but its place on the pass has {most_wide}×{most_high}; save it in that size"
            ),
        );
    }
}

/// Checks that the sizes of an image's files fit the scales in their names.
fn check_scales(group: &[&Image<'_>], walk: &mut Walk<'_, '_>) {
    let sizes: Vec<_> = group
        .iter()
        // An image that is larger than its place has a separate finding. The other images are not
        // compared with it.
        .filter(|image| image.is_png && image.exceeded().is_none())
        .filter_map(|image| Some((image, image.size()?)))
        .collect();
    let Some((first, size)) = sizes.iter().min_by_key(|(image, _)| image.scale) else {
        return;
    };
    for (image, (width, height)) in &sizes {
        let expected =
            |side: u32| u64::from(side) * u64::from(image.scale) / u64::from(first.scale);
        // Programs round odd sizes in different ways.
        let fits =
            |side: u32, of: u32| u64::from(side).abs_diff(expected(of)) <= u64::from(image.scale);
        if !fits(*width, size.0) || !fits(*height, size.1) {
            let (wide, high) = (expected(size.0), expected(size.1));
            walk.add(Finding::in_file(
                &rules::IMAGE_SIZE,
                &image.file.name,
                format!(
                    "has {width}×{height} pixels; to match {}, it needs {wide}×{high}",
                    first.file.name
                ),
            ));
        }
    }
}

/// Returns why no phone shows an image of this name, or `None` if phones show it.
fn unused(pass: &Pass<'_>, stem: &str) -> Option<String> {
    let Some(slot) = SLOTS.iter().find(|slot| slot.name == stem) else {
        return Some("is not an image of a pass; remove it, or correct its name".into());
    };
    if stem == PERSONALIZATION_LOGO && !pass.contents.has(PERSONALIZATION) {
        let message = format!("is only shown with {PERSONALIZATION}; remove it");
        return Some(message);
    }
    // There is already a finding about a pass without a known style.
    if pass.styles == Styles::NONE || slot.styles.contains(pass.styles) {
        return None;
    }
    let users: Vec<&str> = slot.styles.names().collect();
    let users = users.join(", ");
    Some(format!("is shown by {users} only; remove it"))
}

/// Reports the missing scales of the icon. If there are icons at the top level, only these count.
/// Otherwise, the icons of each language count.
fn icon_scales(images: &[Image<'_>], walk: &mut Walk<'_, '_>) {
    let icons = || {
        images
            .iter()
            .filter(|image| image.stem == "icon" && image.is_png)
    };
    let folder = icons().map(|image| image.folder).min();
    let Some(folder) = folder else { return };
    let there: BTreeSet<u32> = icons()
        .filter(|image| image.folder == folder)
        .map(|image| image.scale)
        .collect();
    let missing: Vec<&str> = [(1, "icon.png"), (2, "icon@2x.png"), (3, "icon@3x.png")]
        .into_iter()
        .filter(|(scale, _)| !there.contains(scale))
        .map(|(_, name)| name)
        .collect();
    if !missing.is_empty() {
        let missing = missing.join(" and ");
        walk.add(Finding::of_archive(
            &rules::ICON_SCALE,
            format!("lacks {missing}; add the icon in all three sizes"),
        ));
    }
}

fn conflict(pass: &Pass<'_>, images: &[Image<'_>], walk: &mut Walk<'_, '_>) {
    let first = |stem: &str| {
        images
            .iter()
            .find(|image| image.stem == stem && image.is_png)
    };
    let other = first("background").or_else(|| first("thumbnail"));
    if let (Some(strip), Some(other), true) = (
        first("strip"),
        other,
        pass.styles.contains(Styles::EVENT_TICKET),
    ) {
        walk.add(Finding::in_file(
            &rules::IMAGE_CONFLICT,
            &strip.file.name,
            format!(
                "can't be combined with {}; keep the strip, or background and thumbnail",
                other.file.name
            ),
        ));
    }
}
