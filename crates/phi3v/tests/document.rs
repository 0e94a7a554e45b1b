//! Pages of documents: drawn where and as large as they should be, and what hostile files come to.
#![allow(clippy::unwrap_used, reason = "tests may panic")]
#![cfg(feature = "pdf")]

use phi3v::document::{Pdf, PdfError, page_size};
use phi3v::image::{RgbImage, hd_transform};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use std::path::Path;

const RED: [u8; 3] = [255, 0, 0];
const BLUE: [u8; 3] = [0, 0, 255];
const WHITE: [u8; 3] = [255; 3];

fn testdata(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/documents").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The colour at a place, in parts of the width and the height.
fn at(image: &RgbImage, x: f64, y: f64) -> [u8; 3] {
    let (x, y) = ((x * image.width as f64) as usize, (y * image.height as f64) as usize);
    let at = (y * image.width + x) * 3;
    [image.pixels[at], image.pixels[at + 1], image.pixels[at + 2]]
}

/// A PDF of these objects, the first of which is its catalogue.
fn pdf(objects: &[String]) -> Vec<u8> {
    let (mut file, mut offsets) = (b"%PDF-1.7\n".to_vec(), Vec::new());
    for (index, object) in objects.iter().enumerate() {
        offsets.push(file.len());
        file.extend(format!("{} 0 obj\n{object}\nendobj\n", index + 1).bytes());
    }
    let table = file.len();
    file.extend(format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1).bytes());
    offsets.iter().for_each(|offset| file.extend(format!("{offset:010} 00000 n \n").bytes()));
    let trailer =
        format!("trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n", objects.len() + 1);
    file.extend(trailer.bytes());
    file
}

/// A page of `box_` with these resources and this content, and objects from 5 on.
fn page(media_box: &str, resources: &str, content: &str, more: &[String]) -> Vec<u8> {
    let head = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Count 1 /Kids [3 0 R] >>".to_owned(),
        format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox {media_box} /Contents 4 0 R /Resources << {resources} >> >>"
        ),
        stream("", content),
    ];
    pdf(&[&head[..], more].concat())
}

fn stream(entries: &str, content: &str) -> String {
    format!("<< {entries} /Length {} >>\nstream\n{content}\nendstream", content.len())
}

const A4: &str = "[0 0 595.276 841.89]";

#[test]
fn pages_are_drawn_in_their_place_and_turned() {
    let pdf = Pdf::open(testdata("shapes.pdf")).unwrap();
    assert_eq!(pdf.pages(), 3);
    let first = pdf.draw(1, 16).unwrap();
    assert!(!first.is_incomplete);
    // 100 to 300 of 595.276 from the left, 600 to 700 of 841.89 from below
    let [left, right, top, bottom] =
        [100.0 / 595.276, 300.0 / 595.276, 1.0 - 700.0 / 841.89, 1.0 - 600.0 / 841.89];
    for (x, y, color) in [
        (left + 0.01, top + 0.01, RED),
        (right - 0.01, bottom - 0.01, RED),
        (left - 0.01, top + 0.01, WHITE),
        (right + 0.01, top + 0.01, WHITE),
        (left + 0.01, top - 0.01, WHITE),
        (left + 0.01, bottom + 0.01, WHITE),
    ] {
        assert_eq!(at(&first.image, x, y), color, "{x} {y}");
    }
    let second = pdf.draw(2, 16).unwrap().image;
    assert!(second.width > second.height);
    assert_eq!(at(&second, 550.0 / 841.89, 1.0 - 125.0 / 595.276), BLUE);
    // a stripe on the left, turned to the top
    let third = pdf.draw(3, 16).unwrap().image;
    assert!(third.width > third.height);
    assert_eq!((at(&third, 0.5, 0.05)[1] > 100, at(&third, 0.5, 0.95)), (true, WHITE));
}

#[test]
fn a_font_that_is_not_in_the_file_is_drawn_by_one_of_its_kind() {
    let first = Pdf::open(testdata("shapes.pdf")).unwrap().draw(1, 16).unwrap().image;
    // the text stands from 120 on, on a line 300 from below
    let rows = ((1.0 - 320.0 / 841.89)..(1.0 - 295.0 / 841.89), 120.0 / 595.276..240.0 / 595.276);
    let within =
        |at: usize, all: usize, range: &std::ops::Range<f64>| range.contains(&(at as f64 / all as f64));
    let dark = first.pixels.chunks_exact(3).enumerate().filter(|(index, pixel)| {
        let (x, y) = (index % first.width, index / first.width);
        pixel[0] < 100 && within(y, first.height, &rows.0) && within(x, first.width, &rows.1)
    });
    assert!((300..3000).contains(&dark.count()));
}

