//! Estimates the cost of a JPEG's scans from their headers, since a small file with many scans can take very long.

use super::FORMAT;
use crate::image::error::ImageError;

/// Maximum number of scans. Encoders produce about ten.
const SCANS_MAX: usize = 100;
/// Maximum number of passes over all coefficients. The scan scripts of encoders, which send some bits of some
/// coefficients at a time, need three or four. An empty scan that refines all coefficients costs as much as one with data.
const PASSES_MAX: u64 = 8;
/// Coefficients of a block of 8x8 samples.
const BLOCK: u64 = 64;

/// The scans of a stream.
#[derive(Default)]
pub(super) struct Scans {
    count: usize,
    /// Whether a scan may hold only some of the coefficients.
    is_progressive: bool,
    components: Vec<Component>,
    /// Whether the first scan holds the whole picture, so that later scans are never read.
    is_first_whole: bool,
    /// Coefficients processed by all scans together.
    coefficients: u64,
}

/// A component of the frame: its identifier and its number of blocks.
struct Component {
    id: u8,
    blocks: u64,
}

impl Scans {
    /// Reads the headers of a stream.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let (mut rest, mut scans) = (bytes, Self::default());
        while let Some(at) = rest.iter().position(|byte| *byte == 0xff) {
            rest = &rest[at + 1..];
            let Some((&marker, body)) = rest.split_first() else { break };
            match marker {
                // the end; data behind it (a phone's video, raw data) is not part of the image
                0xd9 => break,
                // a segment; its length includes the length's own two bytes
                0xc0..=0xcf | 0xda..=0xfe => {
                    let length =
                        body.first_chunk().map_or(2, |length| usize::from(u16::from_be_bytes(*length)));
                    let (segment, behind) = body.split_at(length.max(2).min(body.len()));
                    scans.take(marker, segment.get(2..).unwrap_or_default());
                    rest = behind;
                }
                // a stuffed zero, padding, a restart
                _ => {}
            }
        }
        scans
    }

    fn take(&mut self, marker: u8, segment: &[u8]) {
        match marker {
            0xda => self.take_scan(segment),
            // Huffman tables, a reserved marker and arithmetic conditioning share the frames' marker range
            0xc4 | 0xc8 | 0xcc => {}
            0xc0..=0xcf if self.components.is_empty() => {
                self.is_progressive = matches!(marker, 0xc2 | 0xca);
                self.components = components(segment);
            }
            _ => {}
        }
    }

    fn take_scan(&mut self, segment: &[u8]) {
        self.count += 1;
        let Some((&count, rest)) = segment.split_first() else { return };
        let Some((names, rest)) = rest.split_at_checked(2 * usize::from(count)) else { return };
        let coefficients = match rest {
            [first, last, ..] if self.is_progressive => {
                (u64::from(*last) + 1).saturating_sub((*first).into()).min(BLOCK)
            }
            _ => BLOCK,
        };
        let named = |id: u8| self.components.iter().filter(move |component| component.id == id);
        // if two components have the same identifier, the decoder may take either
        let blocks = |name: &[u8]| named(name[0]).map(|component| component.blocks).max().unwrap_or(0);
        let blocks: u64 = names.chunks_exact(2).map(blocks).sum();
        if self.count == 1 {
            self.is_first_whole = !self.is_progressive && usize::from(count) == self.components.len();
        }
        self.coefficients = self.coefficients.saturating_add(blocks * coefficients);
    }

    /// Refuses more scans than any encoder produces.
    pub(super) fn check_count(&self) -> Result<(), ImageError> {
        if self.count <= SCANS_MAX {
            return Ok(());
        }
        Err(ImageError::Frames { format: FORMAT, frames: self.count, limit: SCANS_MAX })
    }

    /// Refuses scans that process the picture more often than any encoder's do.
    pub(super) fn check_passes(&self) -> Result<(), ImageError> {
        let passes = self.passes();
        if passes <= PASSES_MAX || self.is_first_whole {
            return Ok(());
        }
        let kind = format!("its scans go over it {passes} times, the limit is {PASSES_MAX}");
        Err(ImageError::UnsupportedKind { format: FORMAT, kind })
    }

    /// Returns how often all coefficients are processed, rounded up.
    fn passes(&self) -> u64 {
        let blocks: u64 = self.components.iter().map(|component| component.blocks).sum();
        self.coefficients.div_ceil((blocks * BLOCK).max(1))
    }
}

