//! Drawings of time over size, both on logarithmic scales. Each case has a line, and a dashed line
//! for its floor.

use std::{collections::BTreeSet, fmt::Write as _};

use crate::{data::grouped, results::Row};

const COLOURS: [&str; 6] = [
    "#1b6ca8", "#c0392b", "#1e8449", "#7d3c98", "#b9770e", "#34495e",
];
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 240.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 40.0;

/// Returns a drawing for each subject with a case that was measured at several sizes.
pub(crate) fn by_subject(bench: &str, rows: &[Row]) -> Vec<(String, String)> {
    let subjects: BTreeSet<&str> = rows.iter().map(|row| row.subject.as_str()).collect();
    let of = |subject: &str| {
        rows.iter()
            .filter(|row| row.subject == subject)
            .collect::<Vec<_>>()
    };
    subjects
        .into_iter()
        .map(|subject| (subject, of(subject)))
        .filter(|(_, rows)| {
            let grown = |row: &Row| {
                rows.iter()
                    .any(|other| other.case == row.case && other.size != row.size)
            };
            rows.iter().any(|row| grown(row))
        })
        .map(|(subject, rows)| {
            (
                subject.to_owned(),
                draw(&format!("{bench}, {subject}"), &rows),
            )
        })
        .collect()
}

fn draw(title: &str, rows: &[&Row]) -> String {
    let sizes: BTreeSet<usize> = rows.iter().map(|row| row.size).collect();
    let log = |value: f64| value.max(1e-3).log10();
    let ends = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::MAX, f64::MIN), |(low, high), value| {
            (low.min(value), high.max(value))
        })
    };
    let (x0, x1) = ends(&mut sizes.iter().map(|size| log(*size as f64)));
    let (y0, y1) = ends(&mut rows.iter().flat_map(|row| [log(row.floor), log(row.own)]));
    let (y0, y1) = (y0.floor(), y1.ceil().max(y0.floor() + 1.0));
    let x = |size: usize| LEFT + (log(size as f64) - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
    let y = |time: f64| HEIGHT - BOTTOM - (log(time) - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM);

    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
<text x="{LEFT}" y="20" font-size="14">{title}: time of a call over registrations; dashed: floor</text>
"##
    );
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _written = writeln!(svg, "{text}");
    };
    for step in y0 as i32..=y1 as i32 {
        let time = 10_f64.powi(step);
        let (at, right) = (y(time), WIDTH - RIGHT);
        let label = match time {
            time if time >= 1000.0 => format!("{} ms", time / 1000.0),
            time => format!("{time} us"),
        };
        line(format_args!(
            r##"<path d="M{LEFT} {at:.1}H{right}" stroke="#ddd"/>"##
        ));
        line(format_args!(
            r#"<text x="{}" y="{:.1}" text-anchor="end">{label}</text>"#,
            LEFT - 6.0,
            at + 4.0
        ));
    }
    for size in &sizes {
        let bottom = HEIGHT - BOTTOM + 18.0;
        line(format_args!(
            r#"<text x="{:.1}" y="{bottom}" text-anchor="middle">{}</text>"#,
            x(*size),
            grouped(*size)
        ));
    }
    let mut cases: Vec<&str> = Vec::new();
    for row in rows {
        if !cases.contains(&row.case.as_str()) {
            cases.push(&row.case);
        }
    }
    for (case, colour) in cases.iter().zip(COLOURS.iter().cycle()) {
        let mut points: Vec<&&Row> = rows.iter().filter(|row| row.case == *case).collect();
        points.sort_by_key(|row| row.size);
        for (dash, time) in [
            ("", (|row| row.own) as fn(&Row) -> f64),
            ("5 4", |row| row.floor),
        ] {
            let path: Vec<String> = points
                .iter()
                .map(|row| format!("{:.1} {:.1}", x(row.size), y(time(row))))
                .collect();
            line(format_args!(
                r#"<path d="M{}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>"#,
                path.join("L")
            ));
        }
        if let Some(last) = points.last() {
            line(format_args!(
                r#"<text x="{}" y="{:.1}" fill="{colour}">{case}</text>"#,
                WIDTH - RIGHT + 8.0,
                y(last.own) + 4.0
            ));
        }
    }
    svg.push_str("</svg>\n");
    svg
}
