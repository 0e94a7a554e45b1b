// Heads of rows, rotated in place as `rope` of rows.wgsl does, with keys and values to store. A workgroup handles one
// head of one row, queries first.
struct Numbers { cols: u32, first_col: u32, dim: u32, heads: u32, entries: u32 }
var<immediate> n: Numbers;
@group(0) @binding(0) var<storage, read> cos_sin: array<f32>;         // [rows, dim]
@group(0) @binding(1) var<storage, read> batch: array<u32>;           // [entries][row, token, first word of its block table, 0], tables
@group(0) @binding(2) var<storage, read_write> qkv: array<f32>;       // [rows, cols]
@group(0) @binding(3) var<storage, read_write> kv: array<u32>;
var<workgroup> held: array<f32, 256>;

fn queries() -> u32 { return n.first_col / n.dim; }
fn head_of(x: u32) -> u32 { return x - queries(); }
fn is_stored(x: u32) -> bool { return x >= queries(); }

// Values stay unchanged. A row past the last one repeats the last, which only its own workgroup may write.
fn prepare(row: u32, x: u32, is_row: bool, t: u32) {
    let first = row * n.cols + x * n.dim;
    if (x >= queries() + n.heads) {
        for (var d = t; d < n.dim; d += 64u) { held[d] = qkv[first + d]; }
    } else {
        let half = n.dim / 2u;
        for (var j = t; j < half; j += 64u) {
            let cosine = cos_sin[row * n.dim + j];
            let sine = cos_sin[row * n.dim + half + j];
            let a = qkv[first + j];
            let b = qkv[first + half + j];
            held[j] = a * cosine - b * sine;
            held[half + j] = b * cosine + a * sine;
            if (is_row) {
                qkv[first + j] = held[j];
                qkv[first + half + j] = held[half + j];
            }
        }
    }
    workgroupBarrier();
}
fn value_of_head(row: u32, x: u32, d: u32) -> f32 { return held[d]; }
