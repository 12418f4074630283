/// The two kinds of content that Wallet keeps up to date, and all differences between their
/// protocols.
///
/// All other code is the same for both kinds. In these documents, *pass* means a pass or an order.
///
/// Sources: Apple's *Wallet Passes* and *Wallet Orders* web-service references.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A pass: boarding pass, coupon, event ticket, store card or generic.
    Pass,
    /// An order, tracked in Wallet since iOS 16.
    Order,
}

impl Kind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Pass, Self::Order];

    /// Returns the kind of a type identifier, by its [`type_prefix`](Self::type_prefix).
    #[must_use]
    pub fn of_type(type_identifier: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| type_identifier.starts_with(kind.type_prefix()))
    }

    /// The prefix of every type identifier of this kind: `pass.` or `order.`.
    #[must_use]
    pub const fn type_prefix(self) -> &'static str {
        match self {
            Self::Pass => "pass.",
            Self::Order => "order.",
        }
    }

    /// The path segment after `/v1/` for fetching the newest version: `passes` or `orders`.
    #[must_use]
    pub const fn collection(self) -> &'static str {
        match self {
            Self::Pass => "passes",
            Self::Order => "orders",
        }
    }

    /// The scheme of the `Authorization` header: `ApplePass` or `AppleOrder`.
    #[must_use]
    pub const fn auth_scheme(self) -> &'static str {
        match self {
            Self::Pass => "ApplePass",
            Self::Order => "AppleOrder",
        }
    }

    /// The query parameter that carries the device's update tag in the list call.
    #[must_use]
    pub const fn since_parameter(self) -> &'static str {
        match self {
            Self::Pass => "passesUpdatedSince",
            Self::Order => "ordersModifiedSince",
        }
    }

    /// The key of the changed serial numbers (or order identifiers) in the list answer.
    #[must_use]
    pub const fn serials_key(self) -> &'static str {
        match self {
            Self::Pass => "serialNumbers",
            Self::Order => "orderIdentifiers",
        }
    }

    /// The key of the new update tag in the list answer.
    #[must_use]
    pub const fn tag_key(self) -> &'static str {
        match self {
            Self::Pass => "lastUpdated",
            Self::Order => "lastModified",
        }
    }

    /// The media type of the archive.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Pass => "application/vnd.apple.pkpass",
            Self::Order => "application/vnd.apple.finance.order",
        }
    }

    /// The extension of the archive's file name, without the dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Pass => "pkpass",
            Self::Order => "order",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_have_apples_extensions() {
        assert_eq!(Kind::ALL.map(Kind::extension), ["pkpass", "order"]);
    }
}
