//! How the values of a weight matrix are stored.
//!
//! [`Format`] is the format as a checkpoint names it. Code that works on the values matches on its [`Storage`] and
//! then only on the formats of that kind. A new format therefore does not compile until every place that must handle
//! it does.

/// How the values of a weight matrix are stored: dense, as in checkpoints, or packed in blocks of integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Row-major IEEE f32, as in a safetensors file.
    F32,
    /// Row-major IEEE f16, as in a safetensors file.
    F16,
    /// Row-major bfloat16, as in a safetensors file.
    Bf16,
    /// 8-bit integers in packed panels, see docs/internals.
    Q8,
    /// 4-bit integers in packed panels, see docs/internals.
    Q4,
}

/// The two kinds of formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// Row-major numbers, each stored by itself.
    Dense(DenseFormat),
    /// Integers with shared scales, in panels.
    Packed(PackedFormat),
}

/// Row-major formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DenseFormat {
    F32,
    F16,
    Bf16,
}

/// Formats of packed panels, see [`crate::quant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PackedFormat {
    Q8,
    Q4,
}

impl Format {
    /// Returns whether values are integers with shared scales in packed panels, see [`crate::quant`]. Otherwise they
    /// are numbers stored one by one, row by row.
    #[must_use]
    pub fn is_packed(self) -> bool {
        match self.storage() {
            Storage::Dense(_) => false,
            Storage::Packed(_) => true,
        }
    }

    /// Returns the kind of the format, with the format of that kind.
    pub(crate) fn storage(self) -> Storage {
        match self {
            Self::F32 => Storage::Dense(DenseFormat::F32),
            Self::F16 => Storage::Dense(DenseFormat::F16),
            Self::Bf16 => Storage::Dense(DenseFormat::Bf16),
            Self::Q8 => Storage::Packed(PackedFormat::Q8),
            Self::Q4 => Storage::Packed(PackedFormat::Q4),
        }
    }
}

impl DenseFormat {
    /// Returns the bytes of one stored value.
    // the innermost loads use it; without the attribute the compiler emits calls
    #[inline]
    pub(crate) fn value_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

impl From<DenseFormat> for Format {
    fn from(format: DenseFormat) -> Self {
        match format {
            DenseFormat::F32 => Self::F32,
            DenseFormat::F16 => Self::F16,
            DenseFormat::Bf16 => Self::Bf16,
        }
    }
}

impl From<PackedFormat> for Format {
    fn from(format: PackedFormat) -> Self {
        match format {
            PackedFormat::Q8 => Self::Q8,
            PackedFormat::Q4 => Self::Q4,
        }
    }
}
