//! JPEG decoding with libjpeg-turbo: accurate integer transform, smooth chroma upsampling, as in the reference.
//!
//! The library is C, so this crate has `unsafe` code: all that phi3v's picture decoding needs. libjpeg reports errors
//! by unwinding, and requests more data by returning early. Here all data is available from the start, so an early
//! return means that the data has ended.

mod idct;

use std::any::Any;
use std::marker::PhantomData;
use std::os::raw::{c_int, c_long};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use bytemuck::allocation::try_zeroed_vec;
use mozjpeg_sys::{
    J_COLOR_SPACE, J_DCT_METHOD, JERR_BAD_PRECISION, JERR_CANT_SUSPEND, JERR_CCIR601_NOTIMPL,
    JERR_CONVERSION_NOTIMPL, JERR_FRACT_SAMPLE_NOTIMPL, JERR_NOT_COMPILED, JERR_NOTIMPL, JERR_OUT_OF_MEMORY,
    JERR_SOF_UNSUPPORTED, JERR_UNKNOWN_MARKER, JPEG_LIB_VERSION, jpeg_CreateDecompress, jpeg_common_struct,
    jpeg_component_info, jpeg_decompress_struct, jpeg_destroy_decompress, jpeg_error_mgr, jpeg_read_header,
    jpeg_read_scanlines, jpeg_resync_to_restart, jpeg_save_markers, jpeg_source_mgr, jpeg_start_decompress,
    jpeg_std_error,
};

/// The marker of the first application segment.
const APP0: c_int = 0xe0;
/// The longest segment, without its length field.
const SEGMENT_MAX: u32 = 0xffff;
/// What `jpeg_read_header` returns if there is a picture.
const HEADER_OK: c_int = 1;

/// Why a JPEG was not decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JpegError {
    /// The data ends before the picture does.
    #[error("the data ends before the picture does")]
    Ended,
    /// The system has no memory for the picture.
    #[error("there is no memory for the picture")]
    OutOfMemory,
    /// The file is valid as far as can be seen, but of a kind that is not decoded.
    #[error("this kind is not decoded: {kind}")]
    Unsupported {
        /// What is special about the kind.
        kind: String,
    },
    /// The data contradicts the format.
    #[error("{reason}")]
    Damaged {
        /// The message of libjpeg.
        reason: String,
    },
}

/// A JPEG whose header has been read.
pub struct Jpeg<'a> {
    state: *mut State,
    data: PhantomData<&'a [u8]>,
}

/// The memory that libjpeg points into; it never moves.
struct State {
    picture: jpeg_decompress_struct,
    errors: jpeg_error_mgr,
    source: jpeg_source_mgr,
}

impl<'a> Jpeg<'a> {
    /// Reads the header, and the application segments with number `segments` (1 is EXIF's). For untrusted data, check
    /// [`width`](Self::width) and [`height`](Self::height) before [`read`](Self::read), which allocates memory for
    /// all pixels.
    ///
    /// # Errors
    /// [`JpegError`], see its variants.
    pub fn open(data: &'a [u8], segments: u8) -> Result<Self, JpegError> {
        let source = jpeg_source_mgr {
            next_input_byte: data.as_ptr(),
            bytes_in_buffer: data.len(),
            init_source: Some(nothing),
            fill_input_buffer: Some(no_more),
            skip_input_data: Some(skip),
            resync_to_restart: Some(jpeg_resync_to_restart),
            term_source: Some(nothing),
        };
        // SAFETY: plain C structs of numbers, enums with a zero, pointers and optional functions: all zeros is a
        // valid value.
        let (picture, errors) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        let state = Box::into_raw(Box::new(State { picture, errors, source }));
        let jpeg = Self { state, data: PhantomData };
        caught(|| {
            // SAFETY: the state is alive and nothing else uses it; libjpeg's pointers lead into it and to `data`,
            // both of which outlive it.
            unsafe {
                jpeg_std_error(&mut (*state).errors);
                (*state).errors.error_exit = Some(unwind);
                (*state).errors.emit_message = Some(no_message);
                (*state).picture.common.err = &raw mut (*state).errors;
                let bytes = std::mem::size_of::<jpeg_decompress_struct>();
                jpeg_CreateDecompress(&raw mut (*state).picture, JPEG_LIB_VERSION, bytes);
                (*state).picture.src = &raw mut (*state).source;
                jpeg_save_markers(&mut (*state).picture, APP0 + c_int::from(segments), SEGMENT_MAX);
                jpeg_set_idct_method_selector(&raw mut (*state).picture, choose_idct);
                jpeg_read_header(&mut (*state).picture, 1)
            }
        })
        .and_then(|found| if found == HEADER_OK { Ok(()) } else { Err(JpegError::Ended) })?;
        Ok(jpeg)
    }

