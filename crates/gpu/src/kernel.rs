//! All kernels: their source text, assembled from pieces, and their bindings.
//!
//! Sizes that a text needs as constants are written before it. A kernel that is never used is never compiled.

use crate::MatrixUnits;
use phi3v_kernels::quant::GROUP;
use phi3v_kernels::{Epilogue, Format, KvFormat};

/// A kernel, with the parameters of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    /// Quantizes rows to int8.
    Quantize,
    /// Normalizes rows and quantizes them.
    NormQuantize,
    /// Product of up to 16 rows with a packed matrix; computes `rows` rows per reading of it.
    Few {
        format: Format,
        rows: u32,
    },
    /// Product of more rows by integer dot products.
    Many {
        format: Format,
    },
    /// Product of more rows on matrix units, with `side` rows and columns to a workgroup.
    Units {
        format: Format,
        units: MatrixUnits,
        side: u32,
    },
    /// Product of up to 16 rows with a dense matrix; `round` rounds both factors to bf16.
    DenseFew {
        format: Format,
        round: bool,
        rows: u32,
    },
    /// Product of more rows with a dense matrix.
    DenseMany {
        format: Format,
        round: bool,
    },
    Norm,
    Gather,
    Add,
    /// Combines gates and ups that a product left side by side.
    Gate,
    Rope,
    StoreKv {
        format: KvFormat,
    },
    /// Stores keys and values of rows, and rotates the rows on the way.
    RopeStoreKv {
        format: KvFormat,
    },
    /// Causal attention, one workgroup per chunk of the keys of a row.
    AttendFew {
        format: KvFormat,
    },
    /// Joins the chunks of [`Kernel::AttendFew`].
    Join,
    /// Causal attention, one workgroup per 16 rows.
    AttendMany {
        format: KvFormat,
    },
    /// Attention within groups of rows.
    AttendFull,
    /// Ends a submission.
    Tick,
}

/// Rows and columns of a workgroup of the kernel for matrix units; the smaller is for products with few tiles.
pub(crate) const SIDES: [u32; 2] = [64, 128];
/// Heads of up to this many values use the kernels for many rows, limited by workgroup memory.
pub(crate) const MANY_DIM_MAX: usize = 128;
/// Heads of up to this many values use the kernel for few rows.
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
const FINISH: &str = text!("finish");
const DENSE: &str = text!("dense_weights");
const NORM_SUMS: &str = text!("norm_sums");
const SOFTMAX: &str = text!("softmax");
const WEIGHT: &str = text!("weight");

impl Kernel {
    /// Returns the kernel's name, for messages and tests.
    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    /// Returns the kernel's name for a table of times; for a product also the matrix, which the dispatch's `numbers`
    /// describe.
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

    /// Returns the cost of one of its multiplications, in integer multiplications, of which one instruction (`dot4`)
    /// computes four.
    pub(crate) fn cost(self) -> u64 {
        match self {
            Self::Few { .. } | Self::Many { .. } | Self::Units { .. } => 1,
            _ => 4,
        }
    }

    /// Returns the bindings in order: `r` is read, `w` is written.
    pub(crate) fn bindings(self) -> &'static str {
        match self {
            Self::Quantize => "rww",
            Self::NormQuantize => "rwwrr",
            Self::Few { .. } | Self::Many { .. } | Self::Units { .. } => "rrrrw",
            Self::DenseFew { .. } | Self::DenseMany { .. } | Self::Norm => "rrrw",
            Self::Gather | Self::Add | Self::Gate | Self::Rope | Self::StoreKv { .. } | Self::Join => "rrw",
            Self::RopeStoreKv { .. } => "rrww",
            Self::AttendFew { .. } | Self::AttendMany { .. } | Self::AttendFull => "rrrw",
            Self::Tick => "wr",
        }
    }

    /// Returns the name of the entry point.
    pub(crate) fn entry(self) -> &'static str {
        match self {
            Self::Gather => "gather",
            Self::Add => "add",
            Self::Gate => "gate",
            Self::Rope => "rope",
            _ => "main",
        }
    }

    /// Returns the whole WGSL text.
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
                let weights = [ACTIVATIONS, PACKED, GROUPS].join("\n");
                join(&[&constants, COMMON, EPILOGUE, &weights, TILES, FINISH, text!("many")])
            }
            Self::Units { format, units, side } => {
                let enable = "enable f16;\nenable wgpu_cooperative_matrix;\n";
                let MatrixUnits { tile, lanes, vectors } = units;
                let sizes = format!(
                    "const TILE: u32 = {tile}u;\nconst LANES: u32 = {lanes}u;\nconst SIDE: u32 = {side}u;\n"
                );
                let constants = [enable, &packed_constant(format), &sizes].concat();
                let memory = if vectors { text!("units_vectors") } else { text!("units_values") };
                let units = units_text(units, side);
                join(&[&constants, COMMON, EPILOGUE, ACTIVATIONS, PACKED, GROUPS, TILES, memory, &units])
            }
            Self::DenseFew { format, round, rows } => {
                let constants = format!("{}const ROWS: u32 = {rows}u;\n", dense_constants(format, round));
                join(&[&constants, COMMON, EPILOGUE, DENSE, text!("dense_few")])
            }
            Self::DenseMany { format, round } => {
                let constants = dense_constants(format, round);
                join(&[&constants, COMMON, EPILOGUE, DENSE, TILES, FINISH, text!("dense_many")])
            }
            Self::Norm => join(&[COMMON, text!("norm"), NORM_SUMS]),
            Self::Gather | Self::Add | Self::Gate | Self::Rope => join(&[COMMON, EPILOGUE, text!("rows")]),
            Self::StoreKv { format } => store_text(format, text!("plain_heads")),
            Self::RopeStoreKv { format } => store_text(format, text!("rotated_heads")),
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

