//! Writes SVG. Only this file makes markup from text.

use std::fmt::Write as _;

use crate::{image::Image, text};

/// Red, green and blue.
pub(crate) type Color = [u8; 3];

const FONTS: &str = "-apple-system, system-ui, Helvetica, Arial, sans-serif";
const CAPTION: &str = "Approximate picture of the pass";

/// A picture that is being drawn, or a part of one.
pub(crate) struct Svg {
    pub(crate) width: f64,
    pub(crate) height: f64,
    out: String,
    /// The name of the clip path of this part.
    clip: Option<&'static str>,
}

/// Where a text is, relative to its x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Center,
    Right,
}

/// How a text looks.
#[derive(Clone, Copy)]
pub(crate) struct Font {
    pub(crate) size: f64,
    pub(crate) weight: u16,
    pub(crate) color: Color,
    pub(crate) align: Align,
}

impl Font {
    pub(crate) fn new(size: f64, color: Color) -> Self {
        Self {
            size,
            weight: 400,
            color,
            align: Align::Left,
        }
    }

    pub(crate) fn weight(self, weight: u16) -> Self {
        Self { weight, ..self }
    }

    pub(crate) fn align(self, align: Align) -> Self {
        Self { align, ..self }
    }
}

/// A rectangle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

impl Area {
    pub(crate) fn new(x: f64, y: f64, width: f64, height: f64) -> Self {
        Self {
            x,
            y,
            width,
            height,
        }
    }

    pub(crate) fn right(self) -> f64 {
        self.x + self.width
    }
}

/// How an image fills an area.
#[derive(Clone, Copy)]
pub(crate) enum Fill {
    /// The whole image is visible, at the left.
    Left,
    /// The whole image is visible, at the right.
    Right,
    /// The whole image is visible, in the middle.
    Center,
    /// The whole area is covered, and the image may be cut.
    Cover,
    /// Like `Cover`, and the image is blurred.
    Blur,
}

impl Svg {
    pub(crate) fn new(width: f64, height: f64) -> Self {
        Self {
            width,
            height,
            out: String::new(),
            clip: None,
        }
    }

    /// From now on, nothing outside the path is visible. The name is unique in the document.
    pub(crate) fn clip(&mut self, name: &'static str, path: &str) {
        self.clip = Some(name);
        self.push(format_args!(
            "<clipPath id=\"{name}\"><path d=\"{path}\" clip-rule=\"evenodd\"/></clipPath>\n<g clip-path=\"url(#{name})\">"
        ));
    }

    pub(crate) fn rect(&mut self, area: Area, radius: f64, fill: Color, opacity: f64) {
        let place = place(area);
        let fill = hex(fill);
        self.push(format_args!(
            "<rect {place} rx=\"{radius}\" fill=\"{fill}\" fill-opacity=\"{opacity}\"/>"
        ));
    }

    /// Draws a rectangle that is clear at its top and has this colour at its bottom.
    pub(crate) fn shade(&mut self, name: &str, area: Area, color: Color) {
        let (place, fill) = (place(area), hex(color));
        self.push(format_args!(
            "<linearGradient id=\"{name}\" x2=\"0\" y2=\"1\"><stop stop-color=\"{fill}\" stop-opacity=\"0\"/>\
             <stop offset=\"0.6\" stop-color=\"{fill}\" stop-opacity=\"0.85\"/><stop offset=\"1\" stop-color=\"{fill}\"/></linearGradient>\n\
             <rect {place} fill=\"url(#{name})\"/>"
        ));
    }

