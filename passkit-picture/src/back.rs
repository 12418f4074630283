//! The back: the fields that a phone shows as details.

use crate::{
    classic::{MARGIN, WIDTH, rounded},
    pass::Pass,
    svg::{Align, Area, Font, Svg},
    text,
};

/// How many lines of text the back has. A phone can scroll, but a picture needs a limit.
const MAX_LINES: usize = 150;
/// How many lines a value has.
const MAX_LINES_OF_VALUE: usize = 40;
const LEAST_HEIGHT: f64 = 500.0;
const ROOM: f64 = WIDTH - 4.0 * MARGIN;
const LINE: f64 = 21.0;

const PAPER: [u8; 3] = [0xf2, 0xf2, 0xf7];
const WHITE: [u8; 3] = [255; 3];
const BLACK: [u8; 3] = [0; 3];
const GREY: [u8; 3] = [0x6c, 0x6c, 0x72];

pub(crate) fn draw(pass: &mut Pass<'_>) -> Svg {
    let mut body = Svg::new(WIDTH, 0.0);
    let mut y = 96.0;
    let mut left = MAX_LINES;
    let groups = ["backFields", "additionalInfoFields"];
    let mut missing: usize = groups.iter().map(|group| pass.count(group)).sum();
    for field in groups.iter().flat_map(|group| pass.long_fields(group)) {
        // Each field takes at least one line, so further fields need not be formatted.
        if left == 0 {
            break;
        }
        missing -= 1;
        let most = left.min(MAX_LINES_OF_VALUE);
        let lines = text::lines(&field.value, 16.0, ROOM, most);
        left -= lines.len().min(left);
        let label = if field.label.is_empty() { 0.0 } else { 20.0 };
        let height = 22.0 + label + lines.len() as f64 * LINE;
        let card = Area::new(MARGIN, y, WIDTH - 2.0 * MARGIN, height);
        body.rect(card, 12.0, WHITE, 1.0);
        let x = 2.0 * MARGIN;
        body.fitted((x, y + 24.0), Font::new(13.0, GREY), ROOM, &field.label);
        for (index, line) in lines.iter().enumerate() {
            let baseline = y + 26.0 + label + index as f64 * LINE;
            let font = Font::new(16.0, BLACK);
            body.fitted((x, baseline), font, ROOM + MARGIN, line);
        }
        y += height + 10.0;
    }
    let end = match (missing, left < MAX_LINES) {
        (0, true) => String::new(),
        (0, false) => "The pass has no details.".into(),
        (count, _) => format!("{count} more fields are left out."),
    };
    if missing > 0 {
        pass.notes.push(format!("the back is cut: {end}"));
    }
    body.text(
        WIDTH / 2.0,
        y + 16.0,
        Font::new(13.0, GREY).align(Align::Center),
        &end,
    );
    y += if end.is_empty() { 8.0 } else { 36.0 };

    let mut svg = Svg::new(WIDTH, y.max(LEAST_HEIGHT));
    svg.clip("back", &rounded(WIDTH, svg.height, 12.0));
    svg.rect(Area::new(0.0, 0.0, WIDTH, svg.height), 0.0, PAPER, 1.0);
    title(&mut svg, pass);
    body.height = svg.height;
    svg.nested(0.0, 0.0, body);
    svg
}

/// Draws the icon, the name of the organisation and the description.
fn title(svg: &mut Svg, pass: &mut Pass<'_>) {
    let mut x = MARGIN;
    if let Some(icon) = pass.image("icon") {
        svg.image(
            Area::new(x, 28.0, 38.0, 38.0),
            &icon,
            crate::svg::Fill::Center,
        );
        x += 50.0;
    }
    let room = WIDTH - MARGIN - x;
    let name = pass.text("organizationName").unwrap_or_default();
    svg.fitted((x, 44.0), Font::new(17.0, BLACK).weight(600), room, &name);
    let description = pass.text("description").unwrap_or_default();
    svg.fitted((x, 64.0), Font::new(13.0, GREY), room, &description);
}