#[test]
fn a_page_is_drawn_as_the_tiles_see_it() {
    let pdf = Pdf::open(testdata("shapes.pdf")).unwrap();
    for page in 1..=3 {
        for num_crops in [1, 4, 16] {
            let drawn = pdf.draw(page, num_crops).unwrap().image;
            let hd = hd_transform(&drawn, num_crops).unwrap();
            let (top, left) = ((hd.height - drawn.height) / 2, (hd.width - drawn.width) / 2);
            for (y, row) in drawn.pixels.chunks_exact(drawn.width * 3).enumerate() {
                let at = ((top + y) * hd.width + left) * 3;
                assert_eq!(hd.pixels[at..at + row.len()], *row, "page {page} at {num_crops}, row {y}");
            }
        }
    }
}

#[test]
fn what_needs_a_password_or_is_no_document_says_so() {
    assert_eq!(Pdf::open(testdata("password.pdf")).err(), Some(PdfError::Password));
    let open = Pdf::open(testdata("no_password.pdf")).unwrap();
    let plain = Pdf::open(testdata("shapes.pdf")).unwrap();
    assert_eq!(open.draw(1, 4), plain.draw(1, 4));
    for bytes in [&b""[..], b"%PDF-1.7\n", b"not a document", &[0xff; 5000]] {
        assert_eq!(Pdf::open(bytes.to_vec()).err(), Some(PdfError::Damaged));
    }
    let empty = ["<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Count 0 /Kids [] >>"];
    let refused = Pdf::open(pdf(&empty.map(str::to_owned))).err();
    assert!(matches!(refused, Some(PdfError::Empty | PdfError::Damaged)), "{refused:?}");
    for page in [0, 4, usize::MAX] {
        assert_eq!(plain.draw(page, 4).err(), Some(PdfError::NoPage { page, pages: 3 }));
    }
    assert!(matches!(plain.draw(1, 0).err(), Some(PdfError::NumCrops { .. })));
}

#[test]
fn a_broken_table_of_contents_is_made_anew() {
    let mut bytes = testdata("shapes.pdf");
    let table = bytes.windows(9).rposition(|window| window == b"startxref").unwrap();
    bytes.truncate(table);
    let mended = Pdf::open(bytes).unwrap();
    assert_eq!(mended.draw(2, 4), Pdf::open(testdata("shapes.pdf")).unwrap().draw(2, 4));
}

#[test]
fn what_is_missing_on_a_page_is_told() {
    let image =
        "/Type /XObject /Subtype /Image /Width 8 /Height 8 /ColorSpace /DeviceRGB /BitsPerComponent 8";
    let broken = stream(&format!("{image} /Filter /JPXDecode"), "no picture at all");
    let resources = "/XObject << /I 5 0 R >>";
    let draw = |content: &str| {
        Pdf::open(page(A4, resources, content, std::slice::from_ref(&broken))).unwrap().draw(1, 4)
    };
    let shown = draw("1 0 0 rg 0 0 600 400 re f q 100 0 0 100 50 600 cm /I Do Q").unwrap();
    assert!(shown.is_incomplete && at(&shown.image, 0.5, 0.9) == RED);
    let blank = draw("q 100 0 0 100 50 600 cm /I Do Q").unwrap_err();
    assert!(matches!(blank, PdfError::Page { page: 1, .. }), "{blank:?}");
    assert!(!draw("").unwrap().is_incomplete, "a blank page is a page");
}

#[test]
fn pages_of_any_shape_are_within_the_tiles() {
    for (media_box, num_crops) in
        [("[0 0 28346 28346]", 16), ("[0 0 14400 10]", 16), ("[0 0 1 1]", 1), ("[-50 -50 50 150]", 4)]
    {
        let drawn = Pdf::open(page(media_box, "", "", &[])).unwrap().draw(1, num_crops).unwrap().image;
        assert!(drawn.width.div_ceil(336) * drawn.height.div_ceil(336) <= num_crops, "{media_box}");
    }
    let strip = Pdf::open(page("[0 0 1000000 1]", "", "", &[])).unwrap().draw(1, 16);
    assert_eq!(strip, Err(PdfError::TooNarrow { page: 1 }));
    for media_box in ["[0 0 0 0]", "[0 0 -5 nan]", "[1 1 1]", "[]", "[1e38 1e38 -1e38 -1e38]"] {
        // drawn as some page or refused, and no more than that
        let _ = Pdf::open(page(media_box, "", "", &[])).map(|pdf| pdf.draw(1, 4));
    }
    let size = page_size(28_346.0, 28_346.0, 16).unwrap();
    assert_eq!((size.width, size.height), (1344, 1344));
}