    /// Draws an outline.
    pub(crate) fn stroke(&mut self, path: &str, color: Color, width: f64) {
        let color = hex(color);
        self.push(format_args!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\" stroke-linecap=\"round\"/>"
        ));
    }

    /// Fills a path of a drawing with this view box.
    pub(crate) fn symbol(
        &mut self,
        area: Area,
        (width, height): (f64, f64),
        path: &str,
        fill: Color,
    ) {
        let (place, fill) = (place(area), hex(fill));
        self.push(format_args!(
            "<svg {place} viewBox=\"0 0 {width} {height}\"><path d=\"{path}\" fill=\"{fill}\"/></svg>"
        ));
    }

    /// Fills the modules of a barcode.
    pub(crate) fn modules(
        &mut self,
        area: Area,
        (width, height): (u32, u32),
        path: &str,
        opacity: f64,
    ) {
        let place = place(area);
        self.push(format_args!(
            "<svg {place} viewBox=\"0 0 {width} {height}\" preserveAspectRatio=\"none\" shape-rendering=\"crispEdges\" \
             class=\"barcode\"><path d=\"{path}\" fill-opacity=\"{opacity}\"/></svg>"
        ));
    }

    pub(crate) fn text(&mut self, x: f64, y: f64, font: Font, text: &str) {
        if text.is_empty() {
            return;
        }
        let anchor = match font.align {
            Align::Left => "start",
            Align::Center => "middle",
            Align::Right => "end",
        };
        let (size, color, text) = (round(font.size), hex(font.color), escaped(text));
        let weight = match font.weight {
            400 => String::new(),
            weight => format!(" font-weight=\"{weight}\""),
        };
        let (x, y) = (round(x), round(y));
        self.push(format_args!(
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\"{weight} text-anchor=\"{anchor}\" fill=\"{color}\">{text}</text>"
        ));
    }

    /// Draws a text within a width. A text that is too wide gets smaller, down to 60 %, and is then
    /// cut.
    pub(crate) fn fitted(&mut self, (x, y): (f64, f64), font: Font, room: f64, text: &str) {
        let (text, size) = text::fit(text, font.size, font.size * 0.6, room);
        self.text(x, y, Font { size, ..font }, &text);
    }

    pub(crate) fn image(&mut self, area: Area, image: &Image, fill: Fill) {
        let place = place(area);
        let (ratio, filter) = match fill {
            Fill::Left => ("xMinYMid", ""),
            Fill::Right => ("xMaxYMid", ""),
            Fill::Center => ("xMidYMid", ""),
            Fill::Cover => ("xMidYMid slice", ""),
            Fill::Blur => {
                self.push(format_args!(
                    "<filter id=\"blur\"><feGaussianBlur stdDeviation=\"12\" edgeMode=\"duplicate\"/></filter>"
                ));
                ("xMidYMid slice", " filter=\"url(#blur)\"")
            }
        };
        let uri = &image.uri;
        self.push(format_args!(
            "<image {place} preserveAspectRatio=\"{ratio}\"{filter} href=\"{uri}\"/>"
        ));
    }

    pub(crate) fn caption(&mut self, x: f64, y: f64) {
        // This grey can be read on white and on black.
        let font = Font::new(11.0, [0x80; 3]).align(Align::Center);
        self.text(x, y, font, CAPTION);
    }

    /// Adds a part.
    pub(crate) fn nested(&mut self, x: f64, y: f64, part: Self) {
        let place = place(Area::new(x, y, part.width, part.height));
        let end = if part.clip.is_some() { "</g>" } else { "" };
        self.push(format_args!("<svg {place}>"));
        self.out.push_str(&part.out);
        self.push(format_args!("{end}</svg>"));
    }

    /// Returns the document.
    pub(crate) fn document(&self, title: &str) -> String {
        let (width, height) = (round(self.width), round(self.height));
        let (title, out) = (escaped(title), &self.out);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             font-family=\"{FONTS}\">\n<title>{title}</title>\n<desc>{CAPTION}</desc>\n{out}</svg>\n"
        )
    }

    fn push(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string never fails.
        let _ = writeln!(self.out, "{line}");
    }
}

fn place(area: Area) -> String {
    let Area {
        x,
        y,
        width,
        height,
    } = area;
    let (x, y, width, height) = (round(x), round(y), round(width), round(height));
    format!("x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"")
}

/// Two digits are enough, and make smaller files.
fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

fn hex([r, g, b]: Color) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
