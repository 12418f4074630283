//! `passkit.toml` in a template: which values of a row go where.

use std::{collections::BTreeSet, fmt, ops::Range};

use jiff::tz::TimeZone;
use passkit_archive::{
    placeholder_icon,
    template::{Draft, Template},
};
use passkit_server::{
    identifiers::Kind,
    text::{OneLine, closest},
};
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::{
    dates,
    row_error::RowError,
    table::{Columns, Row},
};

/// The name of the file in a template.
pub(super) const FILE: &str = "passkit.toml";

/// The largest recipe in bytes.
const MAX_BYTES: usize = 256 * 1024;

/// What is done with the values of a row.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) serial: Serial,
    pub(super) token: Token,
    pub(super) steps: Vec<Step>,
}

#[derive(Debug)]
pub(super) enum Serial {
    Text(Placed<Text>),
    /// The serial is in the first of these columns that the row has.
    Column(&'static [&'static str]),
}

/// Where the authentication token comes from.
#[derive(Debug)]
pub(super) enum Token {
    /// The token is derived from a secret.
    Secret,
    Text(Placed<Text>),
    /// The token is in this column. If the row does not have the column, the token is derived from a secret.
    Column(&'static str),
}

/// The column with the tokens if there is no recipe.
const TOKEN_COLUMN: &str = "authenticationToken";

/// A value and its place in the file.
#[derive(Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    at: usize,
}

/// A value that is set in each pass.
#[derive(Debug)]
pub(super) struct Step {
    target: Target,
    source: Source,
    if_empty: IfEmpty,
    /// Whether a row may lack the column.
    is_optional: bool,
    at: usize,
}

#[derive(Debug)]
enum Target {
    Field(String),
    Pointer(String),
    Barcode,
    Image(String),
    String { language: String, key: String },
}

#[derive(Debug)]
enum Source {
    /// A value that is the same in all passes.
    Fixed(Value),
    Filled(Text, Form),
}

/// The JSON type of a value.
#[derive(Debug)]
enum Form {
    Text,
    Number,
    Boolean,
    Date(Option<Zone>),
}

#[derive(Debug)]
enum Zone {
    Fixed(TimeZone),
    Filled(Text),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IfEmpty {
    Error,
    Keep,
    Remove,
}

/// A text that names columns in braces.
#[derive(Debug)]
pub(super) struct Text(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Plain(String),
    Column(String),
}

/// An error in a recipe, with its place.
#[derive(Debug)]
pub(super) struct RecipeError {
    line: usize,
    column: usize,
    message: String,
}

impl RecipeError {
    /// Returns the message without the place.
    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            message,
        } = self;
        write!(f, "{line}:{column}: {}", OneLine::of(message))
    }
}

/// The place of an error as a byte of the text, and its message.
type Problem = (usize, String);

