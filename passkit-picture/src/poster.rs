//! The fronts of the poster styles. Apple does not publish their sizes, so these pictures are even
//! more approximate than the classic ones.

use serde_json::Value;

use crate::{
    barcode::Barcode,
    classic::{MARGIN, WIDTH, logo_or_name, rounded, vehicle},
    fields::{self, Look},
    language::Length,
    pass::{Colors, Field, Pass, readable_on},
    svg::{Align, Area, Fill, Font, Svg},
    value,
};

const HEIGHT: f64 = 560.0;
const ROOM: f64 = WIDTH - 2.0 * MARGIN;
const LARGE: Look = Look {
    label: 12.0,
    value: 30.0,
    step: 32.0,
};

pub(crate) fn draw(pass: &mut Pass<'_>) -> Svg {
    let mut svg = Svg::new(WIDTH, HEIGHT);
    svg.clip("front", &rounded(WIDTH, HEIGHT, 24.0));
    let whole = Area::new(0.0, 0.0, WIDTH, HEIGHT);
    svg.rect(whole, 0.0, pass.colors.background, 1.0);
    match pass.style {
        "posterGeneric" => generic(&mut svg, pass),
        "posterEventTicket" => ticket(&mut svg, pass),
        _ => boarding(&mut svg, pass),
    }
    svg
}

/// Draws the image of the poster, and a shade below its texts.
fn artwork(svg: &mut Svg, pass: &mut Pass<'_>, area: Area) {
    let image = pass.image("artwork").or_else(|| pass.image("background"));
    if let Some(image) = image {
        let mut clipped = Svg::new(area.width, area.height);
        clipped.image(
            Area::new(0.0, 0.0, area.width, area.height),
            &image,
            Fill::Cover,
        );
        svg.nested(area.x, area.y, clipped);
    }
    let half = Area::new(
        area.x,
        area.y + area.height * 0.45,
        area.width,
        area.height * 0.55,
    );
    svg.shade("shade", half, pass.colors.background);
}

fn header(svg: &mut Svg, pass: &mut Pass<'_>, text: Option<String>, fields: &[Field]) {
    let look = Look {
        label: 11.0,
        value: 18.0,
        step: 20.0,
    };
    let area = Area::new(WIDTH * 0.4, 30.0, WIDTH * 0.6 - MARGIN, 0.0);
    let right = fields::from_right(svg, area, fields, look, pass.colors);
    let area = Area::new(MARGIN, 22.0, (right - MARGIN).max(40.0), 30.0);
    logo_or_name(svg, pass, area, text);
}

fn generic(svg: &mut Svg, pass: &mut Pass<'_>) {
    let barcode = Barcode::of(pass);
    let bottom = barcode
        .as_ref()
        .map_or(HEIGHT - 16.0, |barcode| HEIGHT - 32.0 - barcode.size().1);
    artwork(svg, pass, Area::new(0.0, 0.0, WIDTH, bottom));
    let fields = pass.fields("headerFields", 1);
    header(svg, pass, None, &fields);
    let footer = pass.fields("footerFields", 2);
    let mut y = bottom - 34.0;
    if !footer.is_empty() {
        fields::row(
            svg,
            Area::new(MARGIN, y, ROOM, 0.0),
            &footer,
            Look::ROW,
            pass.colors,
        );
        y -= 44.0;
    }
    let primary = pass.fields("primaryFields", 4);
    if let Some((first, rest)) = primary.split_first() {
        if !rest.is_empty() {
            fields::row(
                svg,
                Area::new(MARGIN, y, ROOM, 0.0),
                rest,
                Look::ROW,
                pass.colors,
            );
            y -= 46.0;
        }
        let column = Area::new(MARGIN, y - 10.0, ROOM, 0.0);
        fields::draw(svg, column, first, LARGE, pass.colors, Align::Left);
    }
    if let Some(barcode) = barcode {
        barcode.draw(svg, WIDTH / 2.0, HEIGHT - 16.0);
    }
}

