//! Expands the documents among a batch's inputs into pages, each of which is a picture.

use super::inputs::{Inputs, PictureItem, head};
use crate::documents::{OpenFiles, count_pages};
use crate::sources::{ImageOptions, page_name, read_named};
use phi3v::document::is_pdf;
use phi3v::image::is_tiff;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

impl Inputs {
    /// Replaces each document by its pages, named `report.pdf#page=3`. A document that cannot be opened stays and gets an
    /// error row; the first few stay open in `open`. `tell` receives (documents counted, documents in all); counting takes a
    /// process for each PDF. Addresses are fetched if their path ends like a document's, or if pages were chosen.
    #[must_use]
    pub fn with_pages(
        self,
        options: &ImageOptions,
        open: &OpenFiles,
        tell: &mut dyn FnMut(usize, usize),
    ) -> Self {
        let Self::Pictures { items, passed_over } = self else { return self };
        let may_have_pages = |item: &PictureItem| match options.fetched_url(&item.source) {
            Some(url) => options.pages.is_some() || is_called_pdf(url),
            None => head(Path::new(&item.source))
                .is_ok_and(|head| is_pdf(&head) || (options.pages.is_some() && is_tiff(&head))),
        };
        let documents: Vec<usize> = (0..items.len()).filter(|&index| may_have_pages(&items[index])).collect();
        let mut pages = for_each_of(&documents, &|index| pages_of(&items[index], options, open), tell);
        let of_item = |(index, item)| pages.remove(&index).flatten().unwrap_or_else(|| vec![item]);
        let items = items.into_iter().enumerate().flat_map(of_item).collect();
        Self::Pictures { items, passed_over }
    }
}

/// Whether the path of an address ends with a PDF's extension.
fn is_called_pdf(url: &str) -> bool {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    path.to_ascii_lowercase().ends_with(".pdf")
}

/// A picture for each page of a file; `None` if it has one picture or cannot be read.
fn pages_of(item: &PictureItem, options: &ImageOptions, open: &OpenFiles) -> Option<Vec<PictureItem>> {
    let bytes = read_named(&item.source, options).ok()?;
    let counted = count_pages(bytes, &options.reading(usize::MAX)).ok()??;
    open.keep_if_room(&item.source, counted.file);
    if counted.numbers == [1] && options.pages.is_none() {
        return None;
    }
    let id = |page| page_name(&item.id, page);
    let page_of = |page| PictureItem { id: id(page), source: item.source.clone(), page: Some(page) };
    Some(counted.numbers.into_iter().map(page_of).collect())
}

/// Most documents counted at a time: each takes a process of its own, with the memory limit of drawing.
const COUNTING_MAX: usize = 16;

/// Calls `work` for each of `numbers` on several threads and returns the results by number. `tell` receives the count done.
fn for_each_of<T: Send>(
    numbers: &[usize],
    work: &(dyn Fn(usize) -> T + Sync),
    tell: &mut dyn FnMut(usize, usize),
) -> HashMap<usize, T> {
    if numbers.is_empty() {
        return HashMap::new();
    }
    tell(0, numbers.len());
    // a thread mostly waits for its process
    let threads = (2 * std::thread::available_parallelism().map_or(1, usize::from)).min(COUNTING_MAX);
    let next = AtomicUsize::new(0);
    let (sender, results) = mpsc::channel();
    let work = |sender: mpsc::Sender<(usize, T)>| {
        while let Some(&number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
            let _ = sender.send((number, work(number)));
        }
    };
    let work = &work;
    std::thread::scope(|scope| {
        for index in 0..threads.min(numbers.len()) {
            let own = sender.clone();
            if std::thread::Builder::new().spawn_scoped(scope, move || work(own)).is_err() {
                if index == 0 {
                    work(sender.clone()); // no thread could be started
                }
                break;
            }
        }
        drop(sender);
        let told = results.iter().enumerate().inspect(|(done, _)| tell(done + 1, numbers.len()));
        told.map(|(_, result)| result).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_called_a_pdf_by_its_path() {
        for url in ["https://example.org/a.pdf", "http://example.org/A.PDF?x=1#page=2"] {
            assert!(is_called_pdf(url), "{url}");
        }
        for url in
            ["https://example.org/a.png", "https://example.org/a?of=b.pdf", "https://example.org/#a.pdf"]
        {
            assert!(!is_called_pdf(url), "{url}");
        }
    }

    #[test]
    fn numbers_are_worked_through_once_each_by_many_threads() {
        let numbers: Vec<usize> = (0..50).map(|number| number * 3).collect();
        let mut told = Vec::new();
        let squares = for_each_of(&numbers, &|number| number * number, &mut |done, of| told.push((done, of)));
        assert_eq!(squares, numbers.iter().map(|number| (*number, number * number)).collect());
        assert_eq!(told, (0..=50).map(|done| (done, 50)).collect::<Vec<_>>());
    }
}
