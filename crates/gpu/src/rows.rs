//! Operations on single rows.

use crate::backend::Gpu;
use crate::kernel::Kernel;
use crate::recorder::{Bound, Dispatch, Recorder, Scratch, row_grid};
use crate::tensor::{GpuTensor, GpuVector};
use phi3v_kernels::{Heads, Norm};

/// Columns of a workgroup.
const WIDTH: usize = 64;

/// The parameters of a norm and its bindings: weight and bias.
pub(crate) struct NormParts<'a> {
    pub(crate) is_layer: u32,
    pub(crate) eps: u32,
    pub(crate) weight: Bound<'a>,
    pub(crate) bias: Bound<'a>,
}

impl<'a> NormParts<'a> {
    /// # Panics
    /// If weight or bias do not have `cols` values.
    pub(crate) fn new(norm: Norm<'a, GpuVector>, cols: usize) -> Self {
        let (is_layer, eps, weight, bias) = match norm {
            Norm::Rms(weight, eps) => (0, eps, weight, Bound::Empty),
            Norm::Layer((weight, bias), eps) => {
                assert_eq!(bias.len, cols, "bias of a norm");
                (1, eps, weight, Bound::Buffer(&bias.buffer))
            }
        };
        assert_eq!(weight.len, cols, "weight of a norm");
        Self { is_layer, eps: eps.to_bits(), weight: Bound::Buffer(&weight.buffer), bias }
    }
}

/// # Panics
/// If the rows cannot be rotated with `cos_sin`.
pub(crate) fn check_rotation(cos_sin: &GpuTensor, heads: Heads, qkv: &GpuTensor) {
    let cols = (heads.query + 2 * heads.key_value) * heads.dim;
    assert_eq!(qkv.cols, cols, "columns of qkv for {heads:?}");
    assert_eq!((cos_sin.rows, cos_sin.cols), (qkv.rows, heads.dim), "shape of cos_sin for {heads:?}");
    assert!(heads.dim.is_multiple_of(2), "rotated heads have an even dimension, not {}", heads.dim);
}

impl Gpu {
    pub(crate) fn run_norm(&self, x: &GpuTensor, norm: Norm<'_, GpuVector>, out: &GpuTensor) {
        assert_eq!((x.rows, x.cols), (out.rows, out.cols), "shapes of a norm");
        let NormParts { is_layer, eps, weight, bias } = NormParts::new(norm, x.cols);
        let dispatch = Dispatch {
            kernel: Kernel::Norm,
            bound: &[Bound::Buffer(&x.buffer), weight, bias, Bound::Buffer(&out.buffer)],
            numbers: &[x.cols as u32, x.rows as u32, is_layer, eps],
            grid: row_grid(1, x.rows),
            reads: 0,
            work: 2 * (x.rows * x.cols) as u64,
        };
        self.recorder().dispatch(&self.device, &dispatch);
    }

    pub(crate) fn run_gather(&self, src: &GpuTensor, rows: &[u32], out_row: usize, out: &GpuTensor) {
        assert_eq!(src.cols, out.cols, "columns of a gather");
        assert!(out_row + rows.len() <= out.rows, "{} rows from {out_row} on of {}", rows.len(), out.rows);
        assert!(rows.iter().all(|&row| (row as usize) < src.rows), "rows of a gather from {}", src.rows);
        let mut recorder = self.recorder();
        match recorder.stage(&self.device, rows) {
            Ok(at) => {
                let (source, rows) = (Bound::Buffer(&src.buffer), rows.len());
                let (threads, a) = (out.cols, out_row as u32);
                let call = OnRows { kernel: Kernel::Gather, source, out, rows, threads, a, b: at };
                self.on_rows(&mut recorder, &call);
            }
            Err(error) => recorder.keep(Err(error)),
        }
    }

    pub(crate) fn run_add(&self, addend: &GpuTensor, x: &GpuTensor) {
        assert_eq!(addend.cols, x.cols, "columns of a sum");
        assert!(addend.rows > 0 || x.rows == 0, "rows of a sum");
        let (source, a) = (Bound::Buffer(&addend.buffer), addend.rows as u32);
        let call = OnRows { kernel: Kernel::Add, source, out: x, rows: x.rows, threads: x.cols, a, b: 0 };
        self.on_rows(&mut self.recorder(), &call);
    }

    /// Computes `out`, `[rows, hidden]`, from gates and the same number of ups, `[rows, 2 hidden]`, in scratch memory.
    pub(crate) fn run_gate(&self, recorder: &mut Recorder, out: &GpuTensor) {
        let source = Bound::Scratch(Scratch::Gates);
        let call =
            OnRows { kernel: Kernel::Gate, source, out, rows: out.rows, threads: out.cols, a: 0, b: 0 };
        self.on_rows(recorder, &call);
    }

    pub(crate) fn run_rope(&self, cos_sin: &GpuTensor, heads: Heads, qkv: &GpuTensor) {
        check_rotation(cos_sin, heads, qkv);
        let rotated = heads.query + heads.key_value;
        let (source, threads) = (Bound::Buffer(&cos_sin.buffer), rotated * heads.dim / 2);
        let (a, b) = (heads.dim as u32, rotated as u32);
        let call = OnRows { kernel: Kernel::Rope, source, out: qkv, rows: qkv.rows, threads, a, b };
        self.on_rows(&mut self.recorder(), &call);
    }

    fn on_rows(&self, recorder: &mut Recorder, call: &OnRows<'_>) {
        let OnRows { kernel, source, out, rows, threads, a, b } = *call;
        // a kernel that binds the arena could not be deferred to the next submission
        let numbers = if kernel == Kernel::Gather { Bound::Arena } else { Bound::Empty };
        let dispatch = Dispatch {
            kernel,
            bound: &[source, numbers, Bound::Buffer(&out.buffer)],
            numbers: &[out.cols as u32, rows as u32, a, b],
            grid: row_grid(threads.div_ceil(WIDTH), rows),
            reads: 0,
            work: (rows * out.cols) as u64,
        };
        recorder.dispatch(&self.device, &dispatch);
    }
}

/// A kernel of `rows.wgsl`.
struct OnRows<'a> {
    kernel: Kernel,
    source: Bound<'a>,
    out: &'a GpuTensor,
    /// Number of rows that have threads.
    rows: usize,
    /// Threads per row.
    threads: usize,
    /// The kernel's own parameters.
    a: u32,
    b: u32,
}
