//! How samples stand for colours.

/// Code points of ITU-T H.273, and the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coding {
    /// `colour_primaries`, which one kind of matrix is made from.
    #[cfg_attr(not(feature = "avif"), allow(dead_code, reason = "libheif does not read that kind"))]
    pub(super) primaries: u16,
    /// `matrix_coefficients`
    pub(super) matrix: u16,
    /// Whether samples use all of their range.
    pub(super) is_full_range: bool,
}

/// What a coded picture is in the picture that is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Its colours, or its brightness alone.
    Color,
    /// How opaque it is: luma is, and there is nothing else to it.
    Alpha,
}
