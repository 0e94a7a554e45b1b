//! How the values of a weight matrix are stored.
//!
//! [`Format`] is what a checkpoint says. Code that works on the values asks for its [`Storage`] and goes on with the
//! formats of that kind alone, so that a new format does not compile until every place that must know it does.

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
    /// Row-major numbers of their own.
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
    /// Whether values are integers with shared scales in packed panels, see [`crate::quant`]; otherwise they are numbers
    /// of their own, row by row.
    #[must_use]
    pub fn is_packed(self) -> bool {
        match self.storage() {
            Storage::Dense(_) => false,
            Storage::Packed(_) => true,
        }
    }

    /// The kind, and which one of it.
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
    /// Bytes of one stored value.
    // in the innermost loads: left to itself the compiler makes calls of them
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
