//! The calls that may share a statement: what goes in as arrays, and comes out as rows. A lone question goes without
//! arrays, which is quicker.

use std::time::Duration;

use passkit_server::{
    Changes, DeviceIdentifier, InvalidIdentifier, PassId, PassState, PushToken, Registered, SerialNumber,
    TypeIdentifier, UpdateTag,
};
use sqlx::{Decode, Postgres, Row as _, Type, postgres::PgRow};

use crate::{batch::Work, connections::Statement, error::Failure, schema};

pub(crate) fn column<'r, T: Decode<'r, Postgres> + Type<Postgres>>(
    row: &'r PgRow,
    index: usize,
) -> Result<T, Failure> {
    Ok(row.try_get(index)?)
}

/// The only row of a statement.
pub(crate) fn only<'r, T: Decode<'r, Postgres> + Type<Postgres>>(rows: &'r [PgRow]) -> Result<T, Failure> {
    match rows {
        [row] => column(row, 0),
        _ => Err(Failure::unreadable(format!("{} rows in place of one", rows.len()))),
    }
}

/// A version or date.
pub(crate) fn unsigned(row: &PgRow, index: usize) -> Result<u64, Failure> {
    u64::try_from(column::<i64>(row, index)?).map_err(Failure::unreadable)
}

/// The same as PostgreSQL can hold it: what is later than all it can hold stays so.
pub(crate) fn signed(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

pub(crate) fn identifier<T>(
    text: &str,
    checked: impl FnOnce(&str) -> Result<T, InvalidIdentifier>,
) -> Result<T, Failure> {
    checked(text).map_err(Failure::unreadable)
}

fn row_for_each<T>(
    rows: &[PgRow],
    count: usize,
    answer: impl Fn(&PgRow) -> Result<T, Failure>,
) -> Result<Vec<Result<T, Failure>>, Failure> {
    if rows.len() != count {
        return Err(Failure::unreadable(format!("{} rows for {count} questions", rows.len())));
    }
    Ok(rows.iter().map(answer).collect())
}

#[derive(Debug)]
pub(crate) struct ListQuestion {
    pub(crate) device: DeviceIdentifier,
    pub(crate) type_id: TypeIdentifier,
    pub(crate) since: Option<UpdateTag>,
}

#[derive(Debug)]
pub(crate) struct Lists;

impl Work for Lists {
    type Question = ListQuestion;
    type Answer = Changes;
    const AT_ONCE: usize = 2;
    const MOST: usize = 64;

    fn weight(&self, _: &ListQuestion) -> usize {
        1
    }

    fn statement(&self, questions: &[ListQuestion]) -> Statement {
        if let [one] = questions {
            return Statement::new(schema::UPDATED_SINCE)
                .bind(one.device.as_str())
                .bind(one.type_id.as_str())
                .bind(one.since.map(|tag| signed(tag.type_version)))
                .bind(one.since.map(|tag| signed(tag.device_version)));
        }
        let part = |of: fn(UpdateTag) -> u64| -> Vec<Option<i64>> {
            questions.iter().map(|one| one.since.map(|tag| signed(of(tag)))).collect()
        };
        Statement::new(schema::UPDATED_SINCE_MANY)
            .bind(questions.iter().map(|one| one.device.as_str()).collect::<Vec<_>>())
            .bind(questions.iter().map(|one| one.type_id.as_str()).collect::<Vec<_>>())
            .bind(part(|tag| tag.type_version))
            .bind(part(|tag| tag.device_version))
    }

    fn answers(&self, rows: &[PgRow], count: usize) -> Result<Vec<Result<Changes, Failure>>, Failure> {
        row_for_each(rows, count, |row| {
            let tag = UpdateTag { type_version: unsigned(row, 0)?, device_version: unsigned(row, 1)? };
            let serials = column::<Vec<String>>(row, 2)?.into_iter();
            let serials =
                serials.map(|text| identifier(&text, SerialNumber::new)).collect::<Result<_, _>>()?;
            Ok(Changes { serials, tag })
        })
    }
}

#[derive(Debug)]
pub(crate) struct States;

impl Work for States {
    type Question = PassId;
    type Answer = PassState;
    const AT_ONCE: usize = 2;
    const MOST: usize = 64;

    fn weight(&self, _: &PassId) -> usize {
        1
    }

    fn statement(&self, passes: &[PassId]) -> Statement {
        if let [pass] = passes {
            let statement = Statement::new(schema::PASS_STATE);
            return statement.bind(pass.type_id.as_str()).bind(pass.serial.as_str());
        }
        Statement::new(schema::PASS_STATES)
            .bind(passes.iter().map(|pass| pass.type_id.as_str()).collect::<Vec<_>>())
            .bind(passes.iter().map(|pass| pass.serial.as_str()).collect::<Vec<_>>())
    }

    fn answers(&self, rows: &[PgRow], count: usize) -> Result<Vec<Result<PassState, Failure>>, Failure> {
        row_for_each(rows, count, |row| {
            Ok(PassState { version: unsigned(row, 0)?, last_modified: unsigned(row, 1)? })
        })
    }
}

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
        Statement::new(schema::REGISTER_MANY).bind(devices).bind(types).bind(serials).bind(tokens)
    }

    pub(crate) fn created(rows: &[PgRow], count: usize) -> Result<Vec<bool>, Failure> {
        let created: Vec<bool> = only(rows)?;
        if created.len() != count {
            let wrong = format!("{} answers for {count} registrations", created.len());
            return Err(Failure::unreadable(wrong));
        }
        Ok(created)
    }
}

