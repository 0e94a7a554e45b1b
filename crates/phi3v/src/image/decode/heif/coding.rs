//! How samples encode colours.

/// Code points of ITU-T H.273, and the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coding {
    /// `colour_primaries`, from which one kind of matrix is derived.
    #[cfg_attr(not(feature = "avif"), allow(dead_code, reason = "libheif does not read that kind"))]
    pub(super) primaries: u16,
    /// `matrix_coefficients`
    pub(super) matrix: u16,
    /// Whether samples use their full range.
    pub(super) is_full_range: bool,
}

/// The role of a coded picture within the displayed picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The picture's colours, or its luma if it is gray.
    Color,
    /// The picture's opacity: the luma holds it, and chroma is ignored.
    Alpha,
}