/// A ticket is laid out from its semantic tags.
fn ticket(svg: &mut Svg, pass: &mut Pass<'_>) {
    const FOOTER: f64 = 64.0;
    artwork(svg, pass, Area::new(0.0, 0.0, WIDTH, HEIGHT - FOOTER));
    let starts = pass.tag("eventStartDate").and_then(Value::as_str);
    let starts = starts.and_then(value::read);
    let date = starts.map(|(date, time)| Field {
        label: pass.language.date(date, Length::Medium),
        value: value::clock(time, Length::Short, &pass.language),
        align: None,
        is_in_second_row: false,
    });
    let text = pass.text("eventLogoText");
    let date: Vec<Field> = date.into_iter().collect();
    header(svg, pass, text, &date);

    let middle = WIDTH / 2.0;
    let white = Font::new(30.0, pass.colors.foreground).align(Align::Center);
    let teams = ["awayTeamAbbreviation", "homeTeamAbbreviation"];
    let teams: Vec<String> = teams.iter().filter_map(|key| pass.tag_text(key)).collect();
    let name = match teams.len() {
        2 => teams.join(" – "),
        _ => pass.tag_text("eventName").unwrap_or_default(),
    };
    svg.fitted(
        (middle, HEIGHT - FOOTER - 74.0),
        white.weight(700),
        ROOM,
        &name,
    );
    let performers = pass.tag_text("performerNames").unwrap_or_default();
    let small = Font {
        size: 15.0,
        ..white
    };
    svg.fitted((middle, HEIGHT - FOOTER - 50.0), small, ROOM, &performers);
    let venue = ["venueName", "venueRoom", "venueRegionName"];
    let venue: Vec<String> = venue.iter().filter_map(|key| pass.tag_text(key)).collect();
    svg.fitted(
        (middle, HEIGHT - FOOTER - 26.0),
        small,
        ROOM,
        &venue.join(" · "),
    );

    let footer = pass
        .json
        .get("footerBackgroundColor")
        .and_then(Value::as_str);
    let footer = footer.and_then(passkit_archive::read_color);
    let footer = footer.unwrap_or(pass.colors.background);
    svg.rect(
        Area::new(0.0, HEIGHT - FOOTER, WIDTH, FOOTER),
        0.0,
        footer,
        1.0,
    );
    let colors = Colors {
        background: footer,
        foreground: readable_on(footer),
        label: readable_on(footer),
    };
    let mut fields = seat(pass);
    fields.extend(named(pass, "attendeeName", "Name"));
    let area = Area::new(MARGIN, HEIGHT - 40.0, ROOM - 48.0, 0.0);
    fields::row(
        svg,
        area,
        fields.get(..4).unwrap_or(&fields),
        Look::ROW,
        colors,
    );
    if pass.json.contains_key("nfc") {
        contactless(
            svg,
            WIDTH - MARGIN - 24.0,
            HEIGHT - FOOTER / 2.0,
            colors.foreground,
        );
    }
}

/// Draws the waves of a contactless pass.
fn contactless(svg: &mut Svg, x: f64, y: f64, color: [u8; 3]) {
    for (index, radius) in [7.0, 13.0, 19.0].into_iter().enumerate() {
        let x = x + 4.0 + index as f64 * 5.0;
        let path = format!(
            "M{x} {}A{radius} {radius} 0 0 1 {x} {}",
            y - radius * 0.7,
            y + radius * 0.7
        );
        svg.stroke(&path, color, 2.5);
    }
}

/// Returns the parts of the first seat.
fn seat(pass: &Pass<'_>) -> Vec<Field> {
    let seat = pass.tag("seats").and_then(|seats| seats.get(0));
    let parts = [
        ("seatSection", "Section"),
        ("seatRow", "Row"),
        ("seatNumber", "Seat"),
    ];
    let parts = parts.iter().filter_map(|(key, label)| {
        let text = seat?.get(key)?.as_str()?;
        Some(field(label, &crate::text::clean(text, 40)))
    });
    parts.collect()
}

