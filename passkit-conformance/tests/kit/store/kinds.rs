//! Lists the kinds of faults with the calls that have them, and the cases that find them.

use passkit_conformance::Rule;

use super::faulty::kinds::{
    Call,
    Field::{self, *},
    Folding,
    Kind::{self, *},
    Pair,
    Pattern::{Glob, Like, Prefix},
};

const SIZES: &[&str] = &["batches-of-many-sizes"];
const QUEUE_SIZES: &[&str] = &["queue/batches-of-many-sizes"];
const CROWD: &[&str] = &["one-pass-on-many-devices"];
const REOPENED: &[&str] = &["last-write-survives-reopening"];
const QUEUE_REOPENED: &[&str] = &["queue/last-write-survives-reopening"];
const NOTES_REOPENED: &[&str] = &["coordination/last-write-survives-reopening"];
const SERIALS: &[&str] = &["unusual-serial-numbers"];
const ALIKE: &[&str] = &["letters-that-look-alike"];
const TYPES: &[&str] = &["types-that-start-alike"];
const DEVICES: &[&str] = &["devices-that-start-alike"];
const JOINED: &[&str] = &["joined-names-are-kept-apart"];
const ODD: &[&str] = &["queue/odd-names-are-kept-apart"];
const NAMES: &[&str] = &["coordination/names-are-kept-apart"];
const REGISTRATIONS: &[&str] = &["interleaved-registrations"];
const BULK: &[&str] = &["interleaved-bulk-registrations"];
const CLAIMS: &[&str] = &["coordination/interleaved-claims-and-notes"];
const QUEUE: &[&str] = &["queue/interleaved-calls-lose-nothing"];
const TWICE: &[&str] = &["queue/twice-in-a-batch"];
const LAST_ENTRY: &[&str] = &["queue/last-entry-for-a-device-counts"];
const MANY_EQUALS: &[&str] = &["register-many-equals-single-registers"];
const LEASES: &[&str] = &["queue/claims-leave-pushes-alone"];
const ALONE: &[&str] = &["queue/registrations-leave-pushes-alone"];
const DROPPED: &[&str] = &["dropped-call-takes-no-other-along"];
const QUEUE_DROPPED: &[&str] = &["queue/dropped-call-takes-no-other-along"];
const FORGOTTEN: &[&str] = &["forgotten-pass-is-unknown"];
const FORGOTTEN_NAMES: &[&str] = &["forgetting-keeps-passes-apart"];
const FORGOTTEN_PUSHES: &[&str] = &["queue/forgotten-pass-is-not-pending"];
const CONTENTS: &[&str] = &["new-content-marks-its-pass"];

