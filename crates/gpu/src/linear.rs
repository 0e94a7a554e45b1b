//! Weights on the card, and products with them.

use crate::MatrixUnits;
use crate::backend::Gpu;
use crate::buffer::Buffer;
use crate::kernel::{Kernel, SIDES};
use crate::recorder::{Bound, Dispatch, Recorder, SIDE_MAX, Scratch};
use crate::rows::NormParts;
use crate::tensor::{GpuTensor, GpuVector, value_bytes};
use half::{bf16, f16};
use phi3v_kernels::quant::{GROUP, PANEL, PackedShape};
use phi3v_kernels::{BackendError, Epilogue, Format, MatrixSource, Norm, Precision};

/// Up to this number of rows the kernels for few rows run, as on the CPU.
pub(crate) const FEW_ROWS_MAX: usize = 16;
/// Words of a group of quantized values.
const GROUP_WORDS: usize = GROUP / 4;
/// Bytes of a `RowMeta` of `activations.wgsl`.
const META_BYTES: usize = 32;
/// Rows and columns of a tile of the kernels for many rows that have a fixed tile size.
const TILE: usize = 64;
/// A product uses large tiles if it has at least this many of them. Large tiles cause less memory traffic, but fewer of
/// them would leave a card of a hundred units or more idle; four times as many smaller ones do not.
const LARGE_TILES_MIN: usize = 64;

/// A weight matrix with its optional bias, on the card.
pub struct GpuLinear {
    pub(crate) parts: Vec<Part>,
    bias: Option<Buffer>,
    format: Format,
    precision: Precision,
    n: usize,
    k: usize,
}

/// Consecutive columns of a product: as many as fit into one binding of the matrix.
pub(crate) struct Part {
    pub(crate) buffer: Buffer,
    first: usize,
    cols: usize,
    bytes: usize,
}

/// A table whose rows are looked up. It stays in the host's memory, which is cheaper: a row is 12 KB to send.
pub struct GpuTable(MatrixSource);

/// Returns the bytes of a stored value of a dense format; `None` for a packed one.
fn value_size(format: Format) -> Option<usize> {
    match format {
        Format::F32 => Some(4),
        Format::F16 | Format::Bf16 => Some(2),
        Format::Q8 | Format::Q4 => None,
    }
}

/// Checks the size of a matrix.
fn check_size(source: &MatrixSource) -> Result<(), BackendError> {
    let MatrixSource { format, n, k, .. } = *source;
    let dense = value_size(format).map(|size| n.checked_mul(k)?.checked_mul(size));
    let expected = dense.unwrap_or_else(|| PackedShape::new(format, n, k).map(PackedShape::bytes));
    let expected = expected.ok_or(BackendError::MatrixShape { n, k, format })?;
    let found = source.bytes.len();
    if expected == found { Ok(()) } else { Err(BackendError::MatrixSize { n, k, format, expected, found }) }
}

/// How a matrix is split into parts, each of which fits into one binding and one grid of workgroups.
pub(crate) struct PartCut {
    /// Columns of the product in a part.
    pub(crate) cols: usize,
    /// Smallest number of columns that is never split, and its bytes: a panel, or two rows, which are whole words.
    unit: usize,
    unit_bytes: usize,
}

impl PartCut {
    /// Splits an `[n, k]` matrix for bindings of at most `bytes_max` bytes.
    pub(crate) fn new(format: Format, n: usize, k: usize, bytes_max: u64) -> Result<Self, BackendError> {
        let (unit, unit_bytes) = match (PackedShape::new(format, n, k), value_size(format)) {
            (Some(shape), _) => (PANEL, shape.panel_bytes()),
            (None, size) => (2, 2 * k * size.unwrap_or_default()),
        };
        match usize::try_from(bytes_max).unwrap_or(usize::MAX) / unit_bytes.max(1) {
            0 => Err(BackendError::OutOfMemory { bytes: unit_bytes }),
            units => {
                let units = units.min(SIDE_MAX * FEWEST_COLS / unit);
                Ok(Self { cols: units * unit, unit, unit_bytes })
            }
        }
    }

