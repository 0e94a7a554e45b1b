// Keys and values to store, unchanged: a workgroup handles one head of them of one row.
struct Numbers { cols: u32, first_col: u32, dim: u32, heads: u32, entries: u32 }
var<immediate> n: Numbers;
@group(0) @binding(0) var<storage, read> qkv: array<f32>;        // [rows, cols]
@group(0) @binding(1) var<storage, read> batch: array<u32>;      // [entries][row, token, first word of its block table, 0], tables
@group(0) @binding(2) var<storage, read_write> kv: array<u32>;

fn head_of(x: u32) -> u32 { return x; }
fn is_stored(x: u32) -> bool { return true; }
fn prepare(row: u32, x: u32, is_row: bool, t: u32) {}
fn value_of_head(row: u32, x: u32, d: u32) -> f32 { return qkv[row * n.cols + n.first_col + x * n.dim + d]; }
