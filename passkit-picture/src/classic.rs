//! The fronts of the five classic styles.

use crate::{
    barcode::Barcode,
    fields::{self, Look},
    pass::{Colors, Field, Pass},
    svg::{Align, Area, Fill, Font, Svg},
};

/// The size of the front, in points. The strip of a store card has the same width.
pub(crate) const WIDTH: f64 = 375.0;
pub(crate) const HEIGHT: f64 = 500.0;
pub(crate) const MARGIN: f64 = 16.0;
/// The part of the front with the logo.
const HEADER: f64 = 76.0;
const WHITE: [u8; 3] = [255; 3];

/// The headers have three fields.
const MAX_HEADER: usize = 3;

pub(crate) fn draw(pass: &mut Pass<'_>) -> Svg {
    let mut svg = Svg::new(WIDTH, HEIGHT);
    svg.clip("front", &outline(pass.style));
    let whole = Area::new(0.0, 0.0, WIDTH, HEIGHT);
    svg.rect(whole, 0.0, pass.colors.background, 1.0);
    let barcode = Barcode::of(pass);
    match pass.style {
        "boardingPass" => boarding(&mut svg, pass),
        "eventTicket" => ticket(&mut svg, pass, whole),
        "generic" => generic(&mut svg, pass, barcode.as_ref()),
        _ => card(&mut svg, pass),
    }
    header(&mut svg, pass);
    if let Some(barcode) = barcode {
        barcode.draw(&mut svg, WIDTH / 2.0, HEIGHT - 20.0);
    }
    svg
}

/// The shape of the paper.
fn outline(style: &str) -> String {
    let (w, h) = (WIDTH, HEIGHT);
    match style {
        // The notch of a ticket.
        "eventTicket" => format!(
            "M12 0H{}A22 22 0 0 0 {} 0H{}A12 12 0 0 1 {w} 12V{}A12 12 0 0 1 {} {h}H12A12 12 0 0 1 0 {}V12A12 12 0 0 1 12 0z",
            w / 2.0 - 22.0,
            w / 2.0 + 22.0,
            w - 12.0,
            h - 12.0,
            w - 12.0,
            h - 12.0
        ),
        "boardingPass" => format!(
            "M12 0H{}A12 12 0 0 1 {w} 12V172A8 8 0 0 0 {w} 188V{}A12 12 0 0 1 {} {h}H12A12 12 0 0 1 0 {}V188A8 8 0 0 0 0 172V12A12 12 0 0 1 12 0z",
            w - 12.0,
            h - 12.0,
            w - 12.0,
            h - 12.0
        ),
        // The edges where a coupon was torn off.
        "coupon" => {
            let teeth = 75;
            let step = w / f64::from(teeth);
            let top = format!("l{} 4l{} -4", step / 2.0, step / 2.0).repeat(teeth as usize);
            let bottom = format!("l-{} -4l-{} 4", step / 2.0, step / 2.0).repeat(teeth as usize);
            format!("M0 0{top}V{h}{bottom}z")
        }
        _ => rounded(w, h, 12.0),
    }
}

pub(crate) fn rounded(w: f64, h: f64, r: f64) -> String {
    let (right, bottom) = (w - r, h - r);
    format!(
        "M{r} 0H{right}A{r} {r} 0 0 1 {w} {r}V{bottom}A{r} {r} 0 0 1 {right} {h}H{r}A{r} {r} 0 0 1 0 {bottom}V{r}A{r} {r} 0 0 1 {r} 0z"
    )
}

/// Draws the logo, its text, and the fields of the header.
fn header(svg: &mut Svg, pass: &mut Pass<'_>) {
    let look = Look {
        label: 11.0,
        value: 20.0,
        step: 23.0,
    };
    let fields = pass.fields("headerFields", MAX_HEADER);
    let area = Area::new(WIDTH * 0.3, 30.0, WIDTH * 0.7 - MARGIN, 0.0);
    let right = fields::from_right(svg, area, &fields, look, pass.colors);
    let mut left = MARGIN;
    if let Some(logo) = pass.image("logo") {
        let width = logo.width_in(160.0, 50.0).min((right - left).max(30.0));
        svg.image(Area::new(left, 13.0, width, 50.0), &logo, Fill::Left);
        left += width + 10.0;
    }
    if let Some(text) = pass.text("logoText") {
        let font = Font::new(19.0, pass.colors.foreground).weight(500);
        svg.fitted((left, 45.0), font, (right - left).max(10.0), &text);
    }
}

/// A store card or a coupon: the primary field on the strip.
fn card(svg: &mut Svg, pass: &mut Pass<'_>) {
    let strip = Area::new(0.0, HEADER, WIDTH, 144.0);
    let is_on_strip = draw_strip(svg, pass, strip);
    let primary = pass.fields("primaryFields", 1);
    on_strip(svg, pass, &primary, is_on_strip, strip);
    let mut rest = pass.fields("secondaryFields", 4);
    let room = 4_usize.saturating_sub(rest.len());
    rest.extend(pass.fields("auxiliaryFields", room));
    row(svg, pass.colors, 246.0, &rest);
}

