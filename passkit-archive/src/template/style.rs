use std::collections::BTreeMap;

use passkit_server::identifiers::Kind;
use serde_json::{Value, json};

use super::{Template, document::Json};
use crate::{ArchiveBuilder, placeholder_icon};

/// The style of a pass, or an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Style {
    /// A boarding pass. It is for a flight, unless you set `/boardingPass/transitType`.
    BoardingPass,
    /// A coupon.
    Coupon,
    /// A ticket for an event.
    EventTicket,
    /// Any other pass.
    Generic,
    /// A pass with a poster, for iOS 27. Older phones show it as [`Generic`](Self::Generic).
    PosterGeneric,
    /// A card of a shop, such as a stamp card.
    StoreCard,
    /// An order.
    Order,
}

impl Style {
    /// Makes the template of a style, with the keys that are the same in all passes of the style.
    pub(super) fn template(self) -> Template {
        let styles: Vec<(&str, Value)> = match self {
            Self::BoardingPass => {
                vec![("boardingPass", json!({ "transitType": "PKTransitTypeAir" }))]
            }
            Self::Coupon => vec![("coupon", json!({}))],
            Self::EventTicket => vec![("eventTicket", json!({}))],
            Self::Generic => vec![("generic", json!({}))],
            Self::PosterGeneric => vec![("posterGeneric", json!({})), ("generic", json!({}))],
            Self::StoreCard => vec![("storeCard", json!({}))],
            Self::Order => vec![],
        };
        let (kind, version) = match self {
            Self::Order => (Kind::Order, "schemaVersion"),
            _ => (Kind::Pass, "formatVersion"),
        };
        let members = std::iter::once((version, json!(1))).chain(styles);
        let members = members.map(|(key, value)| (key.to_owned(), value.into()));
        let files = match kind {
            Kind::Pass => BTreeMap::from([
                ("icon.png", placeholder_icon(38)),
                ("icon@2x.png", placeholder_icon(76)),
                ("icon@3x.png", placeholder_icon(114)),
            ]),
            Kind::Order => BTreeMap::new(),
        };
        let files = files
            .into_iter()
            .fold(ArchiveBuilder::new(kind, ""), |builder, (name, icon)| {
                builder.file(name, icon)
            });
        Template {
            kind,
            json: Json::Object(members.collect()),
            outline: files.clone(),
            files,
            samples: Vec::new(),
            recipe: None,
        }
    }
}
