//! Reads `passkit.toml`.

use std::ops::Range;

use passkit_archive::{placeholder_icon, template::Template};
use passkit_server::identifiers::Kind;
use toml::de::{DeTable, DeValue};

use super::{
    super::dates,
    error::{Problem, RecipeError, located, unknown},
    filling::{Recipe, Serial, Token},
    source::{Form, Source, Zone},
    step::{IfEmpty, Step, Target},
    text::{Placed, Text},
};

/// The largest recipe in bytes.
const MAX_BYTES: usize = 256 * 1024;

/// Reads the recipe of a template.
pub(crate) fn read(bytes: &[u8], template: &Template) -> Result<Recipe, RecipeError> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(located("", (0, "is not UTF-8; save it as UTF-8".into())));
    };
    parse(text, template).map_err(|problem| located(text, problem))
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
        enrolled: None,
        steps: Vec::new(),
    };
    for (key, value) in parsed.get_ref() {
        let place = value.span();
        let value = value.get_ref();
        match &**key.get_ref() {
            "serial" => reading.serial = Some(placed(value, &place)?),
            "token" => reading.token = Token::Text(placed(value, &place)?),
            "enrolled" => reading.enrolled = Some(reading.enrolled(value, &place)?),
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
                            "enrolled",
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
        enrolled: reading.enrolled,
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
    enrolled: Option<Placed<Text>>,
    steps: Vec<Step>,
}

impl Reading<'_> {
    fn enrolled(&self, value: &DeValue<'_>, place: &Range<usize>) -> Result<Placed<Text>, Problem> {
        if !self.template.offers_enrolment() {
            let message = "enrolled needs a template that offers rewards enrolment; add personalization.json to it, or \
                           remove this line";
            return Err((place.start, message.into()));
        }
        let enrolled = placed(value, place)?;
        if enrolled.value.columns().next().is_none() {
            let message = "enrolled names no column; write for example enrolled = \"{customer}\"";
            return Err((place.start, message.into()));
        }
        Ok(enrolled)
    }

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