impl Recipe {
    /// Reads the recipe of a template.
    pub(super) fn read(bytes: &[u8], template: &Template) -> Result<Self, RecipeError> {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Err(located("", (0, "is not UTF-8; save it as UTF-8".into())));
        };
        parse(text, template).map_err(|problem| located(text, problem))
    }

    /// Makes the recipe for a template without one. It fills in columns that are named like the keys of fields.
    pub(super) fn of_columns(template: &Template) -> Self {
        let steps = template.field_keys().into_iter().map(|key| Step {
            target: Target::Field(key.into()),
            source: Source::Filled(
                Text(vec![Piece::Column(key.into())]),
                Form::of_field(template, key),
            ),
            if_empty: IfEmpty::Error,
            is_optional: true,
            at: 0,
        });
        Self {
            serial: Serial::Column(match template.kind() {
                Kind::Pass => &["serialNumber", "serial"],
                Kind::Order => &["orderIdentifier", "serial"],
            }),
            token: Token::Column(TOKEN_COLUMN),
            steps: steps.collect(),
        }
    }

    /// Returns the address of the web service that the recipe sets in all passes.
    pub(super) fn sets(&self, pointer: &str) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(&step.target, Target::Pointer(at) if at == pointer))
    }

    /// Checks that a table has all columns. `text` is the text of the recipe.
    pub(super) fn check_columns(&self, columns: &Columns, text: &str) -> Result<(), RecipeError> {
        if let Serial::Column(names) = self.serial
            && !names.iter().any(|name| columns.contains(name))
        {
            let message = format!(
                "the table has no column {}; rename the column with the serial numbers, or write {FILE} into the template",
                names.join(" or ")
            );
            return Err(located(text, (0, message)));
        }
        for (name, at) in self.columns() {
            if columns.contains(name) {
                continue;
            }
            let near = closest(shortened(name), columns.names().take(100));
            let hint = match near.first() {
                Some(near) => format!("did you mean {{{near}}}?"),
                None => {
                    let names: Vec<&str> = columns.names().take(20).collect();
                    format!("it has {}", names.join(", "))
                }
            };
            return Err(located(
                text,
                (at, format!("the table has no column {name:?}; {hint}")),
            ));
        }
        Ok(())
    }

    /// Returns the columns that each row needs, with the place in the recipe that needs each.
    fn columns(&self) -> impl Iterator<Item = (&str, usize)> {
        let mut texts = Vec::new();
        if let Serial::Text(serial) = &self.serial {
            texts.push(serial);
        }
        if let Token::Text(token) = &self.token {
            texts.push(token);
        }
        let mut needed = Vec::new();
        for Placed { value, at } in texts {
            needed.extend(value.columns().map(|name| (name, *at)));
        }
        for step in self.steps.iter().filter(|step| !step.is_optional) {
            needed.extend(step.columns().map(|name| (name, step.at)));
        }
        needed.into_iter()
    }

    /// Returns the names of all columns that are used if a table has them.
    pub(super) fn used_columns(&self) -> BTreeSet<&str> {
        let optional = self.steps.iter().flat_map(Step::columns);
        let serial = match &self.serial {
            Serial::Column(names) => names,
            Serial::Text(_) => &[][..],
        };
        let token = matches!(self.token, Token::Column(_)).then_some(TOKEN_COLUMN);
        let named = serial.iter().copied().chain(token);
        self.columns()
            .map(|(name, _)| name)
            .chain(optional)
            .chain(named)
            .collect()
    }

    /// Fills in a row.
    pub(super) fn fill<'a>(
        &self,
        mut draft: Draft<'a>,
        row: &Row,
        image: impl Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Draft<'a>, RowError> {
        let mut removed = Vec::new();
        for step in &self.steps {
            if step.is_optional && !step.columns().all(|column| row.has(column)) {
                continue;
            }
            match step.value(row)? {
                Some(value) => {
                    draft = step
                        .apply(draft, value, &image)
                        .map_err(|message| step.error(row, message))?
                }
                None if step.if_empty == IfEmpty::Remove => removed.push(step),
                None if step.if_empty == IfEmpty::Keep => {}
                None => {
                    let message = "is empty; fill it in, or add if-empty = \"remove\" or \"keep\" to passkit.toml";
                    return Err(step.error(row, message.into()));
                }
            }
            if let Some((name, message)) = draft.problem() {
                return Err(step.error(row, format!("{}: {message}", OneLine::of(name))));
            }
        }
        // Values are removed last, because a removal moves the targets of other pointers.
        for step in removed.into_iter().rev() {
            draft = step.remove(draft);
        }
        Ok(draft)
    }
}

impl Step {
    fn columns(&self) -> impl Iterator<Item = &str> {
        let (text, zone) = match &self.source {
            Source::Fixed(_) => (None, None),
            Source::Filled(text, Form::Date(Some(Zone::Filled(zone)))) => (Some(text), Some(zone)),
            Source::Filled(text, _) => (Some(text), None),
        };
        text.into_iter().chain(zone).flat_map(Text::columns)
    }

    fn error(&self, row: &Row, message: String) -> RowError {
        match self.columns().next() {
            Some(column) => RowError::in_column(row.line, column, message),
            None => RowError::new(row.line, message),
        }
    }