    /// Returns the byte offset of column `first`.
    fn offset(&self, first: usize) -> usize {
        first / self.unit * self.unit_bytes
    }

    /// Returns the bytes of the part of `cols` columns, with the last unit complete.
    pub(crate) fn bytes(&self, cols: usize) -> usize {
        cols.div_ceil(self.unit) * self.unit_bytes
    }
}

impl GpuLinear {
    pub(crate) fn new(gpu: &Gpu, source: &MatrixSource) -> Result<Self, BackendError> {
        check_size(source)?;
        let MatrixSource { format, precision, n, k, .. } = *source;
        let filled = |bytes: &[u8]| gpu.recorder().filled(&gpu.device, bytes);
        let cut = PartCut::new(format, n, k, gpu.device.binding_bytes_max)?;
        let mut parts = Vec::new();
        for first in (0..n).step_by(cut.cols) {
            let cols = cut.cols.min(n - first);
            let at = cut.offset(first);
            let bytes = cut.bytes(cols).min(source.bytes.len() - at);
            let buffer = filled(&source.bytes[at..at + bytes])?;
            parts.push(Part { buffer, first, cols, bytes });
        }
        let bias = source.bias.as_ref().map(|bias| {
            assert_eq!(bias.len(), n, "bias of a [{n}, {k}] matrix");
            filled(bytemuck::cast_slice(bias))
        });
        Ok(Self { parts, bias: bias.transpose()?, format, precision, n, k })
    }

    /// Returns whether the kernels can combine gates and ups: both are in one part, in separate panels.
    fn gates_fused(&self) -> bool {
        self.parts.len() == 1 && (self.n / 2).is_multiple_of(PANEL)
    }
}

impl GpuTable {
    pub(crate) fn new(source: MatrixSource) -> Result<Self, BackendError> {
        let MatrixSource { n, k, format, .. } = source;
        if format.is_packed() {
            return Err(BackendError::MatrixShape { n, k, format });
        }
        check_size(&source)?;
        Ok(Self(source))
    }

    /// Appends row `id`, converted to f32, to `out`.
    fn push_row(&self, id: u32, out: &mut Vec<f32>) {
        let MatrixSource { n, k, format, bytes, .. } = &self.0;
        assert!((id as usize) < *n, "row {id} of a table of {n}");
        let size = value_size(*format).unwrap_or_default();
        let row = &bytes[id as usize * k * size..(id as usize + 1) * k * size];
        let pair = |pair: &[u8]| [pair[0], pair[1]];
        match format {
            Format::F16 => out.extend(row.chunks_exact(2).map(|v| f16::from_le_bytes(pair(v)).to_f32())),
            Format::Bf16 => out.extend(row.chunks_exact(2).map(|v| bf16::from_le_bytes(pair(v)).to_f32())),
            _ => out.extend(row.chunks_exact(4).map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]]))),
        }
    }
}

/// Returns the bytes of quantized rows: of their values, and of the metadata of their groups.
pub(crate) fn quantized_bytes(rows: usize, cols: usize) -> [usize; 2] {
    let groups = rows * cols.div_ceil(GROUP);
    [groups * GROUP_WORDS * 4, groups * META_BYTES]
}

/// Returns the number of an epilogue in the kernels, see `epilogue.wgsl`.
pub(crate) fn number(epilogue: Epilogue) -> u32 {
    match epilogue {
        Epilogue::Store => 0,
        Epilogue::Add => 1,
        Epilogue::Gelu => 2,
        Epilogue::QuickGelu => 3,
        Epilogue::SiluMul => 4,
    }
}

/// Returns the rows that a kernel for few rows computes per reading of the weights.
fn rows_at_once(rows: usize) -> u32 {
    match rows {
        0 | 1 => 1,
        2 => 2,
        _ => 4,
    }
}