    /// Returns the width of the image in pixels, as stated by its header.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.picture().image_width
    }

    /// Returns the height of the image in pixels, as stated by its header.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.picture().image_height
    }

    /// Returns the samples per pixel, both as stored and as [`read`](Self::read) returns them: 1 gray, 3 RGB, 4 CMYK
    /// as stored.
    #[must_use]
    pub fn components(&self) -> usize {
        usize::try_from(self.picture().num_components).unwrap_or(0)
    }

    /// Returns the bodies of the segments that were kept.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        let mut next = self.picture().marker_list;
        std::iter::from_fn(move || {
            // SAFETY: null, or a segment that libjpeg keeps, with its data, until our drop destroys it.
            let segment = unsafe { next.as_ref() }?;
            next = segment.next;
            // SAFETY: as above.
            Some(unsafe { std::slice::from_raw_parts(segment.data, segment.data_length as usize) })
        })
    }

    /// Decodes the pixels, `[height, width, components]`. Data after the last row is ignored.
    ///
    /// # Errors
    /// [`JpegError`], see its variants.
    pub fn read(self) -> Result<Vec<u8>, JpegError> {
        self.read_to(J_COLOR_SPACE::JCS_RGB)
    }

    /// Like [`read`](Self::read), but three components stay YCbCr, and pixels that share colour samples get them
    /// without interpolation.
    ///
    /// # Errors
    /// [`JpegError`], see its variants.
    pub fn read_ycbcr(self) -> Result<Vec<u8>, JpegError> {
        self.read_to(J_COLOR_SPACE::JCS_YCbCr)
    }

    fn read_to(self, color: J_COLOR_SPACE) -> Result<Vec<u8>, JpegError> {
        let (width, height, components) = (self.width(), self.height(), self.components());
        let space = match components {
            1 => J_COLOR_SPACE::JCS_GRAYSCALE,
            3 => color,
            4 => J_COLOR_SPACE::JCS_CMYK,
            n => return Err(JpegError::Unsupported { kind: format!("{n} colour components") }),
        };
        let row_bytes = width as usize * components;
        let samples = try_zeroed_vec(row_bytes * height as usize);
        let mut samples = samples.map_err(|()| JpegError::OutOfMemory)?;
        // SAFETY: the state is alive and nothing else borrows it while `self` is owned here.
        let picture = unsafe { &raw mut (*self.state).picture };
        // SAFETY: as above; without scaling the output has the size and the samples per pixel of the header, so a row
        // of samples has room for a row of the picture.
        let whole = caught(|| unsafe {
            (*picture).out_color_space = space;
            (*picture).dct_method = J_DCT_METHOD::JDCT_ISLOW;
            (*picture).do_fancy_upsampling = c_int::from(color == J_COLOR_SPACE::JCS_RGB);
            let mut rows = samples.chunks_exact_mut(row_bytes).map(<[u8]>::as_mut_ptr);
            jpeg_start_decompress(&mut *picture) != 0
                && rows.all(|mut row| jpeg_read_scanlines(&mut *picture, &raw mut row, 1) == 1)
        })?;
        if whole { Ok(samples) } else { Err(JpegError::Ended) }
    }

    fn picture(&self) -> &jpeg_decompress_struct {
        // SAFETY: alive as long as `self`, and changed only by methods that own it.
        unsafe { &(*self.state).picture }
    }
}

impl Drop for Jpeg<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `open`, destroyed once. libjpeg destroys what it has made, in any state, also before the
        // structure was created (its memory manager is null then).
        unsafe {
            jpeg_destroy_decompress(&mut (*self.state).picture);
            drop(Box::from_raw(self.state));
        }
    }
}

/// An error of libjpeg while it unwinds through the C code.
struct Failure {
    code: c_int,
    /// The first numeric argument of the message.
    number: c_int,
    message: String,
}

