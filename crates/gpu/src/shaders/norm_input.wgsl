// Input of the fused quantization: rows of x, normalized.
struct Numbers { cols: u32, rows: u32, groups: u32, is_layer: u32, eps: u32 }
var<immediate> n: Numbers;
@group(0) @binding(0) var<storage, read> x: array<f32>;                       // [rows, cols]
@group(0) @binding(1) var<storage, read_write> quantized: array<u32>;         // [rows, groups, 32]
@group(0) @binding(2) var<storage, read_write> row_meta: array<RowMeta>;      // [rows, groups]
@group(0) @binding(3) var<storage, read> weight: array<f32>;                  // [cols]
@group(0) @binding(4) var<storage, read> bias: array<f32>;                    // [cols], of a layer norm
const THREADS: u32 = 128u;
