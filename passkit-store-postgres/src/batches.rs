//! The calls that share a statement with other waiting calls: see [`engine::batch`](crate::engine::batch).

use passkit_server::{
    PassId, PassState,
    identifiers::{DeviceIdentifier, PushToken, SerialNumber, TypeIdentifier},
    store::{Changes, ContentDigest, Registered, UpdateTag},
};
use sqlx::postgres::PgRow;

use crate::{
    engine::{
        batch::Work,
        connections::Statement,
        rows::{column, identifier, only, row_for_each, signed, unsigned},
    },
    error::PostgresError,
    layout,
};

/// How many passes go into one statement.
pub(crate) const PASSES_AT_ONCE: usize = 1_024;

/// A call that asks what changed for this device since this tag.
#[derive(Debug)]
pub(crate) struct ListQuestion {
    pub(crate) device: DeviceIdentifier,
    pub(crate) type_id: TypeIdentifier,
    pub(crate) since: Option<UpdateTag>,
}

/// Reads the lists of changes for several devices.
#[derive(Debug)]
pub(crate) struct Lists;

impl Work for Lists {
    type Question = ListQuestion;
    type Answer = Changes;
    const AT_ONCE: usize = 2;
    const MAX_WEIGHT: usize = 64;

    fn weight(&self, _: &ListQuestion) -> usize {
        1
    }

    fn statement(&self, questions: &[ListQuestion]) -> Statement {
        // A single question needs no arrays, so its statement is faster.
        if let [one] = questions {
            return Statement::new(layout::CHANGES_SINCE)
                .bind(one.device.as_str())
                .bind(one.type_id.as_str())
                .bind(one.since.map(|tag| signed(tag.type_version)))
                .bind(one.since.map(|tag| signed(tag.device_version)));
        }
        let part = |of: fn(UpdateTag) -> u64| -> Vec<Option<i64>> {
            questions
                .iter()
                .map(|one| one.since.map(|tag| signed(of(tag))))
                .collect()
        };
        Statement::new(layout::CHANGES_SINCE_MANY)
            .bind(
                questions
                    .iter()
                    .map(|one| one.device.as_str())
                    .collect::<Vec<_>>(),
            )
            .bind(
                questions
                    .iter()
                    .map(|one| one.type_id.as_str())
                    .collect::<Vec<_>>(),
            )
            .bind(part(|tag| tag.type_version))
            .bind(part(|tag| tag.device_version))
    }

    fn answers(
        &self,
        rows: &[PgRow],
        count: usize,
    ) -> Result<Vec<Result<Changes, PostgresError>>, PostgresError> {
        row_for_each(rows, count, |row| {
            let tag = UpdateTag {
                type_version: unsigned(row, 0)?,
                device_version: unsigned(row, 1)?,
            };
            let serials = column::<Vec<String>>(row, 2)?.into_iter();
            let serials = serials
                .map(|text| identifier(&text, SerialNumber::new))
                .collect::<Result<_, _>>()?;
            Ok(Changes { serials, tag })
        })
    }
}

/// Reads the states of several passes.
#[derive(Debug)]
pub(crate) struct States;

impl Work for States {
    type Question = PassId;
    type Answer = PassState;
    const AT_ONCE: usize = 2;
    const MAX_WEIGHT: usize = 64;

    fn weight(&self, _: &PassId) -> usize {
        1
    }

    fn statement(&self, passes: &[PassId]) -> Statement {
        // A single question needs no arrays, so its statement is faster.
        if let [pass] = passes {
            let statement = Statement::new(layout::PASS_STATE);
            return statement
                .bind(pass.type_id.as_str())
                .bind(pass.serial.as_str());
        }
        Statement::new(layout::PASS_STATES)
            .bind(
                passes
                    .iter()
                    .map(|pass| pass.type_id.as_str())
                    .collect::<Vec<_>>(),
            )
            .bind(
                passes
                    .iter()
                    .map(|pass| pass.serial.as_str())
                    .collect::<Vec<_>>(),
            )
    }

    fn answers(
        &self,
        rows: &[PgRow],
        count: usize,
    ) -> Result<Vec<Result<PassState, PostgresError>>, PostgresError> {
        row_for_each(rows, count, |row| {
            Ok(PassState {
                version: unsigned(row, 0)?,
                last_modified: unsigned(row, 1)?,
                published: digest(row, 2)?,
            })
        })
    }
}

