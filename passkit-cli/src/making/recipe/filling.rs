//! What is done with the values of a row.

use std::collections::BTreeSet;

use passkit_archive::template::{Draft, Template};
use passkit_server::{
    identifiers::Kind,
    text::{OneLine, closest},
};

use super::{
    super::{
        row_error::RowError,
        table::{Columns, Row},
    },
    error::{RecipeError, located, shortened},
    source::{Form, Source},
    step::{IfEmpty, Step, Target},
    text::{Placed, Text},
};

/// The name of the file in a template.
pub(crate) const FILE: &str = "passkit.toml";

/// What is done with the values of a row.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) serial: Serial,
    pub(crate) token: Token,
    /// The pass is enrolled if this is not empty. Then it no longer offers rewards enrolment.
    pub(super) enrolled: Option<Placed<Text>>,
    pub(super) steps: Vec<Step>,
}

#[derive(Debug)]
pub(crate) enum Serial {
    Text(Placed<Text>),
    /// The serial number is in the first of these columns that the row has.
    Column(&'static [&'static str]),
}

/// Where the authentication token comes from.
#[derive(Debug)]
pub(crate) enum Token {
    /// The token is derived from a secret.
    Secret,
    Text(Placed<Text>),
    /// The token is in this column. If the row does not have the column, the token is derived from a secret.
    Column(&'static str),
}

/// The column with the tokens if there is no recipe.
const TOKEN_COLUMN: &str = "authenticationToken";

impl Recipe {
    /// Makes the recipe for a template without one. It fills in columns that are named like the keys of fields.
    pub(crate) fn of_columns(template: &Template) -> Self {
        let steps = template.field_keys().into_iter().map(|key| Step {
            target: Target::Field(key.into()),
            source: Source::Filled(Text::of_column(key), Form::of_field(template, key)),
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
            enrolled: None,
            steps: steps.collect(),
        }
    }

    /// Returns the address of the web service that the recipe sets in all passes.
    pub(crate) fn sets(&self, pointer: &str) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(&step.target, Target::Pointer(at) if at == pointer))
    }

    /// Returns whether a row can say that the pass is enrolled.
    pub(crate) fn can_enrol(&self) -> bool {
        self.enrolled.is_some()
    }

    /// Returns whether the pass of a row still offers rewards enrolment, if its template does.
    pub(crate) fn offers_enrolment(&self, row: &Row) -> Result<bool, RowError> {
        let enrolled = self
            .enrolled
            .as_ref()
            .map(|enrolled| enrolled.value.fill(row));
        Ok(enrolled.transpose()?.flatten().is_none())
    }

    /// Checks that a row says that its pass is enrolled.
    pub(crate) fn check_enrolled(&self, row: &Row) -> Result<(), RowError> {
        let Some(enrolled) = &self.enrolled else {
            return Ok(());
        };
        match enrolled.value.fill(row)? {
            Some(_) => Ok(()),
            None => Err(enrolled.error(
                row,
                "is empty, but the pass was enrolled; fill it in, so that the customer keeps the personal pass",
            )),
        }
    }

    /// Checks that a table has all columns. `text` is the text of the recipe.
    pub(crate) fn check_columns(&self, columns: &Columns, text: &str) -> Result<(), RecipeError> {
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
        texts.extend(&self.enrolled);
        let mut needed = Vec::new();
        for Placed { value, at } in texts {
            needed.extend(value.columns().map(|name| (name, *at)));
        }
        for step in self.steps.iter().filter(|step| !step.is_optional) {
            needed.extend(step.source.columns().map(|name| (name, step.at)));
        }
        needed.into_iter()
    }

    /// Returns the names of all columns that are used if a table has them.
    pub(crate) fn used_columns(&self) -> BTreeSet<&str> {
        let optional = self.steps.iter().flat_map(|step| step.source.columns());
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
    pub(crate) fn fill<'a>(
        &self,
        mut draft: Draft<'a>,
        row: &Row,
        image: impl Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Draft<'a>, RowError> {
        let mut removed = Vec::new();
        for step in &self.steps {
            if step.is_optional && !step.source.columns().all(|column| row.has(column)) {
                continue;
            }
            match step.source.value(row)? {
                Some(value) => {
                    draft = step
                        .apply(draft, value, &image)
                        .map_err(|message| step.source.error(row, message))?
                }
                None if step.if_empty == IfEmpty::Remove => removed.push(step),
                None if step.if_empty == IfEmpty::Keep => {}
                None => {
                    let message = "is empty; fill it in, or add if-empty = \"remove\" or \"keep\" to passkit.toml";
                    return Err(step.source.error(row, message.into()));
                }
            }
            if let Some((name, message)) = draft.problem() {
                return Err(step
                    .source
                    .error(row, format!("{}: {message}", OneLine::of(name))));
            }
        }
        // Values are removed last, because a removal moves the targets of other pointers.
        for step in removed.into_iter().rev() {
            draft = step.remove(draft);
        }
        if !self.offers_enrolment(row)? {
            draft = draft.without_enrolment();
        }
        Ok(draft)
    }
}