/// Runs C code that may report an error.
fn caught<T>(run: impl FnOnce() -> T) -> Result<T, JpegError> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload: Box<dyn Any + Send>| {
        payload
            .downcast::<Failure>()
            .map_or_else(|other| resume_unwind(other), |failure| failure.into_error())
    })
}

impl Failure {
    fn into_error(self) -> JpegError {
        let Self { code, number, message } = self;
        let kind = match code {
            // the arithmetic decoder cannot return early
            JERR_CANT_SUSPEND => return JpegError::Ended,
            JERR_OUT_OF_MEMORY => return JpegError::OutOfMemory,
            JERR_BAD_PRECISION => format!("{number}-bit samples"),
            JERR_SOF_UNSUPPORTED | JERR_UNKNOWN_MARKER => match process(number) {
                Some(name) => name.to_owned(),
                None => return JpegError::Damaged { reason: message },
            },
            JERR_CCIR601_NOTIMPL => "CCIR 601 sampling".to_owned(),
            JERR_FRACT_SAMPLE_NOTIMPL => "fractional sampling".to_owned(),
            JERR_CONVERSION_NOTIMPL | JERR_NOTIMPL | JERR_NOT_COMPILED => message,
            _ => return JpegError::Damaged { reason: message },
        };
        JpegError::Unsupported { kind }
    }
}

/// Returns the name of a coding process that is not decoded, by the marker that announces it.
fn process(marker: c_int) -> Option<&'static str> {
    Some(match marker {
        0xc3 => "lossless",
        0xc5..=0xc7 | 0xde | 0xdf => "hierarchical",
        0xcb => "lossless and arithmetic-coded",
        0xcd..=0xcf => "hierarchical and arithmetic-coded",
        0xf7 => "JPEG-LS",
        _ => return None,
    })
}

type Format = unsafe extern "C-unwind" fn(&mut jpeg_common_struct, *mut u8);
type Idct = unsafe extern "C" fn(
    *mut jpeg_decompress_struct,
    *const jpeg_component_info,
    *const i16,
    *const *mut u8,
    u32,
);
type IdctSelector =
    unsafe extern "C" fn(*mut jpeg_decompress_struct, *const jpeg_component_info, *mut Idct, *mut c_int);

unsafe extern "C-unwind" {
    fn jpeg_set_idct_method_selector(picture: *mut jpeg_decompress_struct, selector: IdctSelector);
}

unsafe extern "C" {
    fn jpeg_idct_islow(
        picture: *mut jpeg_decompress_struct,
        component: *const jpeg_component_info,
        coefficients: *const i16,
        rows: *const *mut u8,
        left: u32,
    );
}

/// Keeps the vector code on x86-64, whose results are the reference's, and replaces everything else with our code: C
/// code wraps around where the vector code saturates, and vector code for other processors rounds differently.
unsafe extern "C" fn choose_idct(
    _picture: *mut jpeg_decompress_struct,
    _component: *const jpeg_component_info,
    method: *mut Idct,
    _table: *mut c_int,
) {
    // SAFETY: libjpeg passes a pointer to the method it has chosen, which transforms blocks of 8x8 samples because
    // nothing is scaled.
    unsafe {
        if !cfg!(target_arch = "x86_64") || *method as usize == jpeg_idct_islow as *const () as usize {
            *method = idct_islow;
        }
    }
}

/// [`idct::samples`] in the form that libjpeg calls.
unsafe extern "C" fn idct_islow(
    _picture: *mut jpeg_decompress_struct,
    component: *const jpeg_component_info,
    coefficients: *const i16,
    rows: *const *mut u8,
    left: u32,
) {
    // SAFETY: libjpeg passes a block of 64 coefficients, and eight rows with room for eight samples from `left` on.
    // The table of a component whose scan has not been read yet is null; its coefficients are zero then.
    unsafe {
        let table = (*component).quant_table.as_ref();
        let samples = idct::samples(&*coefficients.cast(), table.map_or(&[0; 64], |table| &table.quantval));
        for (y, samples) in samples.iter().enumerate() {
            (*rows.add(y)).add(left as usize).cast::<[u8; 8]>().write_unaligned(*samples);
        }
    }
}

