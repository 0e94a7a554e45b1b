//! Strips and tiles: finds their bytes and turns them into samples.

use super::compression::{Compression, unpack};
use super::directory::place;
use super::header::{Header, Photometric};
use super::jpeg_stream::JpegStream;
use super::ycbcr::Subsampling;
use super::{FORMAT, ImageError, ImageLimits, Size, damaged, gathered, jpeg, tag, unsupported, zeros};

/// Maximum length of the JPEG tables, which are read for every strip. Four quantization tables and eight Huffman
/// tables take 2.8 kB.
const JPEG_TABLES_MAX: usize = 8 << 10;

/// The positions of the strips or tiles in the file.
pub(super) struct Places {
    pub(super) offsets: Vec<u64>,
    lengths: Vec<u64>,
    /// The offsets in ascending order.
    sorted: Vec<u64>,
}

impl<'a> Header<'a> {
    /// Reads all strips or tiles, `[height, width, samples]`. Samples of fewer than 8 bits are not yet stretched.
    pub(super) fn read_samples(&self, limits: &ImageLimits) -> Result<Vec<u8>, ImageError> {
        let places = self.places()?;
        let [across, down, planes] = self.grid();
        let chunks = across * down * planes;
        // pixels beyond the image's edges cost as much as those inside
        let padded = (across * down) as u64 * self.chunk.pixels();
        if padded > limits.pixels_max.saturating_mul(2) {
            return Err(damaged("its tiles are far larger than it"));
        }
        if self.compression == Compression::OldJpeg {
            return self.old_jpeg_samples(&places, limits);
        }
        if places.offsets.len() < chunks {
            return Err(ImageError::Truncated { format: FORMAT });
        }
        self.check_memory(limits)?;
        let mut samples = zeros(self.width as usize * self.height as usize * self.samples)?;
        // Tiles may share their bytes, for example all white tiles. But bytes that produce no pixels are charged to a
        // budget, so that a small file cannot cause endless work.
        let mut budget = self.directory.bytes.len();
        for i in 0..chunks {
            let (plane, cell) = (i / (across * down), i % (across * down));
            let rows = self.chunk_rows(cell / across);
            let packed = self.packed(&places, i, rows)?;
            let idle = packed.len().saturating_sub(self.rows_bytes(rows));
            budget = budget.checked_sub(idle).ok_or_else(|| damaged("its strips overlap"))?;
            let unpacked = self.chunk_samples(packed, rows, limits)?;
            self.place_chunk(&unpacked, cell % across, cell / across, plane, &mut samples);
        }
        Ok(samples)
    }

    /// Refuses an image if its pixels and the largest stored chunk take more memory than the limit for decoding.
    fn check_memory(&self, limits: &ImageLimits) -> Result<(), ImageError> {
        let pixels = Size { width: self.width, height: self.height }.pixels();
        let chunk = self.rows_bytes(self.chunk.height as usize) as u64;
        let bytes = pixels.saturating_mul(self.samples as u64).saturating_add(chunk);
        let limit = limits.decoder_bytes_max();
        if bytes > limit {
            return Err(unsupported(&format!("unpacked it takes {bytes} bytes, the limit is {limit}")));
        }
        Ok(())
    }

    fn places(&self) -> Result<Places, ImageError> {
        let read = |offsets, lengths| -> Result<Places, ImageError> {
            let offsets = self.directory.values(offsets)?;
            let mut sorted = offsets.clone();
            sorted.sort_unstable();
            Ok(Places { offsets, lengths: self.directory.values(lengths)?, sorted })
        };
        // some writers use the tags of strips for tiles
        let tiles = read(tag::TILE_OFFSETS, tag::TILE_BYTES)?;
        if self.tiled && !tiles.offsets.is_empty() {
            return Ok(tiles);
        }
        read(tag::STRIP_OFFSETS, tag::STRIP_BYTES)
    }

