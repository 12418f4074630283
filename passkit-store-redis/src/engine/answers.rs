//! Reads the answers of the server.

use redis::Value;

use crate::error::Error;

/// Returns the only answer.
pub(crate) fn one(answers: Vec<Value>) -> Value {
    answers.into_iter().next().unwrap_or(Value::Nil)
}

pub(crate) fn read<T: redis::FromRedisValue>(value: Value, what: &'static str) -> Result<T, Error> {
    redis::from_redis_value(value).map_err(|error| Error::unreadable(what).caused_by(error.into()))
}

pub(crate) fn length(value: &Value) -> u64 {
    if let Value::Int(length) = value {
        u64::try_from(*length).unwrap_or(0)
    } else {
        0
    }
}

/// Reads the elements of an array.
pub(crate) fn values(value: Value, what: &'static str) -> Result<Vec<Option<Vec<u8>>>, Error> {
    let Value::Array(values) = value else {
        return Err(Error::unreadable(what));
    };
    let bytes = values.into_iter().map(|value| match value {
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::Nil => Ok(None),
        _ => Err(Error::unreadable(what)),
    });
    bytes.collect()
}

/// A field and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// Reads the fields and values of a hash.
pub(crate) fn pairs(value: Value, what: &'static str) -> Result<Vec<Pair>, Error> {
    let unreadable = || Error::unreadable(what);
    let bytes = |value| {
        if let Value::BulkString(bytes) = value {
            Ok(bytes)
        } else {
            Err(unreadable())
        }
    };
    match value {
        Value::Map(pairs) => pairs
            .into_iter()
            .map(|(field, value)| Ok((bytes(field)?, bytes(value)?)))
            .collect(),
        Value::Array(values) => {
            let mut values = values.into_iter();
            let mut pairs = Vec::with_capacity(values.len() / 2);
            while let Some(field) = values.next() {
                pairs.push((bytes(field)?, bytes(values.next().ok_or_else(unreadable)?)?));
            }
            Ok(pairs)
        }
        _ => Err(unreadable()),
    }
}