#[test]
fn what_refers_to_itself_ends() {
    let form = |content: &str, resources: &str| {
        let entries =
            format!("/Type /XObject /Subtype /Form /BBox [0 0 600 900] /Resources << {resources} >>");
        stream(&entries, content)
    };
    let itself = form("1 0 0 rg 0 0 600 100 re f /X Do", "/XObject << /X 5 0 R >>");
    let drawn =
        Pdf::open(page(A4, "/XObject << /X 5 0 R >>", "/X Do", &[itself])).unwrap().draw(1, 4).unwrap();
    assert_eq!(at(&drawn.image, 0.5, 0.99), RED);
    let pattern = stream(
        "/PatternType 1 /PaintType 1 /TilingType 1 /BBox [0 0 9 9] /XStep 9 /YStep 9 \
         /Resources << /Pattern << /P 5 0 R >> >>",
        "/Pattern cs /P scn 0 0 9 9 re f",
    );
    let content = "/Pattern cs /P scn 0 0 600 600 re f";
    let drawn = Pdf::open(page(A4, "/Pattern << /P 5 0 R >>", content, &[pattern])).unwrap().draw(1, 4);
    assert!(drawn.is_ok());
    let pages = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Count 1 /Kids [2 0 R 2 0 R] /Parent 2 0 R >>".to_owned(),
    ];
    assert!(Pdf::open(pdf(&pages)).is_err());
    let deep = format!("{} {}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Pdf::open(page(A4, "", &deep, &[])).unwrap().draw(1, 1).is_ok());
    let nested = Pdf::open(page(A4, &format!("/X {deep}"), "", &[]));
    assert!(matches!(nested.err(), None | Some(PdfError::Damaged | PdfError::Empty)));
}

#[test]
fn ten_thousand_pages_are_counted_and_one_is_drawn() {
    let kids: Vec<String> = (0..10_000).map(|page| format!("{} 0 R", page + 3)).collect();
    let mut objects = vec!["<< /Type /Catalog /Pages 2 0 R >>".to_owned()];
    objects.push(format!("<< /Type /Pages /Count 10000 /Kids [{}] >>", kids.join(" ")));
    objects.extend(vec![format!("<< /Type /Page /Parent 2 0 R /MediaBox {A4} >>"); 10_000]);
    let pdf = Pdf::open(pdf(&objects)).unwrap();
    assert_eq!(pdf.pages(), 10_000);
    assert_eq!(at(&pdf.draw(10_000, 1).unwrap().image, 0.5, 0.5), WHITE);
}

/// The documents that are damaged: made here, a few of each construct.
fn seeds() -> Vec<Vec<u8>> {
    let font = "<< /Type /Font /Subtype /Type1 /BaseFont /Times-Roman >>".to_owned();
    let shading = "<< /ShadingType 2 /ColorSpace /DeviceRGB /Coords [0 0 600 0] /Function \
                   << /FunctionType 2 /Domain [0 1] /C0 [1 0 0] /C1 [0 0 1] /N 1 >> >>";
    let image = stream(
        "/Type /XObject /Subtype /Image /Width 2 /Height 2 /ColorSpace /DeviceGray /BitsPerComponent 8",
        "abcd",
    );
    let content = "q 0.5 0 0 0.5 0 0 cm /S sh Q BT /F 30 Tf 50 700 Td (Some words) Tj ET \
                   q 200 0 0 200 300 300 cm /I Do Q 5 w 10 10 m 100 200 300 50 500 500 c S";
    let resources = format!("/Font << /F 5 0 R >> /XObject << /I 6 0 R >> /Shading << /S {shading} >>");
    vec![
        testdata("shapes.pdf"),
        testdata("password.pdf"),
        testdata("no_password.pdf"),
        page(A4, &resources, content, &[font, image]),
    ]
}

#[test]
fn damaged_documents_are_drawn_or_refused() {
    let seeds = seeds();
    let mut random = Pcg64Mcg::seed_from_u64(18);
    let mut below = |bound: usize| (random.next_u64() % bound.max(1) as u64) as usize;
    let mut drawn = 0;
    for round in 0..500 {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..1 + below(8) {
            let at = below(bytes.len());
            match below(4) {
                0 => bytes[at] = below(256) as u8,
                1 => bytes[at] = b"0123456789<>[]()/ R-"[below(20)],
                2 => drop(bytes.drain(at..(at + below(20)).min(bytes.len()))),
                _ => {
                    let piece = bytes[at..(at + below(40)).min(bytes.len())].to_vec();
                    let to = below(bytes.len());
                    bytes.splice(to..to, piece);
                }
            }
        }
        let Ok(pdf) = Pdf::open(bytes) else { continue };
        for page in 1..=pdf.pages().min(3) {
            drawn += usize::from(pdf.draw(page, 1).is_ok());
        }
    }
    assert!(drawn > 200, "only {drawn} pages were drawn");
}