/// Input of a product: rows, or their quantized form.
#[derive(Clone, Copy)]
enum Input<'a> {
    Rows(&'a GpuTensor),
    /// In the recorder's scratch.
    Quantized {
        rows: usize,
    },
}

impl Input<'_> {
    fn rows(&self) -> usize {
        match self {
            Self::Rows(x) => x.rows,
            Self::Quantized { rows } => *rows,
        }
    }
}

/// Returns the rows and columns of a workgroup of the kernel for matrix units, see
/// [`Device::side_for`](crate::device::Device::side_for).
pub(crate) fn side_for(rows: usize, cols: usize) -> u32 {
    let [small, large] = SIDES;
    let tiles = [rows, cols].map(|count| count.div_ceil(large as usize)).iter().product::<usize>();
    if tiles < LARGE_TILES_MIN { small } else { large }
}

/// Columns of a workgroup of the kernel with the fewest.
const FEWEST_COLS: usize = 4;

/// The part of a product that a workgroup computes.
pub(crate) struct Blocks {
    pub(crate) rows: usize,
    /// Number of columns of the output.
    cols: usize,
}

impl Blocks {
    /// Returns the block of a kernel for products; with `gated`, a column of the output combines a gate and an up.
    pub(crate) fn new(kernel: Kernel, gated: bool) -> Self {
        let (rows, cols) = match kernel {
            Kernel::Few { rows, .. } => return Self { rows: rows as usize, cols: 16 },
            Kernel::DenseFew { rows, .. } => return Self { rows: rows as usize, cols: FEWEST_COLS },
            Kernel::Units { side, .. } => (side as usize, side as usize),
            _ => (TILE, TILE),
        };
        Self { rows, cols: if gated { cols / 2 } else { cols } }
    }

    /// Returns the workgroups for a product of `rows` rows and `cols` columns of the output. Rows run along the fastest
    /// dimension: workgroups of the same columns, which read the same weights, follow each other and find them in the
    /// card's cache.
    pub(crate) fn grid(&self, rows: usize, cols: usize) -> [usize; 3] {
        [rows.div_ceil(self.rows), cols.div_ceil(self.cols), 1]
    }
}

/// Returns the rows of a product that one dispatch computes. Few rows: all of them. Many rows: whole blocks, no more
/// than the card may be busy with at a time, but at least one. A row costs `row_work` multiplications.
pub(crate) fn rows_of_dispatch(rows: usize, blocks: &Blocks, row_work: u64, work_max: u64) -> usize {
    let most = usize::try_from(work_max / row_work.max(1)).unwrap_or(usize::MAX);
    if rows <= FEW_ROWS_MAX {
        rows
    } else {
        (most / blocks.rows).max(1).saturating_mul(blocks.rows).min(rows)
    }
}

/// The destination of a product, and its epilogue.
struct Output<'a> {
    to: Bound<'a>,
    cols: usize,
    epilogue: Epilogue,
}

impl Gpu {
    pub(crate) fn run_embed(&self, table: &GpuTable, ids: &[u32], out_row: usize, out: &GpuTensor) {
        assert_eq!(table.0.k, out.cols, "columns of an embedding");
        let mut values = Vec::with_capacity(ids.len() * out.cols);
        ids.iter().for_each(|&id| table.push_row(id, &mut values));
        self.upload_values(&values, out_row, out);
    }

    pub(crate) fn run_linear(&self, x: &GpuTensor, weight: &GpuLinear, epilogue: Epilogue, out: &GpuTensor) {
        let mut recorder = self.recorder();
        let result = self.product(&mut recorder, x, weight, epilogue, out);
        recorder.keep(result);
    }

