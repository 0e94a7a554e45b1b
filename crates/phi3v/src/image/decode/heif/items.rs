//! The items of a HEIF file: coded pictures, and pictures assembled from others.

#[cfg(feature = "heic")]
use super::super::super::error::ImageError;
use super::super::super::{ImageLimits, Size};
#[cfg(feature = "avif")]
use super::av1;
use super::canvas::Canvas;
use super::coding::{Coding, Role};
#[cfg(feature = "heic")]
use super::hevc;
use super::{Codec, Fault, damaged, unsupported};
use crate::threads::together;
use heifer_isobmff::boxes::{ColorInfo, Property};
use heifer_isobmff::{HeifFile, ItemId};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Maximum nesting depth of pictures assembled from others.
const DEPTH_MAX: u32 = 4;
/// Maximum number of pixels produced per pixel of the picture. Tiles overhang and are assembled, layers overlap, and
/// transparency is coded separately.
const PER_PIXEL_MAX: u64 = 8;
/// Smaller pictures may cost as much as a picture of this many pixels.
const PIXELS_MIN: u64 = 1 << 20;
/// Minimum cost of a picture, in pixels.
const COST_MIN: u64 = 1 << 12;
/// Bytes of an item that cost as much as one decoded pixel. Bytes of a coded picture count twice, since they are copied.
const BYTES_PER_PIXEL: u64 = 4;
/// Entries of the item lists that cost as much as one decoded pixel to search.
const ENTRIES_PER_PIXEL: u64 = 8;
/// Pixels that are rotated, mirrored or cropped at the cost of one decoded pixel.
const MOVED_PER_PIXEL: u64 = 2;
/// Maximum number of tiles that are decoded concurrently.
const THREADS_MAX: usize = 8;
/// The types that mark a picture as the transparency of another.
const ALPHA_TYPES: [&str; 2] = ["urn:mpeg:hevc:2015:auxid:1", "urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"];

/// Produces pictures from a file's items.
pub(super) struct Items<'a> {
    file: &'a HeifFile<'a>,
    codec: Codec,
    limits: &'a ImageLimits,
    /// Entries of the lists that are searched for every picture.
    entries: u64,
    /// Pixels that may still be produced.
    left: AtomicU64,
}

impl<'a> Items<'a> {
    /// Creates the items of a file whose picture has the size `size`, if the file states one.
    pub(super) fn new(
        file: &'a HeifFile<'a>,
        codec: Codec,
        size: Option<Size>,
        limits: &'a ImageLimits,
    ) -> Self {
        let pixels = size.map_or(limits.pixels_max, Size::pixels).max(PIXELS_MIN);
        let references: usize = file.references.iter().map(|list| 1 + list.to.len()).sum();
        let entries = (file.items.len() + references) as u64;
        let left = AtomicU64::new(pixels.saturating_mul(PER_PIXEL_MAX));
        Self { file, codec, limits, entries, left }
    }

    /// Returns the primary picture of the file, rotated and cropped for display.
    pub(super) fn primary(&self) -> Result<Canvas, Fault> {
        self.picture(self.file.primary_id, 0, Role::Color)
    }

    /// Returns an item's picture, rotated and cropped for display. `depth` is its nesting depth.
    fn picture(&self, id: ItemId, depth: u32, role: Role) -> Result<Canvas, Fault> {
        let mut picture = self.as_coded(id, depth, role)?;
        let alpha = if role == Role::Color { self.alpha_of(id)? } else { None };
        if let Some(alpha) = alpha {
            // alpha is rotated and cropped together with its picture
            picture.set_alpha(&self.as_coded(alpha, depth + 1, Role::Alpha)?);
            if self.file.referenced_items(id, b"prem").contains(&alpha) {
                picture.unmultiply();
            }
        }
        self.transformed(id, picture)
    }

    /// Returns an item's picture before it is rotated and cropped.
    fn as_coded(&self, id: ItemId, depth: u32, role: Role) -> Result<Canvas, Fault> {
        if depth > DEPTH_MAX {
            return Err(damaged("it is made of pictures that are made of others, too deep"));
        }
        let bytes = self.file.item_data(id)?.len() as u64;
        self.charge(bytes / BYTES_PER_PIXEL + self.entries / ENTRIES_PER_PIXEL)?;
        let kind = self.file.item(id)?.item_type;
        match &kind.0 {
            kind if self.codec.is_of(*kind) => self.coded(id, depth, role),
            b"grid" => self.grid(id, depth, role),
            b"iovl" => self.overlay(id, depth, role),
            b"iden" => match *self.file.referenced_items(id, b"dimg") {
                [source] => self.picture(source, depth + 1, role),
                _ => Err(damaged("it is the same as several others")),
            },
            _ => Err(unsupported(format!("coded as `{kind}`"))),
        }
    }