/// Draws the image behind the primary field. Returns whether there is one.
fn draw_strip(svg: &mut Svg, pass: &mut Pass<'_>, area: Area) -> bool {
    let strip = pass.image("strip");
    if let Some(strip) = &strip {
        // An image must not cover what is below its place.
        let mut clipped = Svg::new(area.width, area.height);
        clipped.image(
            Area::new(0.0, 0.0, area.width, area.height),
            strip,
            Fill::Cover,
        );
        svg.nested(area.x, area.y, clipped);
    }
    strip.is_some()
}

/// Draws the large primary field, with its label below.
fn on_strip(svg: &mut Svg, pass: &Pass<'_>, fields: &[Field], has_image: bool, strip: Area) {
    let Some(field) = fields.first() else { return };
    // The label of a strip has the colour of the text.
    let label = if has_image {
        pass.colors.foreground
    } else {
        pass.colors.label
    };
    let room = WIDTH - 2.0 * MARGIN;
    let middle = strip.y + strip.height / 2.0;
    let size = (strip.height * 0.4).min(58.0);
    let value = Font::new(size, pass.colors.foreground).weight(300);
    svg.fitted((MARGIN, middle + size * 0.12), value, room, &field.value);
    let label = Font::new(17.0, label);
    svg.fitted(
        (MARGIN, middle + size * 0.12 + 27.0),
        label,
        room,
        &field.label,
    );
}

fn row(svg: &mut Svg, colors: Colors, y: f64, fields: &[Field]) {
    let area = Area::new(MARGIN, y, WIDTH - 2.0 * MARGIN, 0.0);
    fields::row(svg, area, fields, Look::ROW, colors);
}

fn ticket(svg: &mut Svg, pass: &mut Pass<'_>, whole: Area) {
    let strip = Area::new(0.0, HEADER, WIDTH, 98.0);
    let primary = pass.fields("primaryFields", 1);
    let mut right = WIDTH - MARGIN;
    let mut top = 208.0;
    if draw_strip(svg, pass, strip) {
        on_strip(svg, pass, &primary, true, strip);
    } else {
        if let Some(background) = pass.image("background") {
            svg.image(whole, &background, Fill::Blur);
        }
        right = thumbnail(svg, pass, 92.0);
        stacked(svg, pass, &primary, 104.0, right);
        top = 168.0;
    }
    let secondary = pass.fields("secondaryFields", 4);
    let area = Area::new(MARGIN, top, right - MARGIN, 0.0);
    fields::row(svg, area, &secondary, Look::ROW, pass.colors);
    let auxiliary = pass.fields("auxiliaryFields", 8);
    let (second, first): (Vec<_>, Vec<_>) = auxiliary
        .into_iter()
        .partition(|field| field.is_in_second_row);
    let mut y = top + 56.0;
    for fields in [first, second] {
        if !fields.is_empty() {
            let shown = fields.get(..4).unwrap_or(&fields);
            row(svg, pass.colors, y, shown);
            y += 50.0;
        }
    }
}

fn generic(svg: &mut Svg, pass: &mut Pass<'_>, barcode: Option<&Barcode>) {
    let right = thumbnail(svg, pass, 84.0);
    let primary = pass.fields("primaryFields", 1);
    stacked(svg, pass, &primary, 104.0, right);
    let mut secondary = pass.fields("secondaryFields", 4);
    let auxiliary = pass.fields("auxiliaryFields", 4);
    if barcode.is_some_and(Barcode::is_square) {
        // A square barcode leaves room for four fields.
        let room = 4_usize.saturating_sub(secondary.len());
        secondary.extend(auxiliary.into_iter().take(room));
        row(svg, pass.colors, 212.0, &secondary);
    } else {
        row(svg, pass.colors, 212.0, &secondary);
        row(svg, pass.colors, 268.0, &auxiliary);
    }
}

/// Draws the thumbnail at the right. Returns how much room there is to its left.
fn thumbnail(svg: &mut Svg, pass: &mut Pass<'_>, y: f64) -> f64 {
    let Some(thumbnail) = pass.image("thumbnail") else {
        return WIDTH - MARGIN;
    };
    let width = thumbnail.width_in(90.0, 90.0);
    let x = WIDTH - MARGIN - width;
    svg.image(Area::new(x, y, width, 90.0), &thumbnail, Fill::Right);
    x - MARGIN
}