    /// Returns the value for a row, or `None` if its columns are empty.
    fn value(&self, row: &Row) -> Result<Option<Value>, RowError> {
        let (text, form) = match &self.source {
            Source::Fixed(value) => return Ok(Some(value.clone())),
            Source::Filled(text, form) => (text, form),
        };
        let Some(text) = text.fill(row)? else {
            return Ok(None);
        };
        let value = match form {
            Form::Text => return Ok(Some(Value::String(text))),
            Form::Number => number(&text),
            Form::Boolean => boolean(&text),
            Form::Date(None) => dates::to_w3c(&text, None).map(Value::String),
            Form::Date(Some(Zone::Fixed(zone))) => {
                dates::to_w3c(&text, Some(zone)).map(Value::String)
            }
            Form::Date(Some(Zone::Filled(zone))) => {
                let name = zone.fill(row)?.unwrap_or_default();
                let found =
                    dates::zone(name.trim()).map_err(|message| match zone.columns().next() {
                        Some(column) => RowError::in_column(row.line, column, message),
                        None => RowError::new(row.line, message),
                    })?;
                dates::to_w3c(&text, Some(&found)).map(Value::String)
            }
        };
        let value = value
            .map_err(|message| self.error(row, format!("{:?} {message}", shortened(&text))))?;
        Ok(Some(value))
    }

    fn apply<'a>(
        &self,
        draft: Draft<'a>,
        value: Value,
        image: impl Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Draft<'a>, String> {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        Ok(match &self.target {
            Target::Field(key) => draft.field(key, value),
            Target::Pointer(pointer) => draft.set(pointer, value),
            Target::Barcode => draft.barcode(&text(&value)),
            Target::String { language, key } => draft.string(language, key, &text(&value)),
            Target::Image(name) => draft.image(name, image(&text(&value))?),
        })
    }

    fn remove<'a>(&self, draft: Draft<'a>) -> Draft<'a> {
        match &self.target {
            Target::Field(key) => draft.remove_field(key),
            Target::Pointer(pointer) => draft.remove(pointer),
            Target::Barcode => draft.remove("/barcodes").remove("/barcode"),
            Target::Image(name) => draft.remove_image(name),
            // Such a recipe was refused when it was read.
            Target::String { .. } => draft,
        }
    }
}

impl Form {
    fn of_field(template: &Template, key: &str) -> Self {
        if template.is_number(key) {
            Self::Number
        } else if template.is_date(key) {
            Self::Date(None)
        } else {
            Self::Text
        }
    }

    /// Returns a value of this type, to try a recipe.
    fn sample(&self) -> Value {
        match self {
            Self::Text => "x".into(),
            Self::Number => 1.into(),
            Self::Boolean => true.into(),
            Self::Date(_) => "2026-11-27T10:00:00Z".into(),
        }
    }
}

impl Text {
    /// Parses a text that may contain `{column}`. `{{` and `}}` stand for braces.
    fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = brace
                .strip_prefix("{{")
                .or_else(|| brace.strip_prefix("}}"))
            {
                plain.extend(brace.chars().next());
                rest = after;
                continue;
            }
            let Some((column, after)) = brace
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
            else {
                return Err("has a brace without its partner; write a column as {name}, and a brace as {{ or }}".into());
            };
            if column.trim().is_empty() || column.contains('{') {
                return Err("has braces without a column; write a column as {name}, and a brace as {{ or }}".into());
            }
            if !plain.is_empty() {
                pieces.push(Piece::Plain(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Column(column.trim().into()));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Plain(plain));
        }
        Ok(Self(pieces))
    }

    fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Column(name) => Some(name.as_str()),
            Piece::Plain(_) => None,
        })
    }

    /// Returns the text for a row, or `None` if it has columns and all of them are empty.
    pub(super) fn fill(&self, row: &Row) -> Result<Option<String>, RowError> {
        let mut text = String::new();
        let mut is_empty = true;
        for piece in &self.0 {
            match piece {
                Piece::Plain(plain) => text.push_str(plain),
                Piece::Column(name) => {
                    let cell = row.cell(name)?;
                    is_empty &= cell.trim().is_empty();
                    text.push_str(cell);
                }
            }
        }
        let has_columns = self.columns().next().is_some();
        Ok((!(has_columns && is_empty)).then_some(text))
    }

    /// Returns the text if it has no columns.
    fn fixed(&self) -> Option<String> {
        match &self.0[..] {
            [] => Some(String::new()),
            [Piece::Plain(plain)] => Some(plain.clone()),
            _ => None,
        }
    }
}

