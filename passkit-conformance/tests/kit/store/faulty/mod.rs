//! Stores with one fault each.

mod contents;
mod coordination;
mod delivery;
pub(crate) mod kinds;
mod maintenance;
mod queue;
mod registrations;

pub(crate) use maintenance::FaultyStores;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Mutex,
};

use passkit_server::{
    PassId, PassState,
    identifiers::{DeviceIdentifier, PushToken, TypeIdentifier},
    store::{
        Changes, ContentDigest, MemoryStore, Published, RegistrationStore, StoreError, UpdateTag,
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// `hanging.rs` uses this fault. `faults.rs` does not list it, because a hanging call takes as
    /// long as the time limit.
    HangsForUnknownDevices,
    BlocksThreads,
    TagsOfWholeSeconds,
    GreaterOrEqual,
    PushTokenNotReplaced,
    AlwaysCreated,
    AlwaysExisting,
    RegisterChecksFirst,
    RegisterInTwoSteps,
    ListIgnoresType,
    ListIgnoresDevice,
    ListRepeatsSerials,
    ListFailsForUnknownDevice,
    OnlyTheNewestListed,
    TagNowBesideTheQuery,
    TagOfTheOldest,
    TagOfWhatIsRegistered,
    TagNeverMoves,
    TagAheadIsCovered,
    TypeTagAheadByOneIsCovered,
    DeviceTagAheadByOneIsCovered,
    TypesCut,
    GroupCommitTakesOthersAlong,
    RegistrationVersionIgnored,
    NumberTakenBeforeItShows,
    MarkAllDoesNothing,
    MarkAllPanics,
    MarkAllWalks,
    MarkAllWalksRegistrations,
    FloorIgnoredInLists,
    FloorIgnoredInDates,
    EmptyBatchMarksAll,
    BatchMarkedOneByOne,
    DateIsNow,
    UnmarkedDateIsNow,
    DateSharedByType,
    UnregisterLeavesRegistration,
    UnregisterLeavesDevice,
    UnregisterSaysTrue,
    ForgetIgnoresTime,
    ForgetNeedsLaterTime,
    ForgetLeavesRegistrations,
    PagesSkip,
    PagesByOffset,
    PageLimitIgnored,
    CursorFails,
    SerialsFolded,
    TypesFolded,
    DevicesFolded,
    KindIgnored,
    PushTokenIsTheKey,
    PagesForgetThePass,
    UnmarkedDateOfItsType,
    ForgetTimeOverflows,
    ForgetOneByOne,
    UnregisterInTwoSteps,
    UnregisterOfAnother,
    MarkAllOneByOne,
    ListsAtMostAThousand,
    ReturnedDeviceIsOld,
    ManyKeepsTheFirstToken,
    ManyCountsAll,
    ManySkipsExisting,
    RegistrationPagesSkip,
    RegistrationPagesByOffset,
    PublishedPagesSkip,
    PublishedPassesLackRemoved,
    StatsCountGoneDevices,
    StatsCountMarks,
    LosesARegistration,
    OpensEmpty,
    ClocksStartAnew,
    PushesNothing,
    PushesTheFirstOnly,
    PushesWithoutMarking,
    PushesNoTypes,
    EmptyBatchPushesAll,
    MarksThenPushes,
    PlainMarksPush,
    MarkedAgainKeepsItsVersion,
    MarkedAgainForgetsTheProgress,
    ProgressIsNotKept,
    AnyVersionFinishes,
    OldVersionKeepsTheProgress,
    NothingFinishes,
    ProgressMakesPending,
    BacklogNamesFinishedTypes,
    BacklogMissesDeferred,
    BacklogSinceIsNow,
    PendingOfTypesThatStartAlike,
    PendingLimitIgnored,
    PendingByName,
    ClaimChecksFirst,
    ClaimNotForItsOwner,
    ClaimOfAllNames,
    ClaimNeverEnds,
    ClaimEndsAtOnce,
    ClaimIsNotProlonged,
    AnyoneReleases,
    NobodyReleases,
    NoteChecksFirst,
    NoteIgnoresWhatIsExpected,
    NoteIsNeverRemoved,
    NoteAnswersTrue,
    NotesFolded,
    ReleaseRemovesTheNote,
    DeferKeepsTheFirst,
    DeferredTimesAreSeconds,
    DeferredPagesSkip,
    RemovesOneDeferredOnly,
    DeferredRemovedFirst,
    NextDeferredIsNowWithoutTimes,
    NextDeferredIsAnyOne,
    DeferredTokensFolded,
    ReopeningForgetsPending,
    ReopeningForgetsProgress,
    ReopeningForgetsDeferred,
    ReopeningForgetsNotes,
    ReopeningForgetsDigests,
    ReopeningForgetsTokens,
    TypePagesSkip,
    TypePagesByOffset,
    TypePagesByPrefix,
    TypePagesMissSecondPasses,
    TypePagesKeepWhoLeft,
    TypeCursorForgetsThePass,
    TypeCursorFails,
    CountsWhoEverRegistered,
    CountsAllOfTheType,
    CountStopsEarly,
    PushTokensFolded,
    PushTokensCut,
    ContentsAlwaysMark,
    ContentsMarkTheWholeBatch,
    OldContentsDoNotMark,
    StateWithoutDigest,
    PublishChecksFirst,
    PublishWritesBack,
    PublishMarksFirst,
    PublishRemembersFirst,
    PublishPushesLater,
    MarksForgetTheDigest,
    MarksOfAllForgetTheDigest,
    TokensReplaced,
    FirstTokensKept,
    TokenAgainStaysInPlace,
    RemovalMarks,
    RemovalForgetsTheDigest,
    RemovalForgetsTheTokens,
    RemovalIsNoContent,
    FirstRemovalHidesTheContent,
    RemovedForGood,
    PublishedLeavesOutUnknown,
    PublishedInItsOwnOrder,
    PublishedOfUnknownIsEmpty,
    ContentsOfSerialsFolded,
    EqualContentsPush,
    RecordsTheFirstThousand,
    RecordsTwiceCountOnce,
    RecordsShowLater,
    RecordsAreReadFirst,
    RecordKeepsTheFirstTime,
    RecordTakesTheLastTime,
    RecordTakesTheLastDetail,
    RecordCountsAreOverwritten,
    RecordCountsOverflow,
    RecordCountsAre32Bits,
    RecordTakesTheLastVersion,
    RecordKeepsTheFirstVersion,
    RecordTakesTheLatestVersion,
    RecordComparesVersionsAsTexts,
    RecordAddsCountsOfVersions,
    RecordKeepsTheLaterTimeOfVersions,
    RecordTimesAreMillis,
    RecordDetailsAreTrimmed,
    RecordDetailsAreCut,
    EqualTimesKeepTheFirstDetail,
    EqualTimesTakeTheLastDetail,
    EqualTimesCompareDetailsWithoutCase,
    EqualTimesCompareUtf16,
    EventsAreCut,
    SubjectsWithoutKind,
    SubjectsWithoutType,
    SubjectsAreJoined,
    SubjectsAreFolded,
    SubjectTypesAreFolded,
    SubjectsAreTrimmed,
    SubjectsByPrefix,
    AnswersAreSorted,
    AnswersLackUnknownSubjects,
    AnswersLackRepeatedSubjects,
    AnswersOfTheFirstThousand,
    AnswersAreCached,
    ForgetsOtherKinds,
    ForgetsTheFirstEventOnly,
    ForgetsTheFirstSubjectOnly,
    ForgetsTheFirstThousand,
    ForgottenVersionsHideOlder,
    DiscardsTheTimeItself,
    DiscardsWholeMilliseconds,
    DiscardsByTheFirstTime,
    DiscardsWholeSubjects,
    DiscardStopsEarly,
    DiscardNeverEnds,
    Kind(kinds::Kind),
}

pub(crate) struct Faulty {
    inner: MemoryStore,
    beside: MemoryStore,
    fault: Fault,
    memory: Mutex<Memory>,
}

/// Data that some faults need to remember.
#[derive(Default)]
struct Memory {
    types: BTreeSet<TypeIdentifier>,
    devices: HashSet<DeviceIdentifier>,
    first_tokens: HashMap<DeviceIdentifier, PushToken>,
    marked: HashMap<PassId, PassState>,
    hidden: HashSet<(DeviceIdentifier, PassId)>,
    sequence: u64,
    /// The newest number that a list has returned.
    newest_listed: u64,
    passes: BTreeSet<PassId>,
    gone: HashSet<DeviceIdentifier>,
    returned: HashSet<DeviceIdentifier>,
    registered: HashSet<(DeviceIdentifier, PassId)>,
    queue: queue::Queue,
    contents: HashMap<PassId, Published>,
    /// All digests that were ever published.
    digests: HashSet<(PassId, ContentDigest)>,
    owners: HashMap<String, String>,
    group: registrations::Group,
    delivery: delivery::Log,
}

impl Faulty {
    pub(crate) fn new(fault: Fault) -> Self {
        Self {
            inner: MemoryStore::new(),
            beside: MemoryStore::new(),
            fault,
            memory: Mutex::default(),
        }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn memory<T>(&self, f: impl FnOnce(&mut Memory) -> T) -> T {
        f(&mut self.memory.lock().unwrap())
    }

    fn hidden_pass() -> PassId {
        PassId::new("pass.hidden", "hidden").unwrap()
    }

    fn named(&self, pass: &PassId) -> PassId {
        let serial = pass.serial.as_str();
        let serial = if self.is(Fault::SerialsFolded) {
            serial.to_lowercase()
        } else {
            serial.to_owned()
        };
        PassId::new(self.type_named(&pass.type_id).as_str(), &serial).unwrap()
    }

    fn type_named(&self, type_id: &TypeIdentifier) -> TypeIdentifier {
        let text = type_id.as_str();
        match self.fault {
            Fault::TypesFolded => TypeIdentifier::new(&text.to_lowercase()).unwrap(),
            Fault::TypesCut => TypeIdentifier::new(&text[..text.len().min(127)]).unwrap(),
            Fault::KindIgnored => {
                TypeIdentifier::new(&text.replacen("order.", "pass.", 1)).unwrap()
            }
            _ => type_id.clone(),
        }
    }

    fn device_named(&self, device: &DeviceIdentifier) -> DeviceIdentifier {
        if self.is(Fault::DevicesFolded) {
            DeviceIdentifier::new(&device.as_str().to_lowercase()).unwrap()
        } else {
            device.clone()
        }
    }

    /// The passes that a device may be registered for.
    fn passes(&self) -> BTreeSet<PassId> {
        self.memory(|memory| memory.passes.clone())
    }

    async fn is_registered(&self, device: &DeviceIdentifier, pass: &PassId) -> bool {
        let all = self
            .inner
            .changes_since(device, &pass.type_id, None)
            .await
            .unwrap();
        all.serials.contains(&pass.serial)
    }

    /// Answers like a store that calls `changed(version, tag)` to decide whether a pass changed.
    /// New registrations are listed correctly.
    async fn list_by(
        &self,
        device: &DeviceIdentifier,
        type_id: &TypeIdentifier,
        since: Option<UpdateTag>,
        version: impl Fn(&PassId, PassState) -> u64 + Send,
        changed: impl Fn(u64, u64) -> bool + Send,
    ) -> Result<Changes, StoreError> {
        let mut all = self.inner.changes_since(device, type_id, None).await?;
        let Some(since) = since.and_then(|since| since.unless_ahead_of(all.tag)) else {
            return Ok(all);
        };
        let registered = UpdateTag {
            device_version: since.device_version,
            ..all.tag
        };
        let new = self
            .inner
            .changes_since(device, type_id, Some(registered))
            .await?;
        let mut serials = new.serials;
        for serial in all.serials {
            let pass = PassId {
                type_id: type_id.clone(),
                serial,
            };
            let state = self.inner.pass_state(&pass).await?;
            if changed(version(&pass, state), since.type_version) && !serials.contains(&pass.serial)
            {
                serials.push(pass.serial);
            }
        }
        all.serials = serials;
        Ok(all)
    }
}
