//! Advice on images in formats that are not decoded: commands of well-known programs that convert them.

/// The decoded formats, for messages.
pub(super) const SUPPORTED: &str = match (cfg!(feature = "heic"), cfg!(feature = "avif")) {
    (false, false) => "PNG, JPEG, WebP, GIF, BMP, TIFF",
    (true, false) => "PNG, JPEG, WebP, GIF, BMP, TIFF, HEIC",
    (false, true) => "PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF",
    (true, true) => "PNG, JPEG, WebP, GIF, BMP, TIFF, HEIC, AVIF",
};

pub(super) const VIDEO_MP4: &str = "video (MP4 or QuickTime)";
pub(super) const VIDEO_MATROSKA: &str = "video (Matroska or WebM)";
pub(super) const VIDEO_AVI: &str = "video (AVI)";

/// The build feature that adds support for a refused format.
pub(super) fn missing_feature(format: &str) -> Option<&'static str> {
    match format {
        "AVIF" if cfg!(not(feature = "avif")) => Some("avif"),
        "HEIF" if cfg!(not(feature = "heic")) => Some("heic"),
        "PDF" if cfg!(not(feature = "pdf")) => Some("pdf"),
        _ => None,
    }
}

/// A command of a well-known program that converts images of a refused format. Its file names are placeholders.
pub(super) fn converter(format: &str) -> Option<&'static str> {
    Some(match format {
        "AVIF" => "heif-convert photo.avif photo.png",
        "HEIF" => "heif-convert photo.heic photo.png",
        "Canon RAW" => "darktable-cli photo.cr3 photo.png",
        "Fujifilm RAW" => "darktable-cli photo.raf photo.png",
        "Minolta RAW" => "darktable-cli photo.mrw photo.png",
        "Nikon RAW" => "darktable-cli photo.nef photo.png",
        "Olympus RAW" => "darktable-cli photo.orf photo.png",
        "Panasonic RAW" => "darktable-cli photo.rw2 photo.png",
        "Pentax RAW" => "darktable-cli photo.pef photo.png",
        "Sigma RAW" => "darktable-cli photo.x3f photo.png",
        "Sony RAW" => "darktable-cli photo.arw photo.png",
        "DNG" => "darktable-cli photo.dng photo.png",
        "camera RAW" => "darktable-cli photo.raw photo.png",
        VIDEO_MP4 => "ffmpeg -i clip.mp4 -vf fps=1 frame%03d.png",
        VIDEO_MATROSKA => "ffmpeg -i clip.mkv -vf fps=1 frame%03d.png",
        VIDEO_AVI => "ffmpeg -i clip.avi -vf fps=1 frame%03d.png",
        "PDF" => "pdftoppm -r 150 -png file.pdf page",
        "PostScript" => "magick -density 150 file.ps page%03d.png",
        "DjVu" => "ddjvu -format=tiff -page=1 book.djvu page.tif",
        "DICOM" => "dcmj2pnm --write-png scan.dcm scan.png",
        "SVG" => "rsvg-convert -o drawing.png drawing.svg",
        "JPEG XL" => "djxl photo.jxl photo.png",
        "JPEG 2000" => "opj_decompress -i photo.jp2 -o photo.png",
        "Photoshop" => "magick picture.psd[0] picture.png",
        "GIMP" => "magick picture.xcf -flatten picture.png",
        "QOI" => "magick picture.qoi picture.png",
        "DirectDraw surface" => "magick picture.dds picture.png",
        "OpenEXR" => "magick picture.exr picture.png",
        "Radiance HDR" => "magick picture.hdr picture.png",
        "Netpbm" => "magick picture.ppm picture.png",
        "IFF" => "magick picture.iff picture.png",
        "TGA" => "magick picture.tga picture.png",
        "Windows icon" => "magick picture.ico[0] picture.png",
        "Windows cursor" => "magick picture.cur[0] picture.png",
        "zip archive" => "unzip pictures.zip",
        _ => return None,
    })
}