impl Placed<Text> {
    /// Returns the text for a row. It must not be empty.
    pub(super) fn fill(&self, row: &Row) -> Result<String, RowError> {
        self.value
            .fill(row)?
            .ok_or_else(|| self.error(row, "is empty; fill it in"))
    }

    pub(super) fn error(&self, row: &Row, message: impl Into<String>) -> RowError {
        match self.value.columns().next() {
            Some(column) => RowError::in_column(row.line, column, message),
            None => RowError::new(row.line, message),
        }
    }
}

fn number(text: &str) -> Result<Value, String> {
    let text = text.trim();
    let wrong = || "is not a number; write it as 12 or 12.5".to_owned();
    let number: serde_json::Number = serde_json::from_str(text).map_err(|_| wrong())?;
    let is_whole = !text.contains(['.', 'e', 'E']);
    if is_whole && number.as_i64().is_none() && number.as_u64().is_none() {
        return Err("has too many digits for a number; use a text".into());
    }
    Ok(Value::Number(number))
}

fn boolean(text: &str) -> Result<Value, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true.into()),
        "false" | "no" | "0" => Ok(false.into()),
        _ => Err("is neither true nor false; write one of these two".into()),
    }
}

fn parse(text: &str, template: &Template) -> Result<Recipe, Problem> {
    if text.len() > MAX_BYTES {
        return Err((0, "is larger than 256 KiB".into()));
    }
    let parsed = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (at, error.message().to_owned())
    })?;
    let mut reading = Reading {
        template,
        serial: None,
        token: Token::Secret,
        steps: Vec::new(),
    };
    for (key, value) in parsed.get_ref() {
        let place = value.span();
        let value = value.get_ref();
        match &**key.get_ref() {
            "serial" => reading.serial = Some(placed(value, &place)?),
            "token" => reading.token = Token::Text(placed(value, &place)?),
            "web-service-url" => {
                let target = Target::Pointer("/webServiceURL".into());
                reading.step(target, value, &place, Form::Text)?;
            }
            "fields" => reading.fields(value, &place)?,
            "barcode" => reading.barcode(value, &place)?,
            "set" => reading.pointers(value, &place)?,
            "images" => reading.images(value, &place)?,
            "strings" => reading.strings(value, &place)?,
            other => {
                return Err((
                    key.span().start,
                    unknown(
                        other,
                        "key",
                        [
                            "serial",
                            "token",
                            "web-service-url",
                            "fields",
                            "barcode",
                            "set",
                            "images",
                            "strings",
                        ],
                    ),
                ));
            }
        }
    }
    let serial = reading.serial.ok_or_else(|| {
        (
            0,
            "lacks serial; add a line such as serial = \"{member_id}\"".to_owned(),
        )
    })?;
    if serial.value.columns().next().is_none() {
        return Err((
            serial.at,
            "serial names no column, so all passes would be the same; write for example serial = \"{member_id}\""
                .into(),
        ));
    }
    let mut steps = reading.steps;
    // The order of the file matters, because a pointer may lead to a value that an earlier pointer made.
    steps.sort_by_key(|step| step.at);
    try_steps(&steps, template)?;
    Ok(Recipe {
        serial: Serial::Text(serial),
        token: reading.token,
        steps,
    })
}

/// Tries the steps with made-up values.
fn try_steps(steps: &[Step], template: &Template) -> Result<(), Problem> {
    let mut draft = template.fill();
    for step in steps {
        let value = match &step.source {
            Source::Fixed(value) => value.clone(),
            Source::Filled(_, form) => form.sample(),
        };
        let applied = step.apply(draft, value, |_| Ok(placeholder_icon(1)));
        draft = applied.map_err(|message| (step.at, message))?;
        if let Some((name, message)) = draft.problem() {
            return Err((step.at, format!("{name}: {message}")));
        }
    }
    Ok(())
}

struct Reading<'a> {
    template: &'a Template,
    serial: Option<Placed<Text>>,
    token: Token,
    steps: Vec<Step>,
}

