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

/// Rows up to which the kernels for few rows run, as on the CPU.
pub(crate) const FEW_ROWS_MAX: usize = 16;
/// Words of a group of quantized values.
const GROUP_WORDS: usize = GROUP / 4;
/// Bytes of a `RowMeta` of `activations.wgsl`.
const META_BYTES: usize = 32;
/// Rows and columns of a tile of the kernels for many rows that have one size.
const TILE: usize = 64;
/// Large tiles from which on a product has them: they take less memory traffic, but fewer would leave a card of a hundred units and
/// more idle, that four times as many smaller ones do not.
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

/// Consecutive columns of a product: as many as a kernel can see of the matrix.
pub(crate) struct Part {
    pub(crate) buffer: Buffer,
    first: usize,
    cols: usize,
    bytes: usize,
}

/// A table whose rows are looked up. It stays on the host, whose memory is cheaper: a row is 12 KB to send.
pub struct GpuTable(MatrixSource);

/// Bytes of a stored value of a dense format; `None` of a packed one.
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

/// How a matrix is cut into parts that a kernel can see whole, and a grid of workgroups cover.
pub(crate) struct PartCut {
    /// Columns of the product in a part.
    pub(crate) cols: usize,
    /// Columns that are cut apart nowhere, and their bytes: a panel, or two rows, which are whole words.
    unit: usize,
    unit_bytes: usize,
}

impl PartCut {
    /// For an `[n, k]` matrix, where a kernel sees at most so many bytes.
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

    /// Where column `first` begins.
    fn offset(&self, first: usize) -> usize {
        first / self.unit * self.unit_bytes
    }

    /// Bytes of the part of `cols` columns, where the last is whole.
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

    /// Whether the kernels can put gates and ups together: both in one part, in panels of their own.
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

    /// Row `id`, widened, at the end of `out`.
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

/// Bytes of quantized rows: of their values, and of what belongs to each group of them.
pub(crate) fn quantized_bytes(rows: usize, cols: usize) -> [usize; 2] {
    let groups = rows * cols.div_ceil(GROUP);
    [groups * GROUP_WORDS * 4, groups * META_BYTES]
}

/// How the kernels know an epilogue, see `epilogue.wgsl`.
pub(crate) fn number(epilogue: Epilogue) -> u32 {
    match epilogue {
        Epilogue::Store => 0,
        Epilogue::Add => 1,
        Epilogue::Gelu => 2,
        Epilogue::QuickGelu => 3,
        Epilogue::SiluMul => 4,
    }
}

/// Rows that a kernel for few rows makes from one reading of the weights.
fn rows_at_once(rows: usize) -> u32 {
    match rows {
        0 | 1 => 1,
        2 => 2,
        _ => 4,
    }
}

/// Input of a product: rows, or what they were quantized to.
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

/// Rows and columns to a workgroup of the kernel for matrix units, see
/// [`Device::side_for`](crate::device::Device::side_for).
pub(crate) fn side_for(rows: usize, cols: usize) -> u32 {
    let [small, large] = SIDES;
    let tiles = [rows, cols].map(|count| count.div_ceil(large as usize)).iter().product::<usize>();
    if tiles < LARGE_TILES_MIN { small } else { large }
}

/// Columns of the kernel whose workgroups have the fewest.
const FEWEST_COLS: usize = 4;

/// What a workgroup makes of a product.
pub(crate) struct Blocks {
    pub(crate) rows: usize,
    /// Columns of the output.
    cols: usize,
}

impl Blocks {
    /// Of a kernel for products; `gated` where a column of the output is a gate and an up.
    pub(crate) fn new(kernel: Kernel, gated: bool) -> Self {
        let (rows, cols) = match kernel {
            Kernel::Few { rows, .. } => return Self { rows: rows as usize, cols: 16 },
            Kernel::DenseFew { rows, .. } => return Self { rows: rows as usize, cols: FEWEST_COLS },
            Kernel::Units { side, .. } => (side as usize, side as usize),
            _ => (TILE, TILE),
        };
        Self { rows, cols: if gated { cols / 2 } else { cols } }
    }

    /// Workgroups for a product of so many rows and columns of the output. Rows are along the side that runs fastest: workgroups of the
    /// same columns, which read the same weights, follow each other and find them in the card's cache.
    pub(crate) fn grid(&self, rows: usize, cols: usize) -> [usize; 3] {
        [rows.div_ceil(self.rows), cols.div_ceil(self.cols), 1]
    }
}

/// Rows of a product that one dispatch makes: of few all, of many no more than the card shall be busy with, but whole `blocks`. A row has
/// `row_work` multiplications, by what they cost.
pub(crate) fn rows_of_dispatch(rows: usize, blocks: &Blocks, row_work: u64, work_max: u64) -> usize {
    let most = usize::try_from(work_max / row_work.max(1)).unwrap_or(usize::MAX);
    if rows <= FEW_ROWS_MAX {
        rows
    } else {
        (most / blocks.rows).max(1).saturating_mul(blocks.rows).min(rows)
    }
}

/// Where a product goes, and what happens to it on the way.
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

    /// `norm(x) Wᵀ + bias`: quantized on the way where all matrices are packed and rows are few, so that each is normed by
    /// several workgroups at once; otherwise normed rows first.
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
        // kept to the end: the quantized rows lie in scratch that other threads use as well
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

    /// Rows to int8, in the recorder's scratch, normed on the way if asked.
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

    /// A product, part by part, and of many rows no more at once than the card shall be busy with.
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
                // asked anew: the first dispatches teach how fast the card is
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
                    // a block of rows reads them all
                    reads: (part.bytes * count.div_ceil(blocks.rows)) as u64,
                    work: count as u64 * row_work,
                };
                recorder.dispatch(&self.device, &dispatch);
                first_row += count;
            }
        }
    }
}

/// The kernel for a product of `rows` rows; on matrix units, where they are to be used, with so many rows and columns to a workgroup.
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
