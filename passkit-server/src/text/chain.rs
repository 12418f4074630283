use std::{error::Error, fmt};

/// Shows an error and its sources on one line. Some drivers repeat the text of a source at the end
/// of the error's own text. Such a text is shown only once.
pub struct Chain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.to_string();
        f.write_str(&shown)?;
        let mut next = self.0.source();
        while let Some(source) = next {
            let text = source.to_string();
            if !shown.ends_with(&text) {
                write!(f, ": {text}")?;
                shown = text;
            }
            next = source.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Errors, each of which is the source of the one before.
    #[derive(Debug)]
    struct Texts(&'static [&'static str], Option<Box<Texts>>);

    fn chain(texts: &'static [&'static str]) -> String {
        fn error(texts: &'static [&'static str]) -> Option<Box<Texts>> {
            let (_, sources) = texts.split_first()?;
            Some(Box::new(Texts(texts, error(sources))))
        }
        Chain(&*error(texts).unwrap()).to_string()
    }

    impl fmt::Display for Texts {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0[0])
        }
    }

    impl Error for Texts {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|source| source as &dyn Error)
        }
    }

    #[test]
    fn the_sources_of_an_error_follow_it() {
        assert_eq!(chain(&["the store failed"]), "the store failed");
        assert_eq!(
            chain(&["the store failed", "can't write", "disk full"]),
            "the store failed: can't write: disk full"
        );
    }

    #[test]
    fn a_source_that_repeats_the_text_before_it_is_left_out() {
        assert_eq!(
            chain(&["can't connect: refused", "refused", "os error 111"]),
            "can't connect: refused: os error 111"
        );
        assert_eq!(
            chain(&["unavailable", "refused", "refused", "refused"]),
            "unavailable: refused"
        );
        assert_eq!(
            chain(&["a: b: c", "b: c", "c"]),
            "a: b: c",
            "each driver may repeat what is below it"
        );
    }
}