/// Each kind, the rule that the cases must name, and the cases that must find it.
pub(super) const KINDS: &[(Kind, Rule, &[&str])] = &[
    // Sizes.
    (KeepsTheFirst(Call::Mark, 1_000), Rule::MARK, SIZES),
    (KeepsTheFirst(Call::Mark, 65_535), Rule::MARK, SIZES),
    (KeepsTheFirst(Call::Publish, 1_000), Rule::MARK, SIZES),
    (
        KeepsTheFirst(Call::Published, 1_000),
        Rule::PUBLISHED,
        SIZES,
    ),
    (
        KeepsTheFirst(Call::RegisterMany, 1_000),
        Rule::MAINTENANCE,
        CROWD,
    ),
    (KeepsTheFirst(Call::Push, 1_000), Rule::Q1, QUEUE_SIZES),
    (KeepsTheFirst(Call::Progress, 1_000), Rule::Q2, QUEUE_SIZES),
    (KeepsTheFirst(Call::Defer, 1_000), Rule::Q4, QUEUE_SIZES),
    (Refuses(Call::Mark, 999), Rule::ERRORS, SIZES),
    (Refuses(Call::Mark, 32_766), Rule::ERRORS, SIZES),
    (Refuses(Call::Publish, 8_191), Rule::ERRORS, SIZES),
    (Refuses(Call::Published, 999), Rule::ERRORS, SIZES),
    (Refuses(Call::RegisterMany, 21_845), Rule::ERRORS, CROWD),
    (Refuses(Call::Push, 999), Rule::ERRORS, QUEUE_SIZES),
    (Refuses(Call::Progress, 8_191), Rule::ERRORS, QUEUE_SIZES),
    (Refuses(Call::Defer, 5_461), Rule::ERRORS, QUEUE_SIZES),
    (LosesTheRest(Call::Mark, 100), Rule::MARK, SIZES),
    (LosesTheRest(Call::Publish, 500), Rule::MARK, SIZES),
    (
        LosesTheRest(Call::RegisterMany, 1_000),
        Rule::MAINTENANCE,
        CROWD,
    ),
    (LosesTheRest(Call::Push, 100), Rule::Q1, QUEUE_SIZES),
    (LosesTheRest(Call::Progress, 500), Rule::Q3, QUEUE_SIZES),
    (LosesTheRest(Call::Defer, 1_000), Rule::Q4, QUEUE_SIZES),
    (ShowsTheTagFirst(100), Rule::MARK, SIZES),
    (
        EndsAt(Call::List, 10_000),
        Rule::CHANGES_SINCE,
        &["ten-thousand-passes-on-one-device"],
    ),
    (EndsAt(Call::Devices, 10_000), Rule::C11, CROWD),
    (EndsAt(Call::DevicesOfType, 10_000), Rule::C11, CROWD),
    (EndsAt(Call::Count, 10_000), Rule::COUNT_DEVICES, CROWD),
    (
        EndsAt(Call::Registrations, 10_000),
        Rule::MAINTENANCE,
        CROWD,
    ),
    (EndsAt(Call::Stats, 10_000), Rule::MAINTENANCE, CROWD),
    (
        EndsAt(Call::PublishedPasses, 50),
        Rule::MAINTENANCE,
        &["all-published-passes-come-back"],
    ),
    (EndsAt(Call::Backlog, 1_000), Rule::Q1, QUEUE_SIZES),
    (EndsAt(Call::Deferred, 10_000), Rule::Q4, QUEUE_SIZES),
    // The same item twice in a batch.
    (
        RefusesTwice(Call::Mark),
        Rule::ERRORS,
        &["marked-pass-is-listed"],
    ),
    (RefusesTwice(Call::Publish), Rule::ERRORS, CONTENTS),
    (RefusesTwice(Call::RegisterMany), Rule::ERRORS, MANY_EQUALS),
    (
        RefusesTwice(Call::Push),
        Rule::ERRORS,
        &["queue/marked-passes-are-pending"],
    ),
    (RefusesTwice(Call::Progress), Rule::ERRORS, TWICE),
    (RefusesTwice(Call::Defer), Rule::ERRORS, LAST_ENTRY),
    (IgnoresTheSecond(Call::Progress), Rule::Q3, TWICE),
    (IgnoresTheSecond(Call::Defer), Rule::Q4, LAST_ENTRY),
    // Names.
    (
        Matches(Call::Unregister, Serial, Like),
        Rule::NAMES,
        SERIALS,
    ),
    (
        Matches(Call::Unregister, Serial, Prefix),
        Rule::NAMES,
        SERIALS,
    ),
    (
        Matches(Call::Unregister, Device, Like),
        Rule::NAMES,
        DEVICES,
    ),
    (Matches(Call::Unregister, Type, Prefix), Rule::NAMES, TYPES),
    (Matches(Call::List, Device, Prefix), Rule::NAMES, DEVICES),
    (Matches(Call::List, Type, Like), Rule::NAMES, TYPES),
    (Matches(Call::State, Serial, Glob), Rule::NAMES, SERIALS),
    (Matches(Call::State, Serial, Prefix), Rule::NAMES, SERIALS),
    (Matches(Call::Mark, Serial, Like), Rule::NAMES, SERIALS),
    (Matches(Call::Mark, Serial, Prefix), Rule::NAMES, SERIALS),
    (Matches(Call::Mark, Type, Prefix), Rule::NAMES, TYPES),
    (Matches(Call::MarkAll, Type, Prefix), Rule::NAMES, TYPES),
    (Matches(Call::MarkAll, Type, Like), Rule::NAMES, TYPES),
    (Matches(Call::Publish, Serial, Like), Rule::NAMES, SERIALS),
    (Matches(Call::Published, Serial, Glob), Rule::NAMES, SERIALS),
    (Matches(Call::Devices, Serial, Prefix), Rule::NAMES, SERIALS),
    (Matches(Call::Devices, Serial, Like), Rule::NAMES, SERIALS),
    (Matches(Call::DevicesOfType, Type, Like), Rule::NAMES, TYPES),
    (Matches(Call::Count, Serial, Glob), Rule::NAMES, SERIALS),
    (Matches(Call::Forget, Device, Prefix), Rule::NAMES, DEVICES),
    (Matches(Call::Forget, Device, Like), Rule::NAMES, DEVICES),
    (
        Matches(Call::Progress, Field::Scope, Like),
        Rule::NAMES,
        ODD,
    ),
    (
        Matches(Call::Progress, Field::Scope, Prefix),
        Rule::NAMES,
        ODD,
    ),
    (
        Matches(Call::Defer, DeferredDevice, Prefix),
        Rule::NAMES,
        ODD,
    ),
    (Matches(Call::Deferred, Type, Like), Rule::NAMES, ODD),
    (Matches(Call::Note, NoteName, Prefix), Rule::NAMES, NAMES),
    (Matches(Call::Note, NoteName, Glob), Rule::NAMES, NAMES),
    (Matches(Call::Claim, Claim, Like), Rule::NAMES, NAMES),
    (Matches(Call::Release, Claim, Like), Rule::NAMES, NAMES),
    (Joins(Pair::TypeSerial, "."), Rule::NAMES, JOINED),
    (Joins(Pair::TypeSerial, "-"), Rule::NAMES, JOINED),
    (Joins(Pair::TypeSerial, "_"), Rule::NAMES, JOINED),
    (Joins(Pair::TypeSerial, "~"), Rule::NAMES, JOINED),
    (Joins(Pair::SerialType, "."), Rule::NAMES, JOINED),
    (Joins(Pair::DeviceType, "."), Rule::NAMES, JOINED),
    (Joins(Pair::DeviceType, "~"), Rule::NAMES, JOINED),
    (Joins(Pair::TypeDevice, "-"), Rule::NAMES, JOINED),
    (Joins(Pair::DeviceSerial, "_"), Rule::NAMES, JOINED),
    (Joins(Pair::SerialDevice, "."), Rule::NAMES, JOINED),
    (Joins(Pair::SerialDevice, ""), Rule::NAMES, JOINED),
    (Cuts(Serial, 255), Rule::NAMES, SERIALS),
    (Cuts(Serial, 511), Rule::NAMES, SERIALS),
    (Cuts(Device, 127), Rule::NAMES, DEVICES),
    (Cuts(PushToken, 399), Rule::C10, &["push-tokens-come-back"]),
    (
        Cuts(DeferredToken, 399),
        Rule::Q4,
        &["queue/deferred-pushes-come-back"],
    ),
    (Cuts(DeferredDevice, 127), Rule::NAMES, ODD),
    (Cuts(Field::Scope, 511), Rule::NAMES, ODD),
    (
        Cuts(Cursor, 255),
        Rule::Q2,
        &["queue/progress-is-remembered"],
    ),
    (Cuts(Claim, 699), Rule::NAMES, NAMES),
    (Cuts(NoteName, 255), Rule::NAMES, NAMES),
    (
        Cuts(Note, 999),
        Rule::K3,
        &["coordination/notes-are-compared"],
    ),
    (
        Cuts(Owner, 999),
        Rule::K1,
        &["coordination/one-owner-has-a-claim"],
    ),
    (Folds(Serial, Folding::Case), Rule::NAMES, ALIKE),
    (Folds(Serial, Folding::AsciiCase), Rule::NAMES, ALIKE),
    (Folds(Serial, Folding::NormalForm), Rule::NAMES, ALIKE),
    (Folds(Serial, Folding::Accents), Rule::NAMES, ALIKE),
    (Folds(Serial, Folding::Width), Rule::NAMES, ALIKE),
    (Folds(Serial, Folding::TrailingSpace), Rule::NAMES, ALIKE),
    (Folds(Serial, Folding::Invisible), Rule::NAMES, ALIKE),
    (Folds(Serial, Folding::Ligatures), Rule::NAMES, ALIKE),
    (Folds(Type, Folding::AsciiCase), Rule::NAMES, TYPES),
    (Folds(Field::Scope, Folding::Case), Rule::NAMES, ODD),
    (Folds(Field::Scope, Folding::NormalForm), Rule::NAMES, ODD),
    (Folds(DeferredDevice, Folding::AsciiCase), Rule::NAMES, ODD),
    (Folds(NoteName, Folding::Case), Rule::NAMES, NAMES),
    (Folds(Claim, Folding::TrailingSpace), Rule::NAMES, NAMES),
    (
        Folds(Note, Folding::NormalForm),
        Rule::K3,
        &["coordination/notes-are-compared"],
    ),
    // The last write before the data are opened again.
    (Forgets(Call::Register), Rule::C6, REOPENED),
    (Forgets(Call::Unregister), Rule::C6, REOPENED),
    (Forgets(Call::Mark), Rule::C6, REOPENED),
    (Forgets(Call::MarkAll), Rule::C6, REOPENED),
    (Forgets(Call::Publish), Rule::C6, REOPENED),
    (Forgets(Call::Forget), Rule::C6, REOPENED),
    (Forgets(Call::RegisterMany), Rule::C6, REOPENED),
    (ClocksGoBack, Rule::C6, REOPENED),
    (Forgets(Call::Push), Rule::C6, QUEUE_REOPENED),
    (Forgets(Call::PushAll), Rule::C6, QUEUE_REOPENED),
    (Forgets(Call::PushContents), Rule::C6, QUEUE_REOPENED),
    (Forgets(Call::Progress), Rule::C6, QUEUE_REOPENED),
    (Forgets(Call::Finish), Rule::C6, QUEUE_REOPENED),
    (Forgets(Call::Defer), Rule::C6, QUEUE_REOPENED),
    (Forgets(Call::Undefer), Rule::C6, QUEUE_REOPENED),
    (Forgets(Call::ReplaceNote), Rule::K4, NOTES_REOPENED),
    (Forgets(Call::RemoveNote), Rule::K4, NOTES_REOPENED),
    (ClaimsComeBack, Rule::K4, NOTES_REOPENED),
    // Races.
    (Busy(Call::Register), Rule::ERRORS, REGISTRATIONS),
    (Busy(Call::Mark), Rule::ERRORS, &["interleaved-marks"]),
    (
        Busy(Call::Publish),
        Rule::ERRORS,
        &["interleaved-publications"],
    ),
    (Busy(Call::Push), Rule::ERRORS, QUEUE),
    (Busy(Call::Defer), Rule::ERRORS, QUEUE),
    (Busy(Call::Claim), Rule::ERRORS, CLAIMS),
    (Busy(Call::ReplaceNote), Rule::ERRORS, CLAIMS),
    (WritesBack(Call::Register), Rule::C10, REGISTRATIONS),
    (WritesBack(Call::RegisterMany), Rule::MAINTENANCE, BULK),
    (
        ForgetChecksFirst,
        Rule::C13,
        &["interleaved-forget-and-register"],
    ),
    (MarkAllLosesRaces, Rule::C9, &["interleaved-marks"]),
    (DeferWritesBack, Rule::Q4, QUEUE),
    (ProgressChecksFirst, Rule::Q2, QUEUE),
    (Group(Call::Mark), Rule::C12, DROPPED),
    (Group(Call::Push), Rule::C12, QUEUE_DROPPED),
    (Group(Call::Defer), Rule::C12, QUEUE_DROPPED),
    // Calls that must not change the queue.
    (ReleaseFinishes, Rule::Q2, LEASES),
    (ReleaseForgetsProgress, Rule::Q2, LEASES),
    (ReleaseForgetsDeferred, Rule::Q4, LEASES),
    (ExpiryFinishes, Rule::Q2, LEASES),
    (ProgressNeedsTheClaim, Rule::Q2, LEASES),
    (DeferNeedsTheClaim, Rule::Q4, LEASES),
    (ForgetRemovesDeferred, Rule::Q4, ALONE),
    (UnregisterRemovesDeferred, Rule::Q4, ALONE),
    (ForgetFinishes, Rule::Q2, ALONE),
    (RegisterReplacesDeferredToken, Rule::Q4, ALONE),
    (MarkRemovesDeferred, Rule::Q4, ALONE),
    (
        MarkAllAbsorbsPasses,
        Rule::Q1,
        &["queue/marked-types-are-pending"],
    ),
    (FinishedTypeFinishesPasses, Rule::Q2, ALONE),
    (FinishedPassFinishesType, Rule::Q2, ALONE),
    (
        AttemptsAreSigned,
        Rule::Q4,
        &["queue/deferred-pushes-come-back"],
    ),
    (
        BadSinceIsLost,
        Rule::Q4,
        &["queue/deferred-pushes-come-back"],
    ),
    (
        DueIsInMilliseconds,
        Rule::Q4,
        &["queue/deferred-pushes-come-back"],
    ),
    (BacklogRepeatsTypes, Rule::Q3, &["queue/backlog-sums-up"]),
    (
        PendingRepeats,
        Rule::Q2,
        &["queue/marked-passes-are-pending"],
    ),
    // Devices, contents and bulk registrations.
    (
        TokenOfEachRegistration,
        Rule::C10,
        &["every-register-stores-the-push-token"],
    ),
    (
        TypeIndexLosesDevices,
        Rule::C11,
        &["pages-of-a-type-hold-every-device"],
    ),
    (
        CountsRegistersTwice,
        Rule::COUNT_DEVICES,
        &["devices-are-counted"],
    ),
    (DigestsAreTexts, Rule::P2, CONTENTS),
    (DigestsCut(31), Rule::P2, CONTENTS),
    (DigestsCut(8), Rule::P2, CONTENTS),
    (ZeroDigestIsNone, Rule::P2, CONTENTS),
    (TokensCut(31), Rule::P5, CONTENTS),
    (KnownKeepsItsToken, Rule::MAINTENANCE, MANY_EQUALS),
    (KnownIsNotRenewed, Rule::C3, MANY_EQUALS),
    (
        ForgetComparesSeconds,
        Rule::C13,
        &["forget-respects-the-time"],
    ),
    // Forgetting passes.
    (ForgetsNoPass, Rule::FORGET_PASS, FORGOTTEN),
    (
        ForgetsPassesEarly,
        Rule::C14,
        &["forgetting-waits-for-the-date"],
    ),
    (ForgottenKeepsItsTokens, Rule::FORGET_PASS, FORGOTTEN),
    (ForgottenStaysPending, Rule::FORGET_PASS, FORGOTTEN_PUSHES),
    (
        ForgetsThePushesOfTheType,
        Rule::FORGET_PASS,
        FORGOTTEN_PUSHES,
    ),
    (
        Matches(Call::ForgetPass, Serial, Like),
        Rule::NAMES,
        FORGOTTEN_NAMES,
    ),
    (
        Matches(Call::ForgetPass, Serial, Prefix),
        Rule::NAMES,
        FORGOTTEN_NAMES,
    ),
    (
        Matches(Call::ForgetPass, Type, Prefix),
        Rule::NAMES,
        FORGOTTEN_NAMES,
    ),
    (
        Forgets(Call::ForgetPass),
        Rule::C6,
        &["forgotten-passes-stay-forgotten"],
    ),
];
