// Input of the quantization: rows of x, unchanged.
struct Numbers { cols: u32, rows: u32, groups: u32 }
var<immediate> n: Numbers;
@group(0) @binding(0) var<storage, read> x: array<f32>;                       // [rows, cols]
@group(0) @binding(1) var<storage, read_write> quantized: array<u32>;         // [rows, groups, 32]
@group(0) @binding(2) var<storage, read_write> row_meta: array<RowMeta>;      // [rows, groups]
const THREADS: u32 = 32u;
struct Moments { unused: u32 }
fn prepare(row: u32, t: u32) -> Moments { return Moments(0u); }
fn input(row: u32, i: u32, moments: Moments) -> f32 { return x[row * n.cols + i]; }