impl Work for Registers {
    type Question = (DeviceIdentifier, PassId, PushToken);
    type Answer = Registered;
    const AT_ONCE: usize = 2;
    const MOST: usize = 64;

    fn weight(&self, _: &Self::Question) -> usize {
        1
    }

    fn statement(&self, questions: &[Self::Question]) -> Statement {
        if let [(device, pass, push_token)] = questions {
            return Statement::new(schema::REGISTER)
                .bind(device.as_str())
                .bind(pass.type_id.as_str())
                .bind(pass.serial.as_str())
                .bind(push_token.as_str());
        }
        Self::statement_of(questions.iter().map(|(device, pass, push_token)| (device, pass, push_token)))
    }

    fn answers(&self, rows: &[PgRow], count: usize) -> Result<Vec<Result<Registered, Failure>>, Failure> {
        let created = if count == 1 { vec![only(rows)?] } else { Self::created(rows, count)? };
        Ok(created
            .into_iter()
            .map(|new| Ok(if new { Registered::Created } else { Registered::Existing }))
            .collect())
    }
}

/// Marks of one type, with or without owing the pushes.
#[derive(Debug)]
pub(crate) struct Marks {
    pub(crate) type_id: TypeIdentifier,
    pub(crate) owe: bool,
}

impl Marks {
    fn statement_of<'a>(&self, serials: impl Iterator<Item = &'a SerialNumber>) -> Statement {
        let serials: Vec<_> = serials.map(SerialNumber::as_str).collect();
        // As the documentation of the configuration says.
        let extra_time = Duration::from_micros(200 * serials.len() as u64);
        let mark = if self.owe { schema::MARK_AND_OWE } else { schema::MARK };
        Statement::new(mark).bind(self.type_id.as_str()).bind(serials).extra_time(extra_time)
    }
}

impl Work for Marks {
    type Question = Vec<SerialNumber>;
    type Answer = ();
    /// The type's row lets one through at a time: a second one would only hold a connection.
    const AT_ONCE: usize = 1;
    const MOST: usize = 1024;

    fn weight(&self, serials: &Vec<SerialNumber>) -> usize {
        serials.len()
    }

    fn statement(&self, questions: &[Vec<SerialNumber>]) -> Statement {
        self.statement_of(questions.iter().flatten())
    }

    fn answers(&self, rows: &[PgRow], count: usize) -> Result<Vec<Result<(), Failure>>, Failure> {
        only::<i64>(rows)?;
        Ok((0..count).map(|_| Ok(())).collect())
    }
}
