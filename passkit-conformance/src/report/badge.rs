//! A badge for a README.

use super::{Report, text::printable};
use crate::Level;

/// The width of a character of the badge's font, in units of the picture. It is a little
/// more than the average width, so that the text fits.
const CHARACTER: usize = 7;

impl Report {
    /// Returns a picture (SVG) that says whether all cases passed, and at which level.
    #[must_use]
    pub fn badge(&self) -> String {
        let counts = self.counts();
        let level = self.level.map_or("", Level::as_str);
        let (said, colour) = match (counts.fail, counts.error, counts.pass) {
            (0, 0, 0) | (0, 1.., _) => ("not tested".to_owned(), "#9f9f9f"),
            (0, 0, _) => (format!("conforms {level}"), "#1f7a45"),
            (fail, ..) => (format!("{fail} failed"), "#bf2a25"),
        };
        let (label, said) = ("Wallet web service", printable(said.trim()));
        let width = |text: &str| text.chars().count() * CHARACTER + 10;
        let (left, right) = (width(label), width(&said));
        let all = left + right;
        let (middle, other) = (left / 2, left + right / 2);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{all}\" height=\"20\" role=\"img\" \
             aria-label=\"{label}: {said}\">\n\
             <title>{label}: {said}</title>\n\
             <rect width=\"{all}\" height=\"20\" rx=\"3\" fill=\"#555\"/>\n\
             <path d=\"M{left} 0h{end}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{end}z\" fill=\"{colour}\"/>\n\
             <g fill=\"#fff\" text-anchor=\"middle\" font-family=\"Verdana,DejaVu Sans,sans-serif\" font-size=\"11\">\n\
             <text x=\"{middle}\" y=\"14\">{label}</text>\n\
             <text x=\"{other}\" y=\"14\">{said}</text>\n\
             </g>\n\
             </svg>\n",
            end = right - 3,
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::{Report, report::samples::report};

    #[test]
    fn the_badge_says_how_it_went() {
        assert!(Report::default().badge().contains("not tested"));
        assert!(report().badge().contains("1 failed"));
        let mut passed = report();
        passed.results.truncate(1);
        assert!(passed.badge().contains(">conforms should<"));
    }
}