impl Reading<'_> {
    fn fields(&mut self, value: &DeValue<'_>, place: &Range<usize>) -> Result<(), Problem> {
        let keys = self.template.field_keys();
        for (key, value) in table(value, place)? {
            let name = &**key.get_ref();
            if !keys.contains(name) {
                let message = match self.template.kind() {
                    Kind::Order => {
                        "an order has no fields; use [set] with a JSON Pointer".to_owned()
                    }
                    Kind::Pass => unknown(name, "field", keys.iter().copied()),
                };
                return Err((key.span().start, message));
            }
            let form = Form::of_field(self.template, name);
            self.step(
                Target::Field(name.into()),
                value.get_ref(),
                &value.span(),
                form,
            )?;
        }
        Ok(())
    }

    fn barcode(&mut self, value: &DeValue<'_>, place: &Range<usize>) -> Result<(), Problem> {
        for (key, value) in table(value, place)? {
            let name = &**key.get_ref();
            if name != "message" {
                return Err((
                    key.span().start,
                    unknown(name, "key of [barcode]", ["message"]),
                ));
            }
            self.step(Target::Barcode, value.get_ref(), &value.span(), Form::Text)?;
        }
        Ok(())
    }

    fn pointers(&mut self, value: &DeValue<'_>, place: &Range<usize>) -> Result<(), Problem> {
        for (key, value) in table(value, place)? {
            let pointer = (**key.get_ref()).to_owned();
            let own = match &*pointer {
                "/serialNumber" | "/orderIdentifier" => Some("serial"),
                "/authenticationToken" => Some("token"),
                "/webServiceURL" => Some("web-service-url"),
                "/passTypeIdentifier" | "/orderTypeIdentifier" | "/teamIdentifier" => {
                    return Err((
                        key.span().start,
                        format!("{pointer} comes from the certificate; remove this line"),
                    ));
                }
                _ => None,
            };
            if let Some(own) = own {
                return Err((
                    key.span().start,
                    format!("{pointer} has its own key; write {own} = … at the top instead"),
                ));
            }
            self.step(
                Target::Pointer(pointer),
                value.get_ref(),
                &value.span(),
                Form::Text,
            )?;
        }
        Ok(())
    }

    fn images(&mut self, value: &DeValue<'_>, place: &Range<usize>) -> Result<(), Problem> {
        for (key, value) in table(value, place)? {
            let target = Target::Image((**key.get_ref()).to_owned());
            self.step(target, value.get_ref(), &value.span(), Form::Text)?;
        }
        Ok(())
    }

    fn strings(&mut self, value: &DeValue<'_>, place: &Range<usize>) -> Result<(), Problem> {
        for (language, texts) in table(value, place)? {
            for (key, value) in table(texts.get_ref(), &texts.span())? {
                let target = Target::String {
                    language: (**language.get_ref()).to_owned(),
                    key: (**key.get_ref()).to_owned(),
                };
                self.step(target, value.get_ref(), &value.span(), Form::Text)?;
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        target: Target,
        value: &DeValue<'_>,
        place: &Range<usize>,
        form: Form,
    ) -> Result<(), Problem> {
        let at = place.start;
        let mut if_empty = IfEmpty::Error;
        let source = match value {
            DeValue::Table(options) => {
                let (source, given) = options_of(options, at, form)?;
                if_empty = given;
                source
            }
            value => plain(value, form).map_err(|message| (at, message))?,
        };
        if if_empty == IfEmpty::Remove && matches!(target, Target::String { .. }) {
            return Err((
                at,
                "the text of a language can't be removed; write if-empty = \"keep\"".into(),
            ));
        }
        self.steps.push(Step {
            target,
            source,
            if_empty,
            is_optional: false,
            at,
        });
        Ok(())
    }
}

/// Reads a value that is not a table.
fn plain(value: &DeValue<'_>, form: Form) -> Result<Source, String> {
    match value {
        DeValue::String(text) => Ok(Source::Filled(Text::parse(text)?, form)),
        DeValue::Boolean(is) => Ok(Source::Fixed((*is).into())),
        DeValue::Integer(digits) => {
            let number = i64::from_str_radix(digits.as_str(), digits.radix());
            Ok(Source::Fixed(
                number.map_err(|_| "has too many digits")?.into(),
            ))
        }
        DeValue::Float(digits) => {
            let number: f64 = digits.as_str().parse().map_err(|_| "is not a number")?;
            Ok(Source::Fixed(number.into()))
        }
        _ => Err("must be a text such as \"{column}\", a number, true or false".into()),
    }
}

/// Reads a value such as `{ date = "{until}", zone = "Europe/Berlin" }`.
fn options_of(options: &DeTable<'_>, at: usize, form: Form) -> Result<(Source, IfEmpty), Problem> {
    let (mut source, mut zone, mut if_empty) = (None, None, IfEmpty::Error);
    for (key, value) in options {
        let place = value.span().start;
        let text = || {
            let text = value.get_ref().as_str();
            text.ok_or_else(|| {
                (
                    place,
                    format!("{} must be a text such as \"{{column}}\"", key.get_ref()),
                )
            })
        };
        let form = match &**key.get_ref() {
            "zone" => {
                zone = Some((
                    key.span().start,
                    read_zone(text()?).map_err(|message| (place, message))?,
                ));
                continue;
            }
            "if-empty" => {
                if_empty = match text()? {
                    "error" => IfEmpty::Error,
                    "keep" => IfEmpty::Keep,
                    "remove" => IfEmpty::Remove,
                    _ => {
                        return Err((
                            place,
                            "if-empty must be \"remove\", \"keep\" or \"error\"".into(),
                        ));
                    }
                };
                continue;
            }
            "value" => None,
            "number" => Some(Form::Number),
            "date" => Some(Form::Date(None)),
            "boolean" => Some(Form::Boolean),
            other => {
                let known = ["value", "number", "date", "boolean", "zone", "if-empty"];
                return Err((key.span().start, unknown(other, "key of a value", known)));
            }
        };
        if source.is_some() {
            return Err((
                key.span().start,
                "a value has only one of the keys value, number, date and boolean; remove the others".into(),
            ));
        }
        source = Some(match form {
            Some(form) => (Text::parse(text()?).map(Some), Some(form), value),
            None => (Ok(None), None, value),
        });
    }
    let Some((text, own, value)) = source else {
        return Err((
            at,
            "has no value; write for example { value = \"{column}\" }".into(),
        ));
    };
    let place = value.span().start;
    let wrong = |message| (place, message);
    let source = match (text.map_err(wrong)?, own) {
        (Some(text), Some(own)) => Source::Filled(text, own),
        _ => plain(value.get_ref(), form).map_err(wrong)?,
    };
    let source = match (source, zone) {
        (source, None) => source,
        (Source::Filled(text, Form::Date(_)), Some((_, zone))) => {
            Source::Filled(text, Form::Date(Some(zone)))
        }
        (_, Some((at, _))) => {
            return Err((
                at,
                "zone is only for a date; write { date = …, zone = … }".into(),
            ));
        }
    };
    Ok((source, if_empty))
}

fn read_zone(text: &str) -> Result<Zone, String> {
    let text = Text::parse(text)?;
    Ok(match text.fixed() {
        Some(name) => Zone::Fixed(dates::zone(&name)?),
        None => Zone::Filled(text),
    })
}

fn placed(value: &DeValue<'_>, place: &Range<usize>) -> Result<Placed<Text>, Problem> {
    let at = place.start;
    let text = value
        .as_str()
        .ok_or_else(|| (at, "must be a text such as \"{column}\"".to_owned()))?;
    let value = Text::parse(text).map_err(|message| (at, message))?;
    Ok(Placed { value, at })
}

fn table<'a, 'i>(value: &'a DeValue<'i>, place: &Range<usize>) -> Result<&'a DeTable<'i>, Problem> {
    value
        .as_table()
        .ok_or_else(|| (place.start, "must be a table such as [fields]".to_owned()))
}

fn unknown<'a>(name: &str, what: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let hint = match closest(shortened(name), known.iter().copied()).first() {
        Some(near) => format!("did you mean {near}?"),
        None => format!("there is {}", known.join(", ")),
    };
    format!("there is no {what} {name:?}; {hint}")
}

/// Returns the first 60 characters.
fn shortened(text: &str) -> &str {
    let end = text
        .char_indices()
        .nth(60)
        .map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or(text)
}

fn located(text: &str, (at, message): Problem) -> RecipeError {
    let before = text.get(..at).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    RecipeError {
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        message,
    }
}