/// Marks the passes of several callers. All are of one type, and all with or all without pushes.
#[derive(Debug)]
pub(crate) struct Marks {
    pub(crate) type_id: TypeIdentifier,
    pub(crate) push: bool,
}

impl Work for Marks {
    type Question = Vec<SerialNumber>;
    type Answer = ();
    /// A mark locks the row of the type. A second statement would only occupy a connection while it waits
    /// for this lock.
    const AT_ONCE: usize = 1;
    const MAX_WEIGHT: usize = PASSES_AT_ONCE;

    fn weight(&self, serials: &Vec<SerialNumber>) -> usize {
        serials.len()
    }

    fn statement(&self, questions: &[Vec<SerialNumber>]) -> Statement {
        mark_statement(&self.type_id, questions.iter().flatten(), self.push)
    }

    fn answers(
        &self,
        _: &[PgRow],
        count: usize,
    ) -> Result<Vec<Result<(), PostgresError>>, PostgresError> {
        Ok((0..count).map(|_| Ok(())).collect())
    }
}

/// Makes the registrations of several callers.
#[derive(Debug)]
pub(crate) struct Registers;

impl Registers {
    pub(crate) fn statement_of<'a>(
        registrations: impl Iterator<Item = (&'a DeviceIdentifier, &'a PassId, &'a PushToken)>,
    ) -> Statement {
        let (mut devices, mut types, mut serials, mut tokens) = (vec![], vec![], vec![], vec![]);
        for (device, pass, push_token) in registrations {
            devices.push(device.as_str());
            types.push(pass.type_id.as_str());
            serials.push(pass.serial.as_str());
            tokens.push(push_token.as_str());
        }
        Statement::new(layout::REGISTER_MANY)
            .bind(devices)
            .bind(types)
            .bind(serials)
            .bind(tokens)
    }

    pub(crate) fn created(rows: &[PgRow], count: usize) -> Result<Vec<bool>, PostgresError> {
        let created: Vec<bool> = only(rows)?;
        if created.len() != count {
            let wrong = format!("{} answers for {count} registrations", created.len());
            return Err(PostgresError::unreadable(wrong));
        }
        Ok(created)
    }
}

impl Work for Registers {
    type Question = (DeviceIdentifier, PassId, PushToken);
    type Answer = Registered;
    const AT_ONCE: usize = 2;
    const MAX_WEIGHT: usize = 64;

    fn weight(&self, _: &Self::Question) -> usize {
        1
    }

    fn statement(&self, questions: &[Self::Question]) -> Statement {
        // A single question needs no arrays, so its statement is faster.
        if let [(device, pass, push_token)] = questions {
            return Statement::new(layout::REGISTER)
                .bind(device.as_str())
                .bind(pass.type_id.as_str())
                .bind(pass.serial.as_str())
                .bind(push_token.as_str());
        }
        Self::statement_of(
            questions
                .iter()
                .map(|(device, pass, push_token)| (device, pass, push_token)),
        )
    }

    fn answers(
        &self,
        rows: &[PgRow],
        count: usize,
    ) -> Result<Vec<Result<Registered, PostgresError>>, PostgresError> {
        let created = if count == 1 {
            vec![only(rows)?]
        } else {
            Self::created(rows, count)?
        };
        Ok(created
            .into_iter()
            .map(|new| {
                Ok(if new {
                    Registered::Created
                } else {
                    Registered::Existing
                })
            })
            .collect())
    }
}

pub(crate) fn mark_statement<'a>(
    type_id: &TypeIdentifier,
    serials: impl Iterator<Item = &'a SerialNumber>,
    push: bool,
) -> Statement {
    let serials: Vec<_> = serials.map(SerialNumber::as_str).collect();
    Statement::new(layout::MARK)
        .bind(type_id.as_str())
        .bind(serials)
        .bind(push)
}

pub(crate) fn digest(row: &PgRow, index: usize) -> Result<Option<ContentDigest>, PostgresError> {
    let digest: Option<&[u8]> = column(row, index)?;
    digest
        .map(|digest| digest.try_into().map_err(PostgresError::unreadable))
        .transpose()
}