    fn product(
        &self,
        recorder: &mut Recorder,
        x: &GpuTensor,
        weight: &GpuLinear,
        epilogue: Epilogue,
        out: &GpuTensor,
    ) -> Result<(), BackendError> {
        assert_eq!(x.cols, weight.k, "input columns of a [{}, {}] matrix", weight.n, weight.k);
        let input =
            if weight.format.is_packed() { self.quantize(recorder, x, None)? } else { Input::Rows(x) };
        self.multiply(recorder, input, weight, epilogue, out)
    }

    /// Computes `norm(x) Wᵀ + bias`. If all matrices are packed and rows are few, the rows are normalized while they
    /// are quantized, so that several workgroups share each row. Otherwise they are normalized first.
    pub(crate) fn run_normed(
        &self,
        x: &GpuTensor,
        norm: Norm<'_, GpuVector>,
        products: &[(&GpuLinear, Epilogue, &GpuTensor)],
        normed: &mut GpuTensor,
    ) -> Result<(), BackendError> {
        if !products.iter().all(|(weight, ..)| weight.format.is_packed()) {
            self.reshape_tensor(normed, x.rows, x.cols)?;
            self.run_norm(x, norm, normed);
            for (weight, epilogue, out) in products {
                self.run_linear(normed, weight, *epilogue, out);
            }
            return Ok(());
        }
        let few = x.rows <= FEW_ROWS_MAX;
        if !few {
            self.reshape_tensor(normed, x.rows, x.cols)?;
            self.run_norm(x, norm, normed);
        }
        // held to the end: the quantized rows are in scratch memory that other threads use as well
        let recorder = &mut *self.recorder();
        let input = if few {
            self.quantize(recorder, x, Some(norm))?
        } else {
            self.quantize(recorder, normed, None)?
        };
        for (weight, epilogue, out) in products {
            assert_eq!(x.cols, weight.k, "input columns of a [{}, {}] matrix", weight.n, weight.k);
            self.multiply(recorder, input, weight, *epilogue, out)?;
        }
        Ok(())
    }

