//! Every kernel: its text, put together from pieces, and what it binds.
//!
//! A size that a text needs as a constant is written before it; a kernel that is never used is never compiled.

use phi3v_kernels::quant::GROUP;
use phi3v_kernels::{Epilogue, Format, KvFormat};

/// A kernel, with what its text depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    /// Rows to int8.
    Quantize,
    /// The same of rows that are normed on the way.
    NormQuantize,
    /// Product of up to 16 rows with a packed matrix, `rows` from one reading of it.
    Few {
        format: Format,
        rows: u32,
    },
    /// Product of more rows by integer dot products.
    Many {
        format: Format,
    },
    /// The same on matrix units of `tile` x `tile`, by subgroups of `lanes`.
    Units {
        format: Format,
        tile: u32,
        lanes: u32,
    },
    /// Product of up to 16 rows with a dense matrix; `round` rounds both factors to bf16.
    DenseFew {
        format: Format,
        round: bool,
        rows: u32,
    },
    /// The same of more rows.
    DenseMany {
        format: Format,
        round: bool,
    },
    Norm,
    Gather,
    Add,
    /// Gates and ups that a product left side by side.
    Gate,
    Rope,
    StoreKv {
        format: KvFormat,
    },
    /// Causal attention, a workgroup for a chunk of the keys of one row.
    AttendFew {
        format: KvFormat,
    },
    /// Puts those chunks together.
    Join,
    /// Causal attention, a workgroup for 16 rows.
    AttendMany {
        format: KvFormat,
    },
    /// Attention within groups of rows.
    AttendFull,
    /// Ends a submission.
    Tick,
}

/// Heads of up to this many values go through the kernels for many rows: what their workgroup memory holds.
pub(crate) const MANY_DIM_MAX: usize = 128;
/// Heads of up to this many values go through the kernel for few rows.
pub(crate) const DIM_MAX: usize = 256;

macro_rules! text {
    ($name:literal) => {
        include_str!(concat!("shaders/", $name, ".wgsl"))
    };
}

const COMMON: &str = text!("common");
const EPILOGUE: &str = text!("epilogue");
const ACTIVATIONS: &str = text!("activations");
const PACKED: &str = text!("packed");
const GROUPS: &str = text!("groups");
const TILES: &str = text!("tiles");
const DENSE: &str = text!("dense_weights");
const NORM_SUMS: &str = text!("norm_sums");
const SOFTMAX: &str = text!("softmax");
const WEIGHT: &str = text!("weight");

impl Kernel {
    /// Its name, for messages and tests.
    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    /// Its name for a table of times, and of a product, by the numbers beside it, the matrix.
    pub(crate) fn label(self, numbers: &[u32]) -> String {
        let name = self.name();
        let depth = match self {
            Self::Few { .. } | Self::Many { .. } | Self::Units { .. } => GROUP as u32,
            Self::DenseFew { .. } | Self::DenseMany { .. } => 1,
            _ => return name,
        };
        let [length, _, cols, _, _, epilogue, ..] = *numbers else { return name };
        // gates are counted without their ups
        let halves = if epilogue == crate::linear::number(Epilogue::SiluMul) { 2 } else { 1 };
        format!("{name} [{}, {}]", cols * halves, length * depth)
    }

    /// What it binds, in order: `r` to be read, `w` to be written.
    pub(crate) fn bindings(self) -> &'static str {
        match self {
            Self::Quantize => "rww",
            Self::NormQuantize => "rwwrr",
            Self::Few { .. } | Self::Many { .. } | Self::Units { .. } => "rrrrw",
            Self::DenseFew { .. } | Self::DenseMany { .. } | Self::Norm => "rrrw",
            Self::Gather | Self::Add | Self::Gate | Self::Rope | Self::StoreKv { .. } | Self::Join => "rrw",
            Self::AttendFew { .. } | Self::AttendMany { .. } | Self::AttendFull => "rrrw",
            Self::Tick => "wr",
        }
    }

    /// The function that is its beginning.
    pub(crate) fn entry(self) -> &'static str {
        match self {
            Self::Gather => "gather",
            Self::Add => "add",
            Self::Gate => "gate",
            Self::Rope => "rope",
            _ => "main",
        }
    }

    /// Its whole text in WGSL.
    pub(crate) fn source(self) -> String {
        match self {
            Self::Quantize => join(&[COMMON, ACTIVATIONS, text!("plain_input"), text!("quantize")]),
            Self::NormQuantize => {
                let input = [text!("norm_input"), NORM_SUMS, text!("norm_input_value")].concat();
                join(&[COMMON, ACTIVATIONS, &input, text!("quantize")])
            }
            Self::Few { format, rows } => {
                let constants = format!("{}const ROWS: u32 = {rows}u;\n", packed_constant(format));
                join(&[&constants, COMMON, EPILOGUE, ACTIVATIONS, PACKED, text!("few")])
            }
            Self::Many { format } => {
                let constants = packed_constant(format);
                join(&[&constants, COMMON, EPILOGUE, ACTIVATIONS, PACKED, GROUPS, TILES, text!("many")])
            }
            Self::Units { format, tile, lanes } => {
                let constants = packed_constant(format);
                let enable = "enable f16;\nenable wgpu_cooperative_matrix;\n";
                let units = units_text(tile, lanes);
                join(&[enable, &constants, COMMON, EPILOGUE, ACTIVATIONS, PACKED, GROUPS, TILES, &units])
            }
            Self::DenseFew { format, round, rows } => {
                let constants = format!("{}const ROWS: u32 = {rows}u;\n", dense_constants(format, round));
                join(&[&constants, COMMON, EPILOGUE, DENSE, text!("dense_few")])
            }
            Self::DenseMany { format, round } => {
                let constants = dense_constants(format, round);
                join(&[&constants, COMMON, EPILOGUE, DENSE, TILES, text!("dense_many")])
            }
            Self::Norm => join(&[COMMON, text!("norm"), NORM_SUMS]),
            Self::Gather | Self::Add | Self::Gate | Self::Rope => join(&[COMMON, EPILOGUE, text!("rows")]),
            Self::StoreKv { format } => join(&[COMMON, kv_text(format), text!("kv"), text!("store_kv")]),
            Self::AttendFew { format } => join(&[
                COMMON,
                SOFTMAX,
                kv_text(format),
                text!("kv"),
                text!("few_numbers"),
                text!("paged"),
                WEIGHT,
                text!("attend_few"),
            ]),
            Self::Join => join(&[COMMON, SOFTMAX, text!("join")]),
            Self::AttendMany { format } => join(&[
                COMMON,
                SOFTMAX,
                kv_text(format),
                text!("kv"),
                text!("paged_tiles"),
                text!("paged"),
                WEIGHT,
                text!("attend_many"),
            ]),
            Self::AttendFull => join(&[COMMON, SOFTMAX, text!("full"), text!("attend_many")]),
            Self::Tick => text!("tick").to_owned(),
        }
    }
}