    /// Returns the bytes of one chunk in the file.
    ///
    /// The length of uncompressed rows is known. For other compressions, a length of 0 counts as missing: the bytes
    /// then end where the next chunk begins, or at the end of the file.
    pub(super) fn packed(&self, places: &Places, i: usize, rows: usize) -> Result<&'a [u8], ImageError> {
        let offset = places.offsets.get(i).copied().unwrap_or(0);
        if offset == 0 {
            return Err(damaged("a strip or tile stands nowhere"));
        }
        let packed = self.directory.bytes.get(place(offset)?..);
        let packed = packed.ok_or(ImageError::Truncated { format: FORMAT })?;
        let length = match places.lengths.get(i) {
            _ if self.compression == Compression::None => self.rows_bytes(rows),
            Some(&length) if length > 0 => usize::try_from(length).unwrap_or(usize::MAX),
            _ => {
                let next = places.sorted.partition_point(|other| *other <= offset);
                places.sorted.get(next).map_or(Ok(usize::MAX), |next| place(next - offset))?
            }
        };
        Ok(&packed[..length.min(packed.len())])
    }

    /// Unpacks one chunk. `[rows, chunk width, chunk_depth]`
    fn chunk_samples(&self, packed: &[u8], rows: usize, limits: &ImageLimits) -> Result<Vec<u8>, ImageError> {
        if self.compression == Compression::Jpeg {
            return self.jpeg_samples(packed, rows, limits);
        }
        let mut unpacked = zeros(self.rows_bytes(rows))?;
        let reversed: Vec<u8>;
        let packed = if self.reversed_bits {
            reversed = gathered(packed.len(), packed.iter().map(|b| b.reverse_bits()))?;
            &reversed
        } else {
            packed
        };
        unpack(self.compression, packed, self.chunk.width, self.row_bytes(), &mut unpacked)?;
        if self.subsampling != Subsampling::NONE {
            return self.subsampling.spread(&unpacked, self.chunk.width as usize, rows);
        }
        self.to_samples(unpacked)
    }

    /// Decodes a chunk that is a JPEG stream without its tables.
    fn jpeg_samples(&self, packed: &[u8], rows: usize, limits: &ImageLimits) -> Result<Vec<u8>, ImageError> {
        let tables = self.directory.raw(tag::JPEG_TABLES).unwrap_or_default();
        if tables.len() > JPEG_TABLES_MAX {
            let bytes = tables.len();
            return Err(damaged(&format!(
                "its JPEG tables have {bytes} bytes, the limit is {JPEG_TABLES_MAX}"
            )));
        }
        if !packed.starts_with(b"\xff\xd8") {
            return Err(damaged("its JPEG data has no start"));
        }
        let mut stream = JpegStream::default();
        stream.read(tables)?;
        let rest = stream.read(packed)?;
        // the directory says whether the colours are YCbCr; separate planes are converted later
        let ycbcr = self.photometric == Photometric::YCbCr && !self.planar;
        let stream = stream.assemble(ycbcr, rest)?;
        // Rows beyond the chunk's own are dropped. All chunks together may cost as much as one more image at the limit.
        let own = self.chunk.pixels();
        let chunks: usize = self.grid().iter().product();
        let share = (limits.pixels_max / chunks as u64).max(own).min(limits.pixels_max);
        let share = ImageLimits { pixels_max: share, ..*limits };
        let mut image = jpeg::decompress(&stream, &share).map_err(misfit)?;
        let fits = image.size.width == self.chunk.width && image.size.height as usize >= rows;
        if !fits || image.components != self.chunk_depth() {
            return Err(damaged("its JPEG data does not fit its size"));
        }
        image.samples.truncate(rows * self.chunk.width as usize * image.components);
        Ok(image.samples)
    }

    /// Copies the part of a chunk that lies inside the image.
    fn place_chunk(&self, chunk: &[u8], across: usize, down: usize, plane: usize, samples: &mut [u8]) {
        let (chunk_width, chunk_height) = (self.chunk.width as usize, self.chunk.height as usize);
        let (left, top) = (across * chunk_width, down * chunk_height);
        let width = self.width as usize;
        let used = chunk_width.min(width - left);
        let depth = self.chunk_depth();
        let rows = samples.chunks_exact_mut(width * self.samples).skip(top);
        for (row, line) in rows.zip(chunk.chunks_exact(chunk_width * depth)) {
            let row = &mut row[left * self.samples..][..used * self.samples];
            if self.planar {
                let pixels = row.chunks_exact_mut(self.samples);
                pixels.zip(line).for_each(|(pixel, sample)| pixel[plane] = *sample);
            } else {
                row.copy_from_slice(&line[..used * depth]);
            }
        }
    }
}

/// Reports a JPEG header that announces too many pixels as damage of the enclosing TIFF.
pub(super) fn misfit(error: ImageError) -> ImageError {
    match error {
        ImageError::Pixels { .. } => damaged("its JPEG data does not fit its size"),
        other => other,
    }
}
