//! The templates that `passkit new` writes. They are in the folder `templates` of this crate.

use clap::ValueEnum;
use passkit_server::identifiers::Kind;

/// The style of a template, as Apple names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "camelCase")]
pub(crate) enum Style {
    /// Any pass: here a library card.
    Generic,
    /// A card of a shop: here a member card with points.
    StoreCard,
    /// A coupon.
    Coupon,
    /// A ticket for an event.
    EventTicket,
    /// A ticket with a poster, from iOS 18 on. Its certificate must allow NFC.
    PosterEventTicket,
    /// A ticket for a journey: here by train.
    BoardingPass,
    /// A boarding pass that phones lay out from its semantic tags, from iOS 26 on.
    SemanticBoardingPass,
    /// A membership with a poster, from iOS 27 on. Older phones show a generic pass.
    PosterGeneric,
    /// An order.
    Order,
}

/// The name and the content of a file.
pub(crate) type File = (&'static str, &'static [u8]);

/// A template with a sample table.
pub(crate) struct Starter {
    pub(crate) table: File,
    pub(crate) files: &'static [File],
}

macro_rules! file {
    ($style:literal, $name:expr) => {
        (
            $name,
            include_bytes!(concat!("../templates/", $style, "/", $name)),
        )
    };
}

macro_rules! pass {
    ($style:literal, $table:literal, $($image:literal)*) => {
        Starter {
            table: file!($style, $table),
            files: &[
                file!($style, "pass.json"),
                file!($style, "passkit.toml"),
                file!($style, "en.lproj/pass.strings"),
                file!($style, "de.lproj/pass.strings"),
                $(
                    file!($style, concat!($image, ".png")),
                    file!($style, concat!($image, "@2x.png")),
                    file!($style, concat!($image, "@3x.png")),
                )*
            ],
        }
    };
}

impl Style {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Order => Kind::Order,
            _ => Kind::Pass,
        }
    }

    /// Returns whether a certificate for this style must allow NFC.
    pub(crate) fn needs_nfc(self) -> bool {
        self == Self::PosterEventTicket
    }

    #[rustfmt::skip]
    pub(crate) fn starter(self) -> Starter {
        match self {
            Self::Generic => pass!("generic", "members.csv", "icon" "logo" "thumbnail"),
            Self::StoreCard => pass!("storeCard", "members.csv", "icon" "logo" "strip"),
            Self::Coupon => pass!("coupon", "coupons.csv", "icon" "logo" "strip"),
            Self::EventTicket => pass!("eventTicket", "tickets.csv", "icon" "logo" "strip"),
            Self::PosterEventTicket => pass!("posterEventTicket", "tickets.csv", "icon" "logo" "background"),
            Self::BoardingPass => pass!("boardingPass", "passengers.csv", "icon" "logo"),
            Self::SemanticBoardingPass => pass!("semanticBoardingPass", "passengers.csv", "icon" "logo" "primaryLogo"),
            Self::PosterGeneric => pass!("posterGeneric", "members.csv", "icon" "logo" "primaryLogo" "artwork" "thumbnail"),
            Self::Order => Starter {
                table: file!("order", "orders.csv"),
                files: &[
                    file!("order", "order.json"),
                    file!("order", "passkit.toml"),
                    file!("order", "logo.png"),
                ],
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_in_a_template() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
        for style in Style::value_variants() {
            let name = style.to_possible_value().unwrap();
            let folder = root.join(name.get_name());
            let Starter { table, files } = style.starter();
            let embedded: BTreeSet<_> = files
                .iter()
                .chain([&table])
                .map(|(name, _)| folder.join(name))
                .collect();
            assert!(embedded == files_below(&folder), "{folder:?}");
        }
    }

    fn files_below(folder: &Path) -> BTreeSet<std::path::PathBuf> {
        let entries = fs::read_dir(folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .flat_map(|path| match path.is_dir() {
                true => files_below(&path),
                false => BTreeSet::from([path]),
            })
            .collect()
    }
}