unsafe extern "C-unwind" fn unwind(common: &mut jpeg_common_struct) {
    // SAFETY: libjpeg's error manager, whose formatter writes at most 80 bytes, including the terminating zero.
    let failure = unsafe {
        let errors = &mut *common.err;
        let (code, number) = (errors.msg_code, errors.msg_parm._bindgen_data_[0] as c_int);
        let text = errors.format_message.map(|format| {
            let mut text = [0_u8; 80];
            // the bindings declare that it does not write to the buffer
            let format = std::mem::transmute::<*const (), Format>(format as *const ());
            format(common, text.as_mut_ptr());
            let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
            String::from_utf8_lossy(&text[..end]).trim_end_matches('.').to_owned()
        });
        Failure { code, number, message: text.unwrap_or_else(|| format!("error {code}")) }
    };
    // does not call the panic hook, because this is not a panic
    resume_unwind(Box::new(failure));
}

unsafe extern "C-unwind" fn no_message(_common: &mut jpeg_common_struct, _level: c_int) {}

unsafe extern "C-unwind" fn nothing(_picture: &mut jpeg_decompress_struct) {}

unsafe extern "C-unwind" fn no_more(_picture: &mut jpeg_decompress_struct) -> c_int {
    0
}

unsafe extern "C-unwind" fn skip(picture: &mut jpeg_decompress_struct, bytes: c_long) {
    // SAFETY: our source, whose pointer and length describe the rest of the data.
    unsafe {
        let source = &mut *picture.src;
        let bytes = usize::try_from(bytes).unwrap_or(0).min(source.bytes_in_buffer);
        source.next_input_byte = source.next_input_byte.add(bytes);
        source.bytes_in_buffer -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a picture of 8x8 pixels whose one block per component is uniform, at the middle level.
    fn flat(components: u8, precision: u8) -> Vec<u8> {
        let quantization = [b"\xff\xdb\0\x43\0".as_slice(), &[8; 64]].concat();
        let parts: Vec<u8> = (1..=components).flat_map(|id| [id, 0x11, 0]).collect();
        let frame =
            [&[0xff, 0xc0, 0, 8 + 3 * components, precision, 0, 8, 0, 8, components], &*parts].concat();
        // one code of one bit each: a difference of no bits, and the end of a block
        let table = |class: u8| [&[0xff, 0xc4, 0, 20, class, 1], [0; 15].as_slice(), &[0]].concat();
        let parts: Vec<u8> = (1..=components).flat_map(|id| [id, 0]).collect();
        let scan = [&[0xff, 0xda, 0, 6 + 2 * components, components], &*parts, &[0, 63, 0]].concat();
        let tables = [quantization, table(0), table(0x10)].concat();
        [b"\xff\xd8".as_slice(), &tables, &frame, &scan, &[0], b"\xff\xd9"].concat()
    }

    #[test]
    fn middle_levels_are_gray() {
        for components in [1, 3, 4] {
            let data = flat(components, 8);
            let jpeg = Jpeg::open(&data, 1).unwrap();
            assert_eq!(
                [jpeg.width(), jpeg.height(), jpeg.components() as u32],
                [8, 8, u32::from(components)]
            );
            assert_eq!(jpeg.segments().count(), 0);
            assert_eq!(jpeg.read(), Ok(vec![128; 64 * usize::from(components)]));
        }
        assert_eq!(Jpeg::open(&flat(3, 8), 1).unwrap().read_ycbcr(), Ok(vec![128; 192]));
    }

    #[test]
    fn what_cannot_be_decoded_is_an_error() {
        let data = flat(3, 8);
        for end in 0..data.len() - 3 {
            let read = Jpeg::open(&data[..end], 1).and_then(Jpeg::read);
            assert_eq!(read, Err(JpegError::Ended), "{end}");
        }
        let kind = |kind: &str| Err(JpegError::Unsupported { kind: kind.to_owned() });
        assert_eq!(Jpeg::open(&flat(3, 12), 1).map(drop), kind("12-bit samples"));
        assert_eq!(Jpeg::open(&flat(2, 8), 1).and_then(Jpeg::read).map(drop), kind("2 colour components"));
        let damaged = Jpeg::open(b"no picture", 1).map(drop);
        assert!(matches!(damaged, Err(JpegError::Damaged { .. })), "{damaged:?}");
    }
}