    /// Quantizes rows to int8 in the recorder's scratch memory, normalizing them if requested.
    fn quantize<'a>(
        &self,
        recorder: &mut Recorder,
        x: &GpuTensor,
        norm: Option<Norm<'a, GpuVector>>,
    ) -> Result<Input<'a>, BackendError> {
        let groups = x.cols.div_ceil(GROUP);
        let [values, metas] = quantized_bytes(x.rows, x.cols);
        recorder.reserve(&self.device, Scratch::Quantized, values)?;
        recorder.reserve(&self.device, Scratch::Meta, metas)?;
        let grid = crate::recorder::row_grid(groups, x.rows);
        let work = (x.rows * x.cols) as u64;
        let [rows, cols, groups] = [x.rows, x.cols, groups].map(|v| v as u32);
        let bound =
            [Bound::Buffer(&x.buffer), Bound::Scratch(Scratch::Quantized), Bound::Scratch(Scratch::Meta)];
        match norm.map(|norm| NormParts::new(norm, x.cols)) {
            None => {
                let numbers = &[cols, rows, groups];
                let kernel = Kernel::Quantize;
                recorder.dispatch(
                    &self.device,
                    &Dispatch { kernel, bound: &bound, numbers, grid, reads: 0, work },
                );
            }
            Some(NormParts { is_layer, eps, weight, bias }) => {
                let [x, values, meta] = bound;
                let bound = &[x, values, meta, weight, bias];
                let numbers = &[cols, rows, groups, is_layer, eps];
                let kernel = Kernel::NormQuantize;
                recorder.dispatch(&self.device, &Dispatch { kernel, bound, numbers, grid, reads: 0, work });
            }
        }
        Ok(Input::Quantized { rows: x.rows })
    }

    fn multiply(
        &self,
        recorder: &mut Recorder,
        input: Input<'_>,
        weight: &GpuLinear,
        epilogue: Epilogue,
        out: &GpuTensor,
    ) -> Result<(), BackendError> {
        let rows = input.rows();
        let shape = (rows, epilogue.out_cols(weight.n));
        assert_eq!((out.rows, out.cols), shape, "output of a [{}, {}] matrix", weight.n, weight.k);
        let to = Bound::Buffer(&out.buffer);
        if epilogue.is_gated() && !weight.gates_fused() {
            recorder.reserve(&self.device, Scratch::Gates, value_bytes(rows, weight.n))?;
            let to = Bound::Scratch(Scratch::Gates);
            self.parts(recorder, input, weight, &Output { to, cols: weight.n, epilogue: Epilogue::Store });
            self.run_gate(recorder, out);
        } else {
            self.parts(recorder, input, weight, &Output { to, cols: out.cols, epilogue });
        }
        Ok(())
    }

    /// Runs a product part by part; of many rows, no more at once than the card may be busy with.
    fn parts(&self, recorder: &mut Recorder, input: Input<'_>, weight: &GpuLinear, output: &Output<'_>) {
        let bias = weight.bias.as_ref().map_or(Bound::Empty, Bound::Buffer);
        let [quantized, meta] = [Scratch::Quantized, Scratch::Meta].map(Bound::Scratch);
        let (rows, k) = (input.rows(), weight.k);
        let depth = if weight.format.is_packed() { k.div_ceil(GROUP) } else { k };
        for part in &weight.parts {
            let gated = output.epilogue.is_gated();
            let cols = if gated { part.cols / 2 } else { part.cols };
            let (units, side) = (self.device.used_units(), self.device.side_for(rows, part.cols));
            let kernel = kernel_for(weight.format, weight.precision, rows, units, side);
            let blocks = Blocks::new(kernel, gated);
            let [depth, row_count, width] = [depth, rows, cols].map(|v| v as u32);
            let [out_cols, first] = [output.cols, part.first].map(|v| v as u32);
            let has_bias = u32::from(weight.bias.is_some());
            let epilogue = number(output.epilogue);
            let weights = Bound::Buffer(&part.buffer);
            let packed = [weights, quantized, meta, bias, output.to];
            let dense;
            let bound: &[_] = match input {
                Input::Quantized { .. } => &packed,
                Input::Rows(x) => {
                    dense = [weights, Bound::Buffer(&x.buffer), bias, output.to];
                    &dense
                }
            };
            let row_work = (part.cols * k) as u64;
            let row_cost = row_work * kernel.cost();
            let mut first_row = 0;
            while first_row < rows {
                // read again each time: the first dispatches measure the card's speed
                let work_max = self.device.pace.work_max();
                let count = rows_of_dispatch(rows - first_row, &blocks, row_cost, work_max);
                let dispatch = Dispatch {
                    kernel,
                    bound,
                    numbers: &[
                        depth,
                        row_count,
                        width,
                        out_cols,
                        first,
                        epilogue,
                        has_bias,
                        first_row as u32,
                    ],
                    grid: blocks.grid(count, cols),
                    // each block of rows reads the whole part
                    reads: (part.bytes * count.div_ceil(blocks.rows)) as u64,
                    work: count as u64 * row_work,
                };
                recorder.dispatch(&self.device, &dispatch);
                first_row += count;
            }
        }
    }
}

/// Returns the kernel for a product of `rows` rows; on matrix units, if used, with the rows and columns of a workgroup.
pub(crate) fn kernel_for(
    format: Format,
    precision: Precision,
    rows: usize,
    units: Option<MatrixUnits>,
    side: u32,
) -> Kernel {
    let round = precision == Precision::Bf16;
    let few = rows <= FEW_ROWS_MAX;
    match (format.is_packed(), few, units) {
        (true, true, _) => Kernel::Few { format, rows: rows_at_once(rows) },
        (true, false, None) => Kernel::Many { format },
        (true, false, Some(units)) => Kernel::Units { format, units, side },
        (false, true, _) => Kernel::DenseFew { format, round, rows: rows_at_once(rows) },
        (false, false, _) => Kernel::DenseMany { format, round },
    }
}