/// Reads the components that a frame header announces.
fn components(segment: &[u8]) -> Vec<Component> {
    let [_, h0, h1, w0, w1, count, rest @ ..] = segment else { return Vec::new() };
    let size = [[w0, w1], [h0, h1]].map(|[high, low]| u64::from(u16::from_be_bytes([*high, *low])));
    let parts = || rest.chunks_exact(3).take(usize::from(*count));
    // horizontal and vertical sampling factors of a component
    let sampling = |part: &[u8]| [part[1] >> 4, part[1] & 15].map(|samples| u64::from(samples.max(1)));
    let most = |axis: usize| parts().map(|part| sampling(part)[axis]).max().unwrap_or(1);
    let most = [most(0), most(1)];
    let component = |part: &[u8]| {
        let sampling = sampling(part);
        let along = |axis: usize| (size[axis] * sampling[axis]).div_ceil(most[axis] * 8);
        Component { id: part[0], blocks: along(0) * along(1) }
    };
    parts().map(component).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Components, first and last coefficient of a scan.
    type Scan<'a> = (&'a [u8], u8, u8);

    /// The headers of a picture of 64x48 pixels with 4:2:0 colours, or gray.
    fn headers(frame: u8, components: u8, scans: &[Scan<'_>]) -> Vec<u8> {
        let parts = (1..=components).flat_map(|id| [id, if id == 1 { 0x22 } else { 0x11 }, 0]);
        let mut file = vec![0xff, 0xd8, 0xff, frame, 0, 8 + 3 * components, 8, 0, 48, 0, 64, components];
        file.extend(parts);
        for (ids, first, last) in scans {
            file.extend([0xff, 0xda, 0, 6 + 2 * ids.len() as u8, ids.len() as u8]);
            file.extend(ids.iter().flat_map(|id| [*id, 0]));
            file.extend([*first, *last, 0]);
        }
        file
    }

    fn scans(frame: u8, components: u8, scans: &[Scan<'_>]) -> Scans {
        Scans::of(&headers(frame, components, scans))
    }

    #[test]
    fn encoders_scripts_go_over_a_picture_a_few_times() {
        let all: &[u8] = &[1, 2, 3];
        let (y, cb, cr): (&[u8], &[u8], &[u8]) = (&[1], &[2], &[3]);
        let libjpeg: &[Scan<'_>] = &[
            (all, 0, 0),
            (y, 1, 5),
            (cr, 1, 63),
            (cb, 1, 63),
            (y, 6, 63),
            (y, 1, 63),
            (all, 0, 0),
            (cr, 1, 63),
            (cb, 1, 63),
            (y, 1, 63),
        ];
        let mozjpeg: &[Scan<'_>] = &[
            (all, 0, 0),
            (y, 1, 8),
            (cb, 1, 8),
            (cr, 1, 8),
            (y, 9, 63),
            (y, 1, 63),
            (y, 1, 63),
            (cb, 9, 63),
            (cr, 9, 63),
        ];
        for (name, script) in [("libjpeg", libjpeg), ("mozjpeg", mozjpeg)] {
            for frame in [0xc2, 0xca] {
                let scans = scans(frame, 3, script);
                assert_eq!((scans.count, scans.passes()), (script.len(), 3), "{name}");
                assert_eq!((scans.check_count(), scans.check_passes()), (Ok(()), Ok(())), "{name}");
            }
        }
        let one_after_the_other = scans(0xc0, 3, &[(y, 0, 63), (cb, 0, 63), (cr, 0, 63)]);
        assert_eq!(one_after_the_other.passes(), 1);
    }

    #[test]
    fn passes_are_counted_by_blocks_and_coefficients() {
        let (y, cb): (&[u8], &[u8]) = (&[1], &[2]);
        for frame in [0xc2, 0xca] {
            let at_the_limit = [vec![(y, 0, 0)], vec![(y, 1, 63); 8]].concat();
            assert_eq!(scans(frame, 1, &at_the_limit).check_passes(), Ok(()));
            let beyond = [at_the_limit, vec![(y, 32, 63)]].concat();
            let told = scans(frame, 1, &beyond).check_passes().unwrap_err().to_string();
            assert!(told.ends_with("its scans go over it 9 times, the limit is 8"), "{told}");
            // chroma has a third of all blocks, so many scans of one component cost little
            assert_eq!(scans(frame, 3, &[(cb, 1, 63); 47]).check_passes(), Ok(()));
        }
        // sequential scans hold every coefficient, regardless of the range they state
        assert!(scans(0xc1, 3, &[(y, 0, 0); 13]).check_passes().is_err());
        // nothing is read behind a scan of all components of a sequential picture
        assert_eq!(scans(0xc0, 1, &[(y, 0, 63); 50]).check_passes(), Ok(()));
        assert!(scans(0xc0, 1, &[(y, 0, 63); 101]).check_count().is_err());
    }

    #[test]
    fn headers_that_are_cut_are_walked_to_their_end() {
        let whole = headers(0xc2, 3, &[(&[1, 2, 3], 0, 0), (&[1], 1, 63)]);
        for length in 0..whole.len() {
            assert!(Scans::of(&whole[..length]).passes() <= 1, "{length}");
        }
    }
}
