//! Old-style JPEG compression (6), TIFF 6.0 section 22: one JPEG image whose parts are spread over the file.
//!
//! Writers store the header, in whole or in part, at tag 513, in the first strip, or in separate tables (519 to 521).
//! The scan follows the header or is in the strips. As in libtiff, the parts are searched for in this order.

use super::chunks::{Places, misfit};
use super::directory::place;
use super::header::Header;
use super::jpeg_stream::JpegStream;
use super::ycbcr::Subsampling;
use super::{FORMAT, ImageError, ImageLimits, damaged, gathered, jpeg, tag};

impl<'a> Header<'a> {
    /// Decodes the image without converting its colours. `[height, width, samples]`
    pub(super) fn old_jpeg_samples(
        &self,
        places: &Places,
        limits: &ImageLimits,
    ) -> Result<Vec<u8>, ImageError> {
        let mut stream = JpegStream::default();
        let mut scan = stream.read(self.old_jpeg_start()?)?.to_vec();
        // a header without a scan may end with an end marker
        if stream.scan.is_empty() || scan.len() <= 2 {
            scan = self.strips_scan(places, &mut stream)?;
        }
        stream.fit(self.height);
        let stream = stream.assemble(true, &scan)?;
        let image = jpeg::decompress_ycbcr(&stream, limits).map_err(misfit)?;
        let fits = image.size.width >= self.width && image.size.height >= self.height;
        if !fits || image.components != self.samples {
            return Err(damaged("its JPEG data does not fit its size"));
        }
        let rows = image.samples.chunks_exact(image.size.width as usize * self.samples);
        let used = self.width as usize * self.samples;
        let height = self.height as usize;
        gathered(height * used, rows.take(height).flat_map(|row| &row[..used]).copied())
    }

    /// Returns the stream that tag 513 points to.
    fn old_jpeg_start(&self) -> Result<&'a [u8], ImageError> {
        let offset = self.directory.value(tag::OLD_JPEG_START, 0)?;
        if offset == 0 {
            return Ok(&[]);
        }
        let start = self.directory.bytes.get(place(offset)?..).unwrap_or_default();
        let length = place(self.directory.value(tag::OLD_JPEG_BYTES, 0)?)?;
        Ok(if length == 0 { start } else { &start[..length.min(start.len())] })
    }

    /// Assembles the scan from the strips, and the missing parts of the header from its tables.
    fn strips_scan(&self, places: &Places, stream: &mut JpegStream) -> Result<Vec<u8>, ImageError> {
        let [across, down, _] = self.grid();
        let strips = places.offsets.len().min(across * down);
        let mut scan = Vec::new();
        for i in 0..strips {
            let mut packed = self.packed(places, i, self.chunk.height as usize)?;
            if i == 0 {
                packed = stream.read(packed)?;
            } else {
                // each strip starts anew, as after a restart marker
                scan.extend([0xff, 0xd0 + ((i - 1) % 8) as u8]);
            }
            scan.extend(packed);
            if scan.len() > self.directory.bytes.len() + 2 * strips {
                return Err(damaged("its strips overlap"));
            }
        }
        // some writers omit the end marker
        scan.extend([0xff, 0xd9]);
        if stream.frame.is_empty() {
            self.old_jpeg_tables(stream)?;
        }
        let said = self.directory.value(tag::OLD_JPEG_RESTART, 0)?;
        let interval = if strips > 1 { self.strip_blocks(stream) } else { said };
        if interval > 0 && !stream.restarts() {
            stream.tables.extend([0xff, 0xdd, 0, 4]);
            stream.tables.extend((interval as u16).to_be_bytes());
        }
        Ok(scan)
    }

    /// Number of blocks of all colours in a strip, which is the restart interval.
    fn strip_blocks(&self, stream: &JpegStream) -> u64 {
        let [across, down] = stream.block().map(u64::from);
        u64::from(self.chunk.width).div_ceil(across) * u64::from(self.chunk.height).div_ceil(down)
    }

    /// Builds the header from tags 519 to 521, which state the positions of each component's tables.
    fn old_jpeg_tables(&self, stream: &mut JpegStream) -> Result<(), ImageError> {
        let Subsampling { across, down } =
            if self.samples == 1 { Subsampling::NONE } else { Subsampling::read(&self.directory)? };
        let quantization = self.tables(tag::OLD_JPEG_QUANTIZATION, 0xdb, 0, stream)?;
        let dc = self.tables(tag::OLD_JPEG_DC, 0xc4, 0, stream)?;
        let ac = self.tables(tag::OLD_JPEG_AC, 0xc4, 0x10, stream)?;
        let [_, tiles_down, _] = self.grid();
        let height = if self.tiled { self.chunk.height as usize * tiles_down } else { self.height as usize };
        let (height, width) = ((height as u16).to_be_bytes(), (self.chunk.width as u16).to_be_bytes());
        let count = self.samples as u8;
        let mut frame =
            vec![0xff, 0xc0, 0, 8 + 3 * count, 8, height[0], height[1], width[0], width[1], count];
        let mut scan = vec![0xff, 0xda, 0, 6 + 2 * count, count];
        for i in 0..count {
            let sampling = if i == 0 { (across << 4 | down) as u8 } else { 0x11 };
            let at = usize::from(i);
            frame.extend([i + 1, sampling, quantization[at]]);
            scan.extend([i + 1, dc[at] << 4 | ac[at]]);
        }
        scan.extend([0, 63, 0]);
        stream.frame = frame;
        stream.scan = scan;
        Ok(())
    }

    /// Reads the tables of one kind and which table each component uses. Components may share a table.
    fn tables(
        &self,
        tag: u16,
        marker: u8,
        class: u8,
        stream: &mut JpegStream,
    ) -> Result<Vec<u8>, ImageError> {
        const CODE_LENGTHS: usize = 16;
        let offsets = self.directory.values(tag)?;
        let (mut used, mut id) = (Vec::new(), 0);
        for i in 0..self.samples {
            let offset = *offsets.get(i).ok_or_else(|| damaged("its JPEG data has no tables"))?;
            if i == 0 || offset != offsets[i - 1] {
                id = i as u8;
                let bytes = self.directory.bytes.get(place(offset)?..).unwrap_or_default();
                let counts = bytes.iter().take(CODE_LENGTHS).map(|count| usize::from(*count));
                let length = if marker == 0xdb { 64 } else { CODE_LENGTHS + counts.sum::<usize>() };
                let table = bytes.get(..length).ok_or(ImageError::Truncated { format: FORMAT })?;
                stream.tables.extend([0xff, marker]);
                stream.tables.extend((length as u16 + 3).to_be_bytes());
                stream.tables.push(class | id);
                stream.tables.extend(table);
            }
            used.push(id);
        }
        Ok(used)
    }
}