/// Draws the primary field with its label above.
fn stacked(svg: &mut Svg, pass: &Pass<'_>, fields: &[Field], y: f64, right: f64) {
    let look = Look {
        label: 11.0,
        value: 28.0,
        step: 31.0,
    };
    if let Some(field) = fields.first() {
        let column = Area::new(MARGIN, y, right - MARGIN, 0.0);
        fields::draw(svg, column, field, look, pass.colors, Align::Left);
    }
}

fn boarding(svg: &mut Svg, pass: &mut Pass<'_>) {
    let look = Look {
        label: 12.0,
        value: 44.0,
        step: 46.0,
    };
    let primary = pass.fields("primaryFields", 2);
    let half = WIDTH / 2.0 - MARGIN - 34.0;
    let mut left = Some((MARGIN, Align::Left)).into_iter();
    let mut right = Some((WIDTH - MARGIN - half, Align::Right)).into_iter();
    for field in &primary {
        if let Some((x, align)) = left.next().or_else(|| right.next()) {
            let column = Area::new(x, 98.0, half, 0.0);
            fields::draw(svg, column, field, look, pass.colors, align);
        }
    }
    let kind = pass.json.get("boardingPass");
    let kind = kind.and_then(|style| style.get("transitType")?.as_str());
    let place = Area::new(WIDTH / 2.0 - 17.0, 108.0, 34.0, 34.0);
    svg.symbol(
        place,
        (24.0, 24.0),
        vehicle(kind.unwrap_or_default()),
        pass.colors.label,
    );
    let auxiliary = pass.fields("auxiliaryFields", 5);
    let secondary = pass.fields("secondaryFields", 4);
    row(svg, pass.colors, 206.0, &auxiliary);
    row(
        svg,
        pass.colors,
        if auxiliary.is_empty() { 206.0 } else { 258.0 },
        &secondary,
    );
    if let Some(footer) = pass.image("footer") {
        let area = Area::new((WIDTH - 286.0) / 2.0, 296.0, 286.0, 15.0);
        svg.image(area, &footer, Fill::Center);
    }
}

/// The symbol between the two places of a boarding pass.
pub(crate) fn vehicle(kind: &str) -> &'static str {
    match kind {
        "PKTransitTypeAir" => {
            "M22 12c0-.9-.9-1.6-2-1.6h-5.2L9.6 2H7.5l2.6 8.4H5.3L3.6 8.2H2l1 3.8-1 3.8h1.6l1.7-2.2h4.8L7.5 22h2.1l5.2-8.4H20c1.1 0 2-.7 2-1.6z"
        }
        "PKTransitTypeTrain" => {
            "M7 2h10a3 3 0 0 1 3 3v10a3 3 0 0 1-3 3l2 3h-2.4l-2-3H9.4l-2 3H5l2-3a3 3 0 0 1-3-3V5a3 3 0 0 1 3-3zm-1 3v5h12V5zm2 8a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3zm8 0a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3z"
        }
        "PKTransitTypeBus" => {
            "M5 3h14a2 2 0 0 1 2 2v12a2 2 0 0 1-1.5 1.9V21h-3v-2h-9v2h-3v-2.1A2 2 0 0 1 3 17V5a2 2 0 0 1 2-2zm0 3v6h14V6zm1.5 8a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3zm11 0a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3z"
        }
        "PKTransitTypeBoat" => {
            "M11 2h2v3h5v6l3 1-2.5 7c-1 0-2-.4-2.8-1-1.6 1.3-3.8 1.3-5.4 0-1.6 1.3-3.6 1.2-4.8 1L3 12l3-1V5h5zM8 7v3.4l4-1.3 4 1.3V7zM3 21c2 .6 4 .3 5.500-.5 2 .9 5 .9 7 0 1.500.8 3.500 1.100 5.500.5v-1.500z"
        }
        _ => "M3 11h13l-5-5 1.500-1.500L20 12l-7.500 7.500L11 18l5-5H3z",
    }
}

/// Draws a logo or, if there is none, the name of the organisation.
pub(crate) fn logo_or_name(svg: &mut Svg, pass: &mut Pass<'_>, area: Area, text: Option<String>) {
    let logo = pass.image("primaryLogo").or_else(|| pass.image("logo"));
    let mut x = area.x;
    if let Some(logo) = logo {
        let width = logo.width_in(126.0, area.height).min(area.width);
        svg.image(Area::new(x, area.y, width, area.height), &logo, Fill::Left);
        x += width + 8.0;
    } else if text.is_none() {
        let name = pass.text("organizationName").unwrap_or_default();
        let font = Font::new(17.0, WHITE).weight(600);
        svg.fitted((x, area.y + area.height * 0.7), font, area.width, &name);
    }
    if let Some(text) = text {
        let font = Font::new(16.0, pass.colors.foreground).weight(600);
        svg.fitted(
            (x, area.y + area.height * 0.68),
            font,
            area.right() - x,
            &text,
        );
    }
}
