//! Correct services over faulty stores.

use passkit_conformance::Rule;

use crate::store::faulty::Fault as StoreFault;

/// The fault of the store, the rule that the cases must name, and the cases that must find it.
pub(super) const FAULTS: &[(StoreFault, Rule, &[&str])] = &[
    (
        StoreFault::OnlyTheNewestListed,
        Rule::LIST_2,
        &["list/all-changes-are-listed"],
    ),
    (
        StoreFault::TagsOfWholeSeconds,
        Rule::TAG_1,
        &["list/changes-close-together"],
    ),
    (
        StoreFault::GreaterOrEqual,
        Rule::LIST_2,
        &["list/nothing-new-is-204", "trace/update"],
    ),
    (
        StoreFault::RegistrationVersionIgnored,
        Rule::C3,
        &["list/new-registration-is-listed"],
    ),
    (
        StoreFault::NumberTakenBeforeItShows,
        Rule::LIST_5,
        &["list/no-lost-update-under-writers"],
    ),
    (
        StoreFault::TagNowBesideTheQuery,
        Rule::LIST_5,
        &["list/no-lost-update-under-writers"],
    ),
    (
        StoreFault::TagNeverMoves,
        Rule::LIST_6,
        &["list/tag-moves-with-each-list"],
    ),
    (
        StoreFault::ListIgnoresType,
        Rule::LIST_3,
        &["list/keeps-types-apart"],
    ),
    (
        StoreFault::ListIgnoresDevice,
        Rule::LIST_3,
        &["list/keeps-devices-apart"],
    ),
    (
        StoreFault::ListRepeatsSerials,
        Rule::LIST_11,
        &["list/no-serial-twice"],
    ),
    (
        StoreFault::UnregisterLeavesRegistration,
        Rule::UNR_1,
        &["trace/deleted"],
    ),
];
