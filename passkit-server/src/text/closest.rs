/// Returns up to three candidates that resemble a mistyped word, the closest first.
///
/// Time grows with the length of `word` times the length of all candidates. The caller bounds both.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    let mut near: Vec<(usize, &str)> = candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= allowed || (word.len() >= 3 && candidate.contains(word))
        })
        .collect();
    near.sort_by_key(|(distance, _)| *distance);
    near.into_iter()
        .map(|(_, candidate)| candidate)
        .take(3)
        .collect()
}

/// The number of letters to add, remove or change to turn one word into the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, c) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, d) in other.iter().enumerate() {
            let changed = diagonal + usize::from(c != *d);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_found() {
        assert_eq!(closest("serail", ["type", "serial", "token"]), ["serial"]);
        assert_eq!(closest("tok", ["type", "serial", "token"]), ["token"]);
        assert_eq!(
            closest("quiet", ["list/quiet", "list/shape"]),
            ["list/quiet"]
        );
        assert!(closest("xyz", ["type", "serial"]).is_empty());
        assert_eq!((distance("", "abc"), distance("kitten", "sitting")), (3, 3));
    }
}