fn field(label: &str, value: &str) -> Field {
    Field {
        label: label.to_owned(),
        value: crate::text::one_line(value),
        align: None,
        is_in_second_row: false,
    }
}

fn named(pass: &Pass<'_>, tag: &str, label: &str) -> Option<Field> {
    Some(field(label, &pass.tag_text(tag)?))
}

/// A boarding pass is laid out from its semantic tags too.
fn boarding(svg: &mut Svg, pass: &mut Pass<'_>) {
    let flight = match (pass.tag_text("airlineCode"), pass.tag_text("flightNumber")) {
        (Some(airline), Some(number)) => Some(format!("{airline} {number}")),
        (_, number) => number,
    };
    let flight: Vec<Field> = flight
        .map(|flight| field("Flight", &flight))
        .into_iter()
        .collect();
    header(svg, pass, None, &flight);

    let half = WIDTH / 2.0 - MARGIN - 30.0;
    let ends = [
        ("departure", MARGIN, Align::Left),
        ("destination", WIDTH - MARGIN, Align::Right),
    ];
    for (end, x, align) in ends {
        let tag = |name: &str| pass.tag_text(&format!("{end}{name}")).unwrap_or_default();
        let font = Font::new(50.0, pass.colors.foreground)
            .weight(300)
            .align(align);
        svg.fitted((x, 136.0), font, half, &tag("AirportCode"));
        let small = Font::new(14.0, pass.colors.label).align(align);
        svg.fitted((x, 86.0), small, half, &tag("CityName"));
        let date = match end {
            "departure" => ["currentDepartureDate", "originalDepartureDate"],
            _ => ["currentArrivalDate", "originalArrivalDate"],
        };
        let date = date
            .iter()
            .find_map(|key| value::read(pass.tag(key)?.as_str()?));
        if let Some((date, time)) = date {
            let time = value::clock(time, Length::Short, &pass.language);
            let strong = Font::new(17.0, pass.colors.foreground)
                .weight(600)
                .align(align);
            svg.fitted((x, 164.0), strong, half, &time);
            let date = pass.language.date(date, Length::Medium);
            svg.fitted((x, 184.0), small, half, &date);
        }
    }
    let place = Area::new(WIDTH / 2.0 - 15.0, 102.0, 30.0, 30.0);
    svg.symbol(
        place,
        (24.0, 24.0),
        vehicle("PKTransitTypeAir"),
        pass.colors.label,
    );

    let boards = ["currentBoardingDate", "originalBoardingDate"];
    let boards = boards
        .iter()
        .find_map(|key| value::read(pass.tag(key)?.as_str()?));
    let boards = boards.map(|(_, time)| value::clock(time, Length::Short, &pass.language));
    let mut first: Vec<Field> = named(pass, "departureTerminal", "Terminal")
        .into_iter()
        .collect();
    first.extend(named(pass, "departureGate", "Gate"));
    first.extend(boards.map(|time| field("Boarding", &time)));
    first.extend(named(pass, "boardingGroup", "Group"));
    let seat: String = seat(pass).into_iter().map(|part| part.value).collect();
    if !seat.is_empty() {
        first.push(field("Seat", &seat));
    }
    let passenger = pass.tag("passengerName");
    let part = |key: &str| passenger?.get(key)?.as_str();
    let parts = [
        "namePrefix",
        "givenName",
        "middleName",
        "familyName",
        "nameSuffix",
    ];
    let parts: Vec<&str> = parts.iter().filter_map(|key| part(key)).collect();
    let name = crate::text::clean(&parts.join(" "), 200);
    let mut second = vec![field("Passenger", &name)];
    second.extend(named(pass, "ticketFareClass", "Class"));
    for (y, fields) in [(232.0, &first), (288.0, &second)] {
        fields::row(
            svg,
            Area::new(MARGIN, y, ROOM, 0.0),
            fields,
            Look::ROW,
            pass.colors,
        );
    }
    if let Some(barcode) = Barcode::of(pass) {
        barcode.draw(svg, WIDTH / 2.0, HEIGHT - 24.0);
    }
}
