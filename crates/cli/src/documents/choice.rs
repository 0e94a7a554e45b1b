//! Which pages of a document to read, as in `1-3,7,10-`.

use super::error::DocumentError;
use phi3v::document::PdfError;
use std::collections::BTreeSet;
use std::str::FromStr;

/// Pages of a document, in the order in which they are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageChoice(Vec<Range>);

/// Consecutive pages, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: usize,
    /// The last page; `None` means the end of the document.
    last: Option<usize>,
}

impl PageChoice {
    /// Chooses one page, counted from 1.
    #[must_use]
    pub fn of(page: usize) -> Self {
        Self(vec![Range { first: page, last: Some(page) }])
    }

    /// Returns the numbers of the chosen pages of a document with `pages` pages, each once. A range that begins within
    /// the document is cut at its end.
    ///
    /// # Errors
    /// A page or range begins beyond the end, or there are more than `limit` pages.
    pub fn of_document(&self, pages: usize, limit: usize) -> Result<Vec<usize>, DocumentError> {
        let (mut seen, mut chosen) = (BTreeSet::new(), Vec::new());
        for Range { first, last } in &self.0 {
            if *first > pages {
                return Err(PdfError::NoPage { page: *first, pages }.into());
            }
            let last = last.unwrap_or(pages).min(pages);
            // take one more than allowed to detect the excess, regardless of the length of the range
            let more = (*first..=last).filter(|page| seen.insert(*page)).take(limit.saturating_add(1));
            chosen.extend(more);
            if chosen.len() > limit {
                return Err(DocumentError::ManyPages { pages, limit });
            }
        }
        Ok(chosen)
    }
}

impl FromStr for PageChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = |part: &str| {
            let number = |text: &str| text.trim().parse().ok().filter(|page: &usize| *page > 0);
            let range = match part.split_once('-') {
                None => number(part).map(|page| Range { first: page, last: Some(page) }),
                Some((first, "")) => number(first).map(|first| Range { first, last: None }),
                Some((first, last)) => number(first)
                    .zip(number(last))
                    .map(|(first, last)| Range { first, last: Some(last) })
                    .filter(|range| range.last >= Some(range.first)),
            };
            range.ok_or_else(|| format!("{part:?} is no page or range; write pages from 1 on, as 1-3,7,10-"))
        };
        text.trim().split(',').map(|part| range(part.trim())).collect::<Result<_, _>>().map(Self)
    }
}

impl std::fmt::Display for PageChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, Range { first, last }) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match last {
                Some(last) if last == first => write!(f, "{comma}{first}")?,
                Some(last) => write!(f, "{comma}{first}-{last}")?,
                None => write!(f, "{comma}{first}-")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_chosen_in_order_and_once() {
        let chosen = |text: &str, pages| text.parse::<PageChoice>().unwrap().of_document(pages, 5).unwrap();
        assert_eq!(chosen("1-3", 9), [1, 2, 3]);
        assert_eq!(chosen("1-3", 2), [1, 2], "a range ends with the document");
        assert_eq!(chosen("7-, 2,1-2", 9), [7, 8, 9, 2, 1]);
        assert_eq!(chosen(" 4 ", 4), [4]);
        assert_eq!(chosen("1-18446744073709551615", 2), [1, 2]);
        assert_eq!(PageChoice::of(3).of_document(3, 1).unwrap(), [3]);
    }

    #[test]
    fn more_pages_than_the_limit_are_refused_and_the_last_of_many_is_not() {
        let many = usize::MAX;
        let chosen = |text: &str| text.parse::<PageChoice>().unwrap().of_document(many, 3);
        assert_eq!(chosen(&format!("7,1,{many}")).unwrap(), [7, 1, many]);
        assert_eq!(chosen("2-3,1-3").unwrap(), [2, 3, 1]);
        for text in ["1-4", "1-", "1-3,7"] {
            let refused = chosen(text).unwrap_err();
            assert!(matches!(refused, DocumentError::ManyPages { limit: 3, .. }), "{text}: {refused}");
        }
    }

    #[test]
    fn what_is_behind_the_end_is_refused() {
        for text in ["5", "5-", "5-6", "1,5"] {
            let refused = text.parse::<PageChoice>().unwrap().of_document(4, 4).unwrap_err();
            assert_eq!(refused.to_string(), "there is no page 5, the document has 4", "{text}");
        }
    }

    #[test]
    fn what_is_no_choice_is_refused_and_a_choice_is_written_as_it_was_given() {
        for text in ["", "0", "-3", "3-1", "a", "1-2-3", "1,,2", "1.5", "99999999999999999999999", "1-0"] {
            let refused = text.parse::<PageChoice>().unwrap_err();
            assert!(refused.contains("1-3,7,10-"), "{text}: {refused}");
        }
        for text in ["1", "1-3,7,10-"] {
            assert_eq!(text.parse::<PageChoice>().unwrap().to_string(), text);
        }
    }
}