fn join(pieces: &[&str]) -> String {
    pieces.join("\n")
}

fn packed_constant(format: Format) -> String {
    format!("const Q8: bool = {};\n", format == Format::Q8)
}

fn dense_constants(format: Format, round: bool) -> String {
    let number = match format {
        Format::F32 => 0,
        Format::F16 => 1,
        Format::Bf16 => 2,
        Format::Q8 | Format::Q4 => unreachable!("packed matrices have kernels of their own"),
    };
    format!("const FORMAT: u32 = {number}u;\nconst ROUND: bool = {round};\n")
}

fn kv_text(format: KvFormat) -> &'static str {
    match format {
        KvFormat::F32 => text!("kv_f32"),
        KvFormat::Bf16 => text!("kv_bf16"),
        KvFormat::Q8 => text!("kv_q8"),
    }
}

/// `units.wgsl` for tiles and subgroups of a size: matrices are types, so each tile is a variable of its own.
fn units_text(tile: u32, lanes: u32) -> String {
    let tiles = (64 / tile).pow(2) * lanes / 256;
    let matrix = format!("coop_mat{tile}x{tile}");
    let each = |line: &dyn Fn(u32) -> String| (0..tiles).map(line).collect::<Vec<_>>().join("\n");
    let row = |i: u32| format!("(first + {i}u) / PER_SIDE * TILE");
    let column = |i: u32| format!("(first + {i}u) % PER_SIDE * TILE");
    let sums = each(&|i| format!("var sum_{i} = {matrix}<f32, C>();"));
    let add = each(&|i| {
        let a = format!("coopLoadT<{matrix}<f16, A>>(&rows_of_x[{} * 32u + k], 32u)", row(i));
        let b = format!("coopLoad<{matrix}<f16, B>>(&weights[{} * 32u + k], 32u)", column(i));
        format!("sum_{i} = coopMultiplyAdd({a}, {b}, sum_{i});")
    });
    let store = each(&|i| format!("coopStoreT(sum_{i}, &sums[{} * 64u + {}], 64u);", row(i), column(i)));
    let text = text!("units").replace("SUMS_OF_TILES", &sums);
    let text = text.replace("ADD_TO_TILES", &add).replace("STORE_TILES", &store);
    format!("const TILE: u32 = {tile}u;\nconst LANES: u32 = {lanes}u;\n{text}")
}

/// Every kernel there can be, but for matrix units of sizes that are not in `units`, `(tile, lanes)`.
#[cfg(test)]
pub(crate) fn all(units: &[(u32, u32)]) -> Vec<Kernel> {
    let mut kernels = vec![
        Kernel::Quantize,
        Kernel::NormQuantize,
        Kernel::Norm,
        Kernel::Gather,
        Kernel::Add,
        Kernel::Gate,
        Kernel::Rope,
        Kernel::Join,
        Kernel::AttendFull,
        Kernel::Tick,
    ];
    for format in [Format::Q8, Format::Q4] {
        kernels.extend([1, 2, 4].map(|rows| Kernel::Few { format, rows }));
        kernels.push(Kernel::Many { format });
        kernels.extend(units.iter().map(|&(tile, lanes)| Kernel::Units { format, tile, lanes }));
    }
    for format in [Format::F32, Format::F16, Format::Bf16] {
        for round in [false, true] {
            kernels.extend([1, 2, 4].map(|rows| Kernel::DenseFew { format, round, rows }));
            kernels.push(Kernel::DenseMany { format, round });
        }
    }
    for format in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8] {
        kernels.extend([
            Kernel::StoreKv { format },
            Kernel::AttendFew { format },
            Kernel::AttendMany { format },
        ]);
    }
    kernels
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
