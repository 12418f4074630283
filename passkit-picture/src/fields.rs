//! Rows of fields.

use crate::{
    pass::{Colors, Field},
    svg::{Align, Area, Font, Svg},
    text,
};

/// The space between two fields.
const GAP: f64 = 14.0;

/// The look of a row.
#[derive(Clone, Copy)]
pub(crate) struct Look {
    pub(crate) label: f64,
    pub(crate) value: f64,
    /// The distance of the two baselines.
    pub(crate) step: f64,
}

impl Look {
    pub(crate) const ROW: Self = Self {
        label: 11.0,
        value: 19.0,
        step: 22.0,
    };
}

/// Draws fields beside each other. The baseline of the labels is at the top of the area. The first
/// field is at the left end of the area, and the last one at the right end.
pub(crate) fn row(svg: &mut Svg, area: Area, fields: &[Field], look: Look, colors: Colors) {
    let Some(last) = fields.len().checked_sub(1) else {
        return;
    };
    let gaps = last as f64 * GAP;
    let wanted: Vec<f64> = fields
        .iter()
        .map(|field| natural_width(field, look))
        .collect();
    let sum: f64 = wanted.iter().sum();
    let room = area.width - gaps;
    // If the fields need more than the available width, all of them become narrower. Otherwise, the
    // gaps become wider.
    let scale = (room / sum.max(1.0)).min(1.0);
    let more = if last > 0 {
        (room - sum).max(0.0) / last as f64
    } else {
        0.0
    };
    let mut x = area.x;
    for (index, (field, wanted)) in fields.iter().zip(wanted).enumerate() {
        let width = if last == 0 {
            area.width
        } else {
            wanted * scale
        };
        // The text may use the gap too, because its width is only estimated.
        let column = Area::new(x, area.y, width + GAP / 2.0, 0.0);
        let align = field.align.unwrap_or(Align::Left);
        let column = match (align, index == last) {
            (Align::Left, _) | (_, false) => column,
            _ => Area { width, ..column },
        };
        draw(svg, column, field, look, colors, align);
        x += width + GAP + more;
    }
}

/// Draws a field in a column.
pub(crate) fn draw(
    svg: &mut Svg,
    column: Area,
    field: &Field,
    look: Look,
    colors: Colors,
    align: Align,
) {
    let x = match align {
        Align::Left => column.x,
        Align::Center => column.x + column.width / 2.0,
        Align::Right => column.right(),
    };
    let label = Font::new(look.label, colors.label).weight(600).align(align);
    let value = Font::new(look.value, colors.foreground).align(align);
    svg.fitted(
        (x, column.y),
        label,
        column.width,
        &field.label.to_uppercase(),
    );
    svg.fitted((x, column.y + look.step), value, column.width, &field.value);
}

fn natural_width(field: &Field, look: Look) -> f64 {
    let label = text::width(&field.label.to_uppercase(), look.label) * 1.06;
    label.max(text::width(&field.value, look.value)).max(1.0)
}

/// Draws fields from the right end of the area to the left. Returns how far they come.
pub(crate) fn from_right(
    svg: &mut Svg,
    area: Area,
    fields: &[Field],
    look: Look,
    colors: Colors,
) -> f64 {
    let mut right = area.right();
    for field in fields.iter().rev() {
        let width = natural_width(field, look).min((right - area.x).max(20.0));
        let column = Area::new(right - width, area.y, width, 0.0);
        draw(svg, column, field, look, colors, Align::Right);
        right -= width + GAP;
    }
    right
}