/// Returns `store_kv.wgsl` with the source of its heads.
fn store_text(format: KvFormat, heads: &str) -> String {
    join(&[COMMON, kv_text(format), text!("kv"), heads, text!("store_kv")])
}

fn kv_text(format: KvFormat) -> &'static str {
    match format {
        KvFormat::F32 => text!("kv_f32"),
        KvFormat::Bf16 => text!("kv_bf16"),
        KvFormat::Q8 => text!("kv_q8"),
    }
}

/// Returns `units.wgsl` with its per-tile code. Matrices are types, so each needs a variable of its own. So does each
/// value that a thread holds, which must not go through memory.
fn units_text(units: MatrixUnits, side: u32) -> String {
    let MatrixUnits { tile, lanes, .. } = units;
    let matrix = format!("coop_mat{tile}x{tile}");
    let (row_tiles, column_tiles) = (side / 4 / tile, 64 / tile);
    // rows of half a row tile that a thread holds
    let held_rows = tile * 8 / lanes;
    let held = row_tiles * 2 * held_rows;
    let each = |count: u32, line: &dyn Fn(u32) -> String| (0..count).map(line).collect::<Vec<_>>().join("\n");
    let tiles = row_tiles * column_tiles;
    let name = |i: u32| format!("{}_{}", i / column_tiles, i % column_tiles);
    let sums = each(tiles, &|i| format!("var sum_{} = {matrix}<f32, C>();", name(i)));
    let at = |first: &str, i: u32| format!("(({first} + {}u) * STRIDE + k / 4u) * EACH", i * tile);
    let load = [
        each(row_tiles, &|i| {
            let from = at("first_row", i);
            format!("let a_{i} = coopLoadT<{matrix}<f16, A>>(&rows_of_x[{from}], STRIDE * EACH);")
        }),
        each(column_tiles, &|i| {
            let from = at("first_column", i);
            format!("let b_{i} = coopLoad<{matrix}<f16, B>>(&weights[{from}], STRIDE * EACH);")
        }),
        each(tiles, &|i| {
            let (name, row, column) = (name(i), i / column_tiles, i % column_tiles);
            format!("sum_{name} = coopMultiplyAdd(a_{row}, b_{column}, sum_{name});")
        }),
    ];
    let pieces = each(row_tiles, &|row| units_row_tile(row, tile, held_rows, lanes));
    let all = (0..held).map(|i| format!("y_{i}")).collect::<Vec<_>>().join(", ");
    text!("units")
        .replace("NO_SUMS_YET", &each(held, &|i| format!("var y_{i} = vec4<f32>(0.0);")))
        .replace("SUMS_OF_TILES", &sums)
        .replace("ADD_TO_TILES", &load.join("\n"))
        .replace("ADD_PIECES", &pieces)
        .replace("TAKE_HELD", &each(held, &|i| format!("y_{i} = y.y[{i}];")))
        .replace("ALL_HELD", &format!("array<vec4<f32>, HELD>({all})"))
        .replace("HOW_MANY_HELD", &format!("{held}u"))
}

/// Returns the code that moves the sums of one row tile of a subgroup to its threads, 32 columns at a time through the
/// subgroup's workgroup memory.
fn units_row_tile(row: u32, tile: u32, held_rows: u32, lanes: u32) -> String {
    let mut text = String::new();
    for i in 0..held_rows {
        let at = 2 * (row * tile + i * lanes / 8);
        text += &format!("let scale_{row}_{i} = bitcast<f32>(marks[2u * row + {at}u]);\n");
        text += &format!("places = max(places, marks[2u * row + {}u]);\n", at + 1);
    }
    for half in 0..2 {
        for column in 0..32 / tile {
            let (to, sum) = (column * tile / 4, half * 32 / tile + column);
            text +=
                &format!("coopStoreT(sum_{row}_{sum}, &pieces[(piece + {to}u) * EACH], STRIDE * EACH);\n");
        }
        text += "workgroupBarrier();\n";
        for i in 0..held_rows {
            let y = (row * 2 + half) * held_rows + i;
            let sum = format!("piece_at(mine + {}u * STRIDE)", i * lanes / 8);
            text += &format!("y_{y} = added(y_{y}, {sum}, scales_{half}, scale_{row}_{i});\n");
        }
        text += "workgroupBarrier();\n";
    }
    text
}

/// Returns every possible kernel, except those for matrix units that are not in `units`.
pub(crate) fn all(units: &[MatrixUnits]) -> Vec<Kernel> {
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
        for &units in units {
            kernels.extend(SIDES.map(|side| Kernel::Units { format, units, side }));
        }
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
            Kernel::RopeStoreKv { format },
            Kernel::AttendFew { format },
            Kernel::AttendMany { format },
        ]);
    }
    kernels
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