    fn alpha_of(&self, id: ItemId) -> Result<Option<ItemId>, Fault> {
        for item in self.file.referencing_items(id, b"auxl") {
            self.charge(self.entries / ENTRIES_PER_PIXEL)?;
            let mut properties = self.file.item_properties(item)?;
            let is_alpha = |property: &Property| matches!(property, Property::AuxiliaryType(kind) if ALPHA_TYPES.contains(&kind.as_str()));
            if properties.any(is_alpha) {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// Subtracts `pixels`, or at least [`COST_MIN`], from the pixels that may still be produced.
    fn charge(&self, pixels: u64) -> Result<(), Fault> {
        let charged = |left: u64| left.checked_sub(pixels.max(COST_MIN));
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, charged) {
            Ok(_) => Ok(()),
            Err(_) => Err(damaged("it is made of more than a picture of its size can be")),
        }
    }

    /// Charges a coded picture before it is decoded: its pixels, cropped ones included, and its bytes.
    #[cfg(feature = "heic")]
    fn charge_decoding(&self, size: Size, bytes: usize) -> Result<(), Fault> {
        let (Size { width, height }, limit) = (size, self.limits.pixels_max);
        if size.pixels() > limit {
            return Err(ImageError::Pixels { width, height, limit }.into());
        }
        self.charge(size.pixels() + bytes as u64 / BYTES_PER_PIXEL)
    }

    fn coded(&self, id: ItemId, depth: u32, role: Role) -> Result<Canvas, Fault> {
        let mut properties = self.file.item_properties(id)?;
        let coding = properties.find_map(|property| match *property {
            Property::Color(ColorInfo::Nclx { primaries, matrix, full_range, .. }) => {
                Some(Coding { primaries, matrix, is_full_range: full_range })
            }
            _ => None,
        });
        let stated = self.file.image_size(id)?;
        let stated = |size: Size| {
            let (width, height) = stated.unwrap_or((size.width, size.height));
            (width as usize, height as usize)
        };
        match self.codec {
            #[cfg(feature = "heic")]
            Codec::Hevc => {
                // one thread decodes one picture
                let _ = depth;
                let stream = self.file.hevc_bitstream(id)?;
                let picture = hevc::CodedPicture::of(&stream)?;
                self.charge_decoding(picture.size()?, stream.len())?;
                let frame = picture.decode()?;
                let (width, height) = stated(Size { width: frame.widths[0], height: frame.heights[0] });
                hevc::to_canvas(&frame, coding, role, width, height)
            }
            #[cfg(feature = "avif")]
            Codec::Av1 => {
                let picture = av1::decode(self.file, id, self.pixels_max(), threads_at(depth))?;
                let size = Size { width: picture.width(), height: picture.height() };
                self.charge(size.pixels())?;
                let (width, height) = stated(size);
                av1::to_canvas(&picture, coding, role, width, height)
            }
        }
    }

    /// Maximum number of pixels that a picture may have.
    #[cfg(feature = "avif")]
    fn pixels_max(&self) -> u64 {
        self.limits.pixels_max.min(self.left.load(Ordering::Relaxed))
    }

    fn grid(&self, id: ItemId, depth: u32, role: Role) -> Result<Canvas, Fault> {
        let grid = self.file.grid(id)?;
        let (columns, rows) = (usize::from(grid.columns), usize::from(grid.rows));
        let tiles = self.file.referenced_items(id, b"dimg");
        if tiles.len() != columns * rows {
            return Err(damaged("its tiles are more or fewer than its rows and columns"));
        }
        let size = Size { width: grid.output_width, height: grid.output_height };
        self.limits.check_size(size)?;
        self.charge(size.pixels())?;
        let (width, height) = (grid.output_width as usize, grid.output_height as usize);
        let first = self.picture(tiles[0], depth + 1, role)?;
        // every tile must be needed, and the tiles must cover the whole picture
        let is_covered = |tiles: usize, side: usize, whole: usize| {
            let covered = tiles.checked_mul(side).is_some_and(|covered| covered >= whole);
            covered && (tiles - 1) * side < whole
        };
        if !is_covered(columns, first.width, width) || !is_covered(rows, first.height, height) {
            return Err(damaged("its tiles do not fit its size"));
        }
        let canvas = Mutex::new(Canvas::filled(width, height, [0, 0, 0, u8::MAX])?);
        let place = |index: usize, tile: &Canvas| {
            if (tile.width, tile.height) != (first.width, first.height) {
                return Err(damaged("its tiles differ in size"));
            }
            let (x, y) = (index % columns * tile.width, index / columns * tile.height);
            canvas.lock().unwrap_or_else(PoisonError::into_inner).copy(tile, x, y);
            Ok(())
        };
        place(0, &first)?;
        each(1..tiles.len(), threads_at(depth), |index| {
            place(index, &self.picture(tiles[index], depth + 1, role)?)
        })?;
        Ok(canvas.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn overlay(&self, id: ItemId, depth: u32, role: Role) -> Result<Canvas, Fault> {
        let data = self.file.item_data(id)?;
        let layers = self.file.referenced_items(id, b"dimg");
        let overlay =
            Overlay::parse(&data, layers.len()).ok_or_else(|| damaged("its layers are not told"))?;
        self.limits.check_size(overlay.size)?;
        self.charge(overlay.size.pixels())?;
        let (width, height) = (overlay.size.width as usize, overlay.size.height as usize);
        let mut canvas = Canvas::filled(width, height, overlay.fill)?;
        for (layer, (x, y)) in layers.iter().zip(overlay.places) {
            canvas.lay_over(&self.picture(*layer, depth + 1, role)?, x, y);
        }
        Ok(canvas)
    }

    /// Rotates, mirrors and crops the picture as its properties say, in their order.
    fn transformed(&self, id: ItemId, mut picture: Canvas) -> Result<Canvas, Fault> {
        for property in self.file.item_properties(id)? {
            let moves = matches!(
                property,
                Property::Rotation(1..) | Property::Mirror(_) | Property::CleanAperture { .. }
            );
            if moves {
                self.charge(picture.pixels.len() as u64 / MOVED_PER_PIXEL)?;
            }
            picture = match property {
                Property::Rotation(quarters) => picture.turned(*quarters)?,
                Property::Mirror(top_to_bottom) => picture.mirrored(*top_to_bottom)?,
                Property::CleanAperture { width, height, horiz_offset, vert_offset } => {
                    let empty = || damaged("nothing is left of it when it is cropped");
                    let columns = Aperture { side: *width, offset: *horiz_offset, is_rounded_down: true };
                    let rows = Aperture { side: *height, offset: *vert_offset, is_rounded_down: false };
                    let (left, width) = columns.of(picture.width).ok_or_else(empty)?;
                    let (top, height) = rows.of(picture.height).ok_or_else(empty)?;
                    picture.cropped(left, top, width, height)?
                }
                _ => picture,
            };
        }
        Ok(picture)
    }
}

/// Number of threads for a picture at nesting depth `depth`. Nested pictures use one thread, to avoid threads that
/// start threads.
fn threads_at(depth: u32) -> usize {
    if depth == 0 { threads() } else { 1 }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

/// Calls `work` for each of `indices` on `threads` threads, until one call fails.
fn each(
    indices: std::ops::Range<usize>,
    threads: usize,
    work: impl Fn(usize) -> Result<(), Fault> + Sync,
) -> Result<(), Fault> {
    let (next, failed) = (AtomicUsize::new(indices.start), Mutex::new(None));
    let run = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= indices.end {
                return;
            }
            if let Err(error) = work(index) {
                next.store(indices.end, Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    together(threads.min(indices.len()), run);
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// The description of a picture made of layers.
struct Overlay {
    size: Size,
    /// The background colour below all layers.
    fill: [u8; 4],
    /// The top left corner of each layer.
    places: Vec<(i64, i64)>,
}

impl Overlay {
    /// Reads version, flags, four 16-bit colours, and the size and corners as 16-bit or 32-bit numbers.
    fn parse(data: &[u8], layers: usize) -> Option<Self> {
        let (head, rest) = data.split_first_chunk::<10>()?;
        let (version, is_long) = (head[0], head[1] & 1 == 1);
        let bytes = if is_long { 4 } else { 2 };
        if version != 0 || rest.len() < (2 + 2 * layers).checked_mul(bytes)? {
            return None;
        }
        let mut numbers = rest.chunks_exact(bytes).map(|number| match *number {
            [a, b, c, d] => i32::from_be_bytes([a, b, c, d]),
            [a, b] => i16::from_be_bytes([a, b]).into(),
            _ => 0,
        });
        // sides are unsigned
        let side = |number: i32| if is_long { number as u32 } else { u32::from(number as u16) };
        let size = Size { width: side(numbers.next()?), height: side(numbers.next()?) };
        let places = (0..layers).map(|_| Some((numbers.next()?.into(), numbers.next()?.into())));
        // keep the upper 8 of 16 bits
        Some(Self {
            size,
            fill: [head[2], head[4], head[6], head[8]],
            places: places.collect::<Option<_>>()?,
        })
    }
}

/// The visible part of a side, in fractions: its length and the distance of its centre from the side's centre.
struct Aperture {
    side: (u32, u32),
    offset: (i32, u32),
    /// Whether a start between two pixels is rounded down instead of up: libheif rounds columns down and rows up.
    is_rounded_down: bool,
}

impl Aperture {
    /// Returns start and length within `whole` pixels, or `None` if the part is empty or a denominator is 0.
    fn of(&self, whole: usize) -> Option<(usize, usize)> {
        let (side, side_under) = (i128::from(self.side.0), i128::from(self.side.1));
        let (offset, offset_under) = (i128::from(self.offset.0), i128::from(self.offset.1));
        if side_under == 0 || offset_under == 0 {
            return None;
        }
        let whole = i128::try_from(whole).ok()?;
        // offset + (whole - 1) / 2 - (side - 1) / 2, over a common denominator
        let under = 2 * offset_under * side_under;
        let start = 2 * offset * side_under + (whole - 1) * offset_under * side_under
            - (side - side_under) * offset_under;
        let rounding = if self.is_rounded_down { 0 } else { under / 2 };
        let start = (start + rounding).div_euclid(under);
        let end = start + (2 * side + side_under).div_euclid(2 * side_under);
        let (start, end) = (start.max(0), end.min(whole));
        let length = usize::try_from(end - start).ok().filter(|length| *length > 0)?;
        Some((usize::try_from(start).ok()?, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_about_the_middle() {
        let part =
            |side, offset, is_rounded_down, whole| Aperture { side, offset, is_rounded_down }.of(whole);
        assert_eq!(part((6, 1), (0, 1), true, 10), Some((2, 6)));
        assert_eq!(part((5, 1), (0, 1), true, 10), Some((2, 5)));
        assert_eq!(part((5, 1), (0, 1), false, 10), Some((3, 5)));
        assert_eq!(part((12, 2), (-4, 2), true, 10), Some((0, 6)));
        assert_eq!(part((20, 1), (0, 1), true, 10), Some((0, 10)));
        assert_eq!(part((4, 1), (9, 1), true, 10), None, "beyond the end");
        assert_eq!(part((0, 1), (0, 1), true, 10), None);
        assert_eq!(part((4, 0), (0, 1), true, 10), None);
        assert_eq!(part((u32::MAX, 1), (i32::MIN, u32::MAX), false, 10).map(|(start, _)| start), Some(0));
    }

    #[test]
    fn layers_are_told_by_16_or_32_bits() {
        let head = |flags| [0, flags, 1, 0, 2, 0, 3, 0, 0xff, 0xff];
        let short = [&head(0)[..], &[0, 9, 0xff, 0xfe, 0xff, 0xff, 0, 7]].concat();
        let overlay = Overlay::parse(&short, 1).unwrap();
        assert_eq!((overlay.size.width, overlay.size.height), (9, 65_534));
        assert_eq!((overlay.fill, overlay.places), ([1, 2, 3, 255], vec![(-1, 7)]));
        let long = [&head(1)[..], &[0, 0, 1, 0, 0, 0, 0, 2]].concat();
        assert_eq!(Overlay::parse(&long, 0).unwrap().size.width, 256);
        assert!(Overlay::parse(&short, 2).is_none() && Overlay::parse(&short[..9], 0).is_none());
        assert!(Overlay::parse(&[&[1][..], &short[1..]].concat(), 1).is_none());
    }

    #[test]
    fn work_is_done_once_each_until_one_fails() {
        for threads in [0, 1, 3] {
            let sum = AtomicUsize::new(0);
            each(1..100, threads, |index| {
                sum.fetch_add(index, Ordering::Relaxed);
                Ok(())
            })
            .unwrap();
            assert_eq!(sum.into_inner(), 4950);
            let refused = each(0..100, threads, |index| if index == 50 { Err(damaged("x")) } else { Ok(()) });
            assert_eq!(refused, Err(damaged("x")));
            assert_eq!(each(1..1, threads, |_| Err(damaged("x"))), Ok(()));
        }
    }
}
